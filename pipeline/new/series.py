"""Names of columns and of classes that are numbered, such as those of the options of a question."""

import re
from collections.abc import Sequence

import numpy as np

from competition.task import class_name
from pipeline.new.detect import DetectedTables

MARK = re.compile(r"[0-9a-h](?![^\W_])", re.IGNORECASE)
"""Digit or letter at the end of a word, in which the names of columns or labels differ."""
SEQUENCES = {all_marks[:n] for all_marks in ("123456789", "abcdefgh") for n in range(2, 10)}
SEQUENCES |= {"0123456789"[:n] for n in range(3, 11)}  # 0 and 1 alone say no and yes
"""What several names differ in."""
OPTION = re.compile(r"option|choice|ending|candidate|alternative|^op(?=[1-9a-h]$)", re.IGNORECASE)
"""Word in the names of options."""
GRADE = re.compile(r"rat(e|ing)|grade|score|level|star|quality|severity|points", re.IGNORECASE)
"""Word in the name of a target that is no choice among options."""
MAX_IMBALANCE, N_ERRORS = 2, 2
"""Rows with the most frequent right option over rows with the rarest one, which may be more by these standard errors.
"""


def numbered_series(names: Sequence[str]) -> list[list[str]]:
    """Return lists of names that differ in 0 or 1, 2, ..., or a, b, ..., at the end of a word."""
    by_rest: dict[tuple[str, str, bool], dict[str, str]] = {}
    for name in sorted(names):
        for mark in MARK.finditer(name):
            rest = name[: mark.start()].lower(), name[mark.end() :].lower(), mark[0].isdigit()
            by_rest.setdefault(rest, {})[mark[0].lower()] = name
    return [[*by_mark.values()] for by_mark in by_rest.values() if "".join(by_mark) in SEQUENCES]


def options_of(classes: Sequence[str], tables: DetectedTables) -> list[str]:
    """Return the columns of texts or molecules of which each row names one as its class; an empty list without them.

    Classes are the names of columns. Or there are three or more, which end like the columns, or are numbered, and the
    columns are named as options; about as many rows have each, and the name of the target is not that of a grade.
    """
    columns = tables.with_roles("smiles", "text")
    if len(classes) > 1 and {*classes} <= {*columns}:
        return [*classes]
    if [*classes] not in numbered_series(classes) or GRADE.search(" ".join(tables.targets)):
        return []
    counts = tables.train[tables.targets].stack().map(class_name).value_counts().reindex([*classes])
    if counts.max() > MAX_IMBALANCE * counts.min() + N_ERRORS * np.sqrt(counts.max()):
        return []
    for series in numbered_series(columns):
        are_named = all(map(OPTION.search, series)) or _ends(series) == _ends(classes)
        if len(series) == len(classes) > 2 and are_named:
            return series
    return []


def _ends(names: Sequence[str]) -> list[str]:
    """Return the last characters of names."""
    return [name[-1].lower() for name in names]
