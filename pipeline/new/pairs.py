"""Text columns that a competition compares, as `./run.sh new` guesses them."""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from competition.pairs import WORD, common_shares
from pipeline.new.column_roles import are_words
from pipeline.new.detect import DetectedTables
from pipeline.new.series import numbered_series

MAX_PAIRS = 3
"""Number of pairs that are written."""
MAX_OPTIONS = 5
"""Number of pairs that are written if one text is compared with several options."""
MAX_COLUMNS = 8
"""Number of text columns up to which pairs are looked for."""
N_ROWS = 300
"""Number of training rows that are read; at most twice as many."""
MIN_EXCESS, MIN_ERRORS = 0.1, 5.0
"""By which share of its words, and by how many standard errors, the shorter text has to have more words in common
with its partner than with those of other rows."""
MIN_PHRASE = 2.0
"""Mean number of words from which a category may be a phrase."""
MAX_RATIO = 4.0
"""Ratio of the mean numbers of words up to which texts are of one kind."""
MIN_WITHIN = 0.7
"""Share of the rows in which the shorter text has to be within the longer one."""
PART = "one text is a part of the other one"
NAMES = (
    ("anchor", "target"), ("question", "answer"), ("premise", "hypothesis"), ("original", "edit"),
    ("prompt", "response"), ("query", "document|passage|product"), ("sentence|context", "token|word|phrase|aspect"),
)  # fmt: skip
"""Words in the names of two columns that are usually compared."""


class PairGuess(NamedTuple):
    """Two text columns and why they are a pair."""

    columns: list[str]
    reason: str
    excess: float


def with_compared_texts(tables: DetectedTables) -> DetectedTables:
    """Return the tables with phrases that repeat, such as queries, as texts instead of categories, if they are
    compared with a text, and words if they are in most texts of their rows.
    """
    texts = tables.with_roles("text")
    for column in tables.columns:
        if column.role != "categorical" or column.is_given:
            continue
        phrases = tables.train[column.name]
        some = phrases.iloc[:: max(1, len(phrases) // N_ROWS)]
        n_words = np.mean([len(WORD.findall(text)) for text in some])
        if not are_words([*some.unique()]):
            continue
        for name in texts:
            in_common, _ = _in_common(some, tables.train[name][some.index])
            is_compared = bool(in_common) or are_named_as_pair(column.name, name)
            if in_common == PART or (is_compared and n_words >= MIN_PHRASE):
                reason = f"{column.reason}, compared with {name}"
                tables = tables.with_column(replace(column, role="text", reason=reason))
                break
    return tables


def find_pairs(tables: DetectedTables, candidates: Sequence[list[str]] = ()) -> list[PairGuess]:
    """Return pairs of text columns by their names, or by the words that they have in common.

    There are at most `MAX_PAIRS`, or `MAX_OPTIONS` with one column in common. Reactions are no texts.

    Args:
        candidates: lists of columns of which one wins.
    """
    reactions = [column.name for column in tables.columns if column.reaction]
    texts = [name for name in tables.with_roles("text") if name not in reactions]
    if len(texts) > MAX_COLUMNS:
        return []
    some = tables.train[texts].iloc[:: max(1, len(tables.train) // N_ROWS)]
    lists = [*candidates, *numbered_series(texts)]
    options = [name for names in lists if len(names) > 2 for name in names]
    questions = [name for name in texts if name not in options]
    guesses = []
    for first, second in combinations(texts, 2):
        n_options = len({first, second} & {*options})
        if n_options == 2 and questions:
            continue
        reason, excess = _in_common(some[first], some[second])
        if not reason and n_options == 1 and len(questions) == 1:
            reason = "one text and each of its options"
        elif not reason and n_options == 0 and are_named_as_pair(first, second):
            reason = "named like texts that are compared"
        if reason:
            guesses.append(PairGuess([first, second], f"GUESS: {reason}", excess))
    guesses.sort(key=lambda guess: -guess.excess)
    # What two candidates have in common does not tell which one wins.
    guesses = [guess for guess in guesses if not any({*guess.columns} <= {*names} for names in candidates)]
    is_hub = bool(guesses) and bool(set.intersection(*({*guess.columns} for guess in guesses)))
    return guesses[: MAX_OPTIONS if is_hub else MAX_PAIRS]


def are_named_as_pair(first: str, second: str) -> bool:
    """Return whether two names differ in 1 and 2, or a and b, at their end, or are like a pair of `NAMES`."""
    if numbered_series([first, second]):
        return True
    orders = (first, second), (second, first)
    return any(
        re.search(pattern, name, re.IGNORECASE) and re.search(other_pattern, other, re.IGNORECASE)
        for pattern, other_pattern in NAMES
        for name, other in orders
    )


def _in_common(first: pd.Series, second: pd.Series) -> tuple[str, float]:
    """Return why two columns of texts are a pair, "" if they are none, and their excess of common words.

    The excess is the mean share of common words of the shorter text, less that with the text of another row.
    """
    words = [[{*WORD.findall(text.lower())} for text in texts] for texts in (first, second)]
    filled = [row for row in zip(*words, strict=True) if all(row)]
    if len(filled) < 2:
        return "", 0.0
    half = len(filled) // 2  # neighbours may have the same question
    others = [filled[row - half][1] for row in range(len(filled))]
    shares = np.array([common_shares(u, v)[1] for u, v in filled])
    shares_of_others = [common_shares(u, v)[1] for (u, _), v in zip(filled, others, strict=True)]
    differences = shares - shares_of_others
    excess = float(differences.mean())
    standard_error = differences.std() / np.sqrt(len(filled))
    if excess < max(MIN_EXCESS, MIN_ERRORS * standard_error):
        return "", excess
    n_words = [np.mean([len(row[column]) for row in filled]) for column in (0, 1)]
    if max(n_words) <= MAX_RATIO * min(n_words):
        return f"{shares.mean():.0%} of the words of the shorter text are in the other one", excess
    is_within = np.mean(shares == 1) >= MIN_WITHIN
    return (PART if is_within else ""), excess
