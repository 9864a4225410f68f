"""Class labels in tables: 0 and 1, booleans, names, ordinal levels; and columns named after classes or targets."""

import re
from functools import cache
from os.path import commonprefix

import numpy as np
import pandas as pd

MISSING = {"", "na", "n/a", "nan", "null", "none"}
"""Cells without a number or label, in lower case. If other classes are names, None and NA may be classes."""

WORD = r"(?<![^\W_]){}(?![^\W_])"
"""Regular expression of a name between characters that are neither letters nor digits."""
MIN_LENGTH = 3
"""Number of characters from which a name may be a part of a word, since others are there by chance."""
BOOLEANS = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}


def class_name(cell: str) -> str:
    """Return the normalized form of a label: no whitespace around it, no decimals of a whole number."""
    return re.sub(r"^([+-]?\d+)\.0*$", r"\1", cell.strip())


def class_names(labels: pd.DataFrame) -> list[str]:
    """Return the distinct labels of columns of text, sorted as numbers if all of them are, else as text."""
    cells = pd.unique(labels.to_numpy().ravel())
    names = sorted({class_name(cell) for cell in cells} - {"", "nan", "NaN"})
    labelled = [name for name in names if name.lower() not in MISSING]
    numbers = pd.to_numeric(pd.Series(labelled, dtype=str), errors="coerce")
    return names if numbers.isna().any() else [labelled[i] for i in np.argsort(numbers, kind="stable")]


@cache  # the columns are needed at many places, and a competition may have a thousand classes
def match_columns(columns: tuple[str, ...], names: tuple[str, ...]) -> dict[str, str]:
    """Return the class or target of each column that is named after one; {} if none is.

    A column has the name as a word (prob_high), in upper or lower case. If all columns match, it may come after a
    prefix that all columns share (spam_ham, spam_spam), or be a part of a word, unless names are short: profit is not
    named after f. Of several names in a column, the one that contains the others counts (not_toxic, toxic).
    """
    by_word = _matches(columns, names, WORD)
    prefix = re.sub(r"[^\W_]*$", "", commonprefix(columns))
    ends = {column.removeprefix(prefix): column for column in columns}
    by_end = {ends[end]: name for end, name in _matches(tuple(ends), names, WORD).items()}
    is_distinctive = all(len(name) >= MIN_LENGTH or name.isdigit() for name in names)
    by_part = _matches(columns, names, "{}") if is_distinctive else {}
    complete = [each for each in (by_word, by_end, by_part) if len({*each.values()}) == len(names)]
    return complete[0] if complete else by_word


def _matches(columns: tuple[str, ...], names: tuple[str, ...], pattern: str) -> dict[str, str]:
    expressions = [re.compile(pattern.format(re.escape(name)), re.IGNORECASE) for name in names]
    matches = {}
    for column in columns:
        found = [
            name for name, expression in zip(names, expressions, strict=True) if expression.search(column)
        ]
        longest = [name for name in found if all(other.lower() in name.lower() for other in found)]
        if column in names:
            longest = [column]
        if len(longest) == 1:
            matches[column] = longest[0]
    return matches


def class_numbers(cells: pd.Series, classes: list[str]) -> tuple[pd.Series, pd.Series]:
    """Return the class index of each cell, NaN without one, and a mask of the cells with an unknown label.

    Booleans may be written True, TRUE or true.
    """
    names = cells.map({cell: class_name(cell) for cell in cells.unique()}).replace(BOOLEANS)
    numbers = names.map({BOOLEANS.get(name, name): float(i) for i, name in enumerate(classes)})
    return numbers.astype(float), numbers.isna() & ~names.str.lower().isin(MISSING)
