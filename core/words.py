"""Words of a text, as regular expressions."""

MARKS = r"\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0900-\u0963\u0966-\u0dff\u0e31\u0e34-\u0e3a\u0e47-\u0e4e"
"""Characters of a regular expression that are signs of the letter before, such as the vowels of Hindi; \\w leaves
them out."""
WORD_OF_TWO = rf"\w[\w{MARKS}]+"
"""A word of at least two characters, as scikit-learn's vectorizers find it."""
