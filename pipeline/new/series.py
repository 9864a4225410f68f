"""Names of columns and of classes that are numbered, such as those of the options of a question."""

import re
from collections.abc import Sequence

from pipeline.new.detect import DetectedTables

MARK = re.compile(r"[0-9a-h](?![^\W_])", re.IGNORECASE)
"""Digit or letter at the end of a word, in which the names of columns or labels differ."""
SEQUENCES = {all_marks[:n] for all_marks in ("0123456789", "123456789", "abcdefgh") for n in range(2, 11)}
"""What several names differ in."""
OPTION = re.compile(r"option|choice|ending|answer|candidate|alternative|solution|response", re.IGNORECASE)
"""Word in the names of options."""


def numbered_series(names: Sequence[str]) -> list[list[str]]:
    """Return lists of names that differ in 0 or 1, 2, ..., or a, b, ..., at the end of a word."""
    by_rest: dict[tuple[str, str, bool], dict[str, str]] = {}
    for name in sorted(names):
        for mark in MARK.finditer(name):
            rest = name[: mark.start()].lower(), name[mark.end() :].lower(), mark[0].isdigit()
            by_rest.setdefault(rest, {})[mark[0].lower()] = name
    return [[*by_mark.values()] for by_mark in by_rest.values() if "".join(by_mark) in SEQUENCES]


def options_of(classes: Sequence[str], tables: DetectedTables) -> list[str]:
    """Return three or more columns of texts or molecules, one for each class; an empty list without them.

    Their names end like the classes, or are those of options.
    """
    if [*classes] not in numbered_series(classes):
        return []
    for columns in numbered_series(tables.with_roles("smiles", "text")):
        are_named = all(map(OPTION.search, columns)) or _ends(columns) == _ends(classes)
        if len(columns) == len(classes) > 2 and are_named:
            return columns
    return []


def _ends(names: Sequence[str]) -> list[str]:
    """Return the last characters of names."""
    return [name[-1].lower() for name in names]
