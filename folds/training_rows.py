"""Which rows train the models of a fold."""

import numpy as np
from numpy.typing import NDArray

from competition.dataset import INPUT_KEY, REFIT_FOLD, Dataset
from core.types import Integers


def trains_fold(folds: Integers, fold: int, in_time_order: bool) -> NDArray[np.bool_]:
    """Return the mask (n_rows,) of the rows that train the models of a fold, by the fold of each row.

    These are the rows of all other folds, including fold -1. If folds are blocks in time, rows of later folds
    are excluded. A refit trains on all rows.

    Args:
        folds: (n_rows,), -1 for rows that train in every fold.
        fold: the held-out fold, or REFIT_FOLD.
        in_time_order: whether folds are blocks in time.
    """
    return folds < fold if in_time_order and fold != REFIT_FOLD else folds != fold


def training_rows(rows: Dataset, fold: int, in_time_order: bool) -> NDArray[np.bool_]:
    """Return the mask (n_rows,) of the rows of a table, extra rows included, that train the models of a fold.

    Of the rows that `trains_fold` accepts, these are all rows of the competition, and the extra rows that
    share neither inputs nor a group (scaffold, cluster) with the held-out fold and are not later than the
    training rows of a fold that is a block in time.
    """
    folds = rows.folds
    assert folds is not None
    trains = trains_fold(folds, fold, in_time_order)
    if rows.extra is None:
        return trains
    held_out = folds == fold
    tied: NDArray[np.bool_] = rows.inputs[INPUT_KEY].isin(rows.inputs[INPUT_KEY][held_out]).to_numpy()
    if rows.groups is not None:
        tied = tied | np.isin(rows.groups, rows.groups[held_out])
        tied = tied | (rows.groups < 0)
    if in_time_order and fold != REFIT_FOLD and rows.times is not None:
        tied = tied | (rows.times > rows.times[trains & ~rows.extra].max())
    return trains & ~(rows.extra & tied)
