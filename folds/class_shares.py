"""What classes each fold has, and which of them a fold or its training rows lack."""

import numpy as np
import pandas as pd

from competition.clean import join_first
from competition.types import Integers

MOST_SHOWN = 12
"""Classes whose shares are shown; of more the rarest."""


def class_shares(y: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """What is shown of labels (n_rows, n_targets): numbers as they are; of classes, a column `target=class`
    for each, or of two for the second alone, with 1 for rows of that class, so that its mean is the share.
    """
    if not classes:
        return y
    shown = range(len(classes) == 2, len(classes))
    columns = {
        f"{name}={classes[k]}": (y[name] == k).where(y[name].notna()).astype(float)
        for name in y
        for k in shown
    }
    found = pd.DataFrame(columns)
    return found.loc[:, found.mean().rank(method="first") <= MOST_SHOWN]


def missing_class_warnings(
    y: pd.DataFrame, classes: list[str], folds: Integers, time_ordered: bool = False
) -> list[str]:
    """In words, which classes some fold has no row of, or no row to train on; none of a regression.

    Args:
        y: (n_rows, n_targets), of all training rows.
        folds: of the first rows, -1 where one trains in every fold, as those of extra_train do, which stand
        last.
    """
    said, folds = [], np.append(folds, np.full(len(y) - len(folds), -1))
    for name in y if classes else []:
        counts = pd.crosstab(folds, y[name]).reindex(range(-1, folds.max() + 1), fill_value=0)
        counts = counts.reindex(columns=range(len(classes)), fill_value=0).set_axis(classes, axis=1)
        trains = counts.cumsum().shift() if time_ordered else counts.sum() - counts
        if len(rare := counts.columns[(counts.loc[0:] == 0).any()]):
            rows = join_first([f"{each!r} ({counts[each].sum()} rows)" for each in rare], str)
            said.append(f"{name}: not every fold has a row of {rows}; its own scores know nothing of them")
        for fold, there in trains.loc[0:].iterrows():
            if len(unseen := there.index[there == 0]):
                said.append(f"{name}: no row of {join_first(unseen)} trains the models of fold {fold}")
    return said
