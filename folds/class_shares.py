"""Shares of the classes in each fold, and warnings about missing classes."""

import numpy as np
import pandas as pd

from core.errors import join_first
from core.types import Integers

MAX_LISTED = 12
"""Number of classes with a listed share; if there are more, the rarest are listed."""


def labels_or_indicators(y: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Return the labels for regression, else an indicator column `target=class` per class.

    The mean of an indicator is the share of its class. Of two classes only the second one has a column.

    Args:
        y: labels (n_rows, n_targets).
    """
    if not classes:
        return y
    first = 1 if len(classes) == 2 else 0
    shares = pd.DataFrame(index=y.index)
    for name in y:
        for k in range(first, len(classes)):
            shares[f"{name}={classes[k]}"] = (y[name] == k).where(y[name].notna()).astype(float)
    return shares.loc[:, shares.mean().rank(method="first") <= MAX_LISTED]


def missing_class_warnings(
    y: pd.DataFrame, classes: list[str], folds: Integers, time_ordered: bool = False
) -> list[str]:
    """Return warnings about classes without a row in a fold, or without a row to train on.

    Args:
        y: labels of all training rows (n_rows, n_targets).
        folds: folds of the first rows, -1 for rows that train in every fold; the other rows do, too.
    """
    if not classes:
        return []
    warnings = []
    folds = np.append(folds, np.full(len(y) - len(folds), -1))
    for name in y:
        counts = pd.crosstab(folds, y[name]).reindex(range(-1, folds.max() + 1), fill_value=0)
        counts = counts.reindex(columns=range(len(classes)), fill_value=0).set_axis(classes, axis=1)
        n_train = counts.cumsum().shift() if time_ordered else counts.sum() - counts
        rare = counts.columns[(counts.loc[0:] == 0).any()]
        if len(rare):
            rows = join_first([f"{label!r} ({counts[label].sum()} rows)" for label in rare], str)
            warnings.append(f"{name}: some folds have no row of {rows}; their scores ignore these classes")
        for fold, n_of_class in n_train.loc[0:].iterrows():
            absent = n_of_class.index[n_of_class == 0]
            if len(absent):
                warnings.append(f"{name}: no row of {join_first(absent)} trains the models of fold {fold}")
    return warnings
