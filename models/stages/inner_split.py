"""The split inside the training rows of a job, on which boosted trees stop early.

It divides rows as the folds do. Rows of a group stay together, since a group on both sides makes its noise
look like a rule. With folds that are blocks in time, the latest rows are held out. If every row is a group by
itself, the split is a random split of scikit-learn.
"""

from typing import Any

import numpy as np
import pandas as pd

from core.types import Integers
from folds.splitters import balanced_group_folds, blocks_in_time
from models.stages.tabular import TargetData

INNER_SHARE = 0.2
"""Share of the training rows that is held out for the number of trees."""

Split = tuple[Integers, Integers]
"""Positions of the rows to fit on and of the rows that are held out."""


def inner_split(data: TargetData, seed: int) -> Split:
    """Return one split, which holds out about `INNER_SHARE` of the rows."""
    from sklearn.model_selection import train_test_split

    n_parts = round(1 / INNER_SHARE)
    block = _blocks(data, n_parts)
    if block is not None:
        return _split_at(block == block.max())
    part = _parts(data, n_parts, seed)
    if part is not None:
        sizes = np.bincount(part)
        nearest = np.abs(sizes - INNER_SHARE * len(part)).argmin()  # not the part that has a very large group
        return _split_at(part == nearest)
    rows = np.arange(len(data.y))
    classes = data.y if _can_be_stratified(data) else None
    train, held_out = train_test_split(rows, test_size=INNER_SHARE, random_state=seed, stratify=classes)
    return train, held_out


def _blocks(data: TargetData, n_blocks: int) -> Integers | None:
    """Return the block in time of each row, or None if all times are in one block.

    It is -1 for rows of a group without a time.
    """
    if data.times is None:
        return None
    dated = np.flatnonzero(~np.isnan(data.times))
    if not len(dated):
        return None
    groups = np.arange(len(data.y)) if data.groups is None else data.groups
    block = np.full(len(data.y), -1)
    block[dated] = blocks_in_time(data.times[dated], groups[dated], n_blocks)
    block = pd.Series(block).groupby(groups).transform("max").to_numpy()  # rows without a time, too
    return block if np.ptp(block[dated]) else None


def _parts(data: TargetData, n_parts: int, seed: int) -> Integers | None:
    """Return the part of each row, equal within a group; None if every row is a group by itself, or all are
    one.
    """
    if data.groups is None:
        return None
    groups, distinct = pd.factorize(data.groups)
    if len(distinct) in (1, len(groups)):
        return None
    classes = pd.DataFrame({"y": data.y} if data.n_classes else {}, index=range(len(groups)))
    return balanced_group_folds(groups, classes, min(n_parts, len(distinct)), seed)


def _split_at(held_out: Any) -> Split:
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _can_be_stratified(data: TargetData) -> bool:
    """Return whether each class has enough rows for both sides of every split."""
    return data.n_classes > 0 and bool(np.bincount(data.y.astype(int)).min() * INNER_SHARE >= 1)
