"""Labels of classes as they stand in tables: 0 and 1, booleans, names, grades."""

import re

import numpy as np
import pandas as pd

MISSING = {"", "na", "n/a", "nan", "null", "none"}
"""Cells without a number or label, in small letters; beside names, None and NA may be names of classes, too.
"""


BOOLEANS = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}


def class_name(cell: str) -> str:
    """A label as it is told from others: without blanks around it, a whole number without decimals."""
    return re.sub(r"^([+-]?\d+)\.0*$", r"\1", cell.strip())


def class_names(labels: pd.DataFrame) -> list[str]:
    """The different labels of some columns of text, sorted: as numbers where all are, else as text."""
    names = sorted(
        {class_name(cell) for name in labels for cell in labels[name].unique()} - {"", "nan", "NaN"}
    )
    known = [name for name in names if name.lower() not in MISSING]
    numbers = pd.to_numeric(pd.Series(known, dtype=str), errors="coerce")
    return names if numbers.isna().any() else [known[i] for i in np.argsort(numbers, kind="stable")]


def class_numbers(cells: pd.Series, classes: list[str]) -> tuple[pd.Series, pd.Series]:
    """The number of each cell's label in `classes`, NaN where there is none; and which cells hold another
    label.

    Booleans are read in capitals and small letters, as languages write them.
    """
    names = cells.map({cell: class_name(cell) for cell in cells.unique()}).replace(BOOLEANS)
    numbers = names.map({BOOLEANS.get(name, name): float(i) for i, name in enumerate(classes)})
    return numbers.astype(float), numbers.isna() & ~names.str.lower().isin(MISSING)
