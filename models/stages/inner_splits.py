"""Splits of the training rows of a job, for the number of trees and the search for settings.

They split rows as the folds do. Rows of a group stay together, since a group on both sides makes its noise look
like a rule. With folds that are blocks in time, the latest rows are held out. If every row is a group by itself,
the splits are random splits of scikit-learn.
"""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

from core.types import Integers
from folds.splitters import balanced_group_folds, blocks_in_time
from models.stages.per_target import TargetData

INNER_SHARE = 0.2
"""Share of the training rows that is held out for the number of trees."""
INNER_FOLDS = 3
"""Folds of the search: settings would be tuned to a single split."""

Split = tuple[Integers, Integers]
"""Positions of the rows to fit on and of the rows that are held out."""


def inner_split(sample: TargetData, seed: int) -> Split:
    """Return one split, which holds out about `INNER_SHARE` of the rows."""
    n_parts = round(1 / INNER_SHARE)
    block = _blocks(sample, n_parts)
    if block is not None:
        return _split_at(block == block.max())
    part = _parts(sample, n_parts, seed)
    if part is not None:
        sizes = np.bincount(part)
        nearest = np.abs(sizes - INNER_SHARE * len(part)).argmin()  # not the part that has a very large group
        return _split_at(part == nearest)
    rows = np.arange(len(sample.y))
    classes = sample.y if _can_be_stratified(sample) else None
    train, held_out = train_test_split(rows, test_size=INNER_SHARE, random_state=seed, stratify=classes)
    return train, held_out


def inner_folds(sample: TargetData, seed: int) -> list[Split]:
    """Return the splits of a cross-validation; with blocks in time each block is held out of the earlier
    ones.
    """
    block = _blocks(sample, INNER_FOLDS + 1)
    if block is not None:
        later = np.unique(block[block >= 0])[1:]
        return [(np.flatnonzero(block < b), np.flatnonzero(block == b)) for b in later]
    part = _parts(sample, INNER_FOLDS, seed)
    if part is not None:
        return [_split_at(part == k) for k in range(part.max() + 1)]
    splitter = StratifiedKFold if _can_be_stratified(sample) else KFold
    return list(splitter(INNER_FOLDS, shuffle=True, random_state=seed).split(sample.y, sample.y))


def _blocks(sample: TargetData, n_blocks: int) -> Integers | None:
    """Return the block in time of each row, -1 for a row without a time; None if all times are in one block."""
    if sample.times is None:
        return None
    dated = np.flatnonzero(~np.isnan(sample.times))
    if not len(dated):
        return None
    groups = np.arange(len(sample.y)) if sample.groups is None else sample.groups
    block = np.full(len(sample.y), -1)
    block[dated] = blocks_in_time(sample.times[dated], groups[dated], n_blocks)
    return block if np.ptp(block[dated]) else None


def _parts(sample: TargetData, n_parts: int, seed: int) -> Integers | None:
    """Return the part of each row, equal within a group; None if every row is a group by itself, or all are
    one.
    """
    if sample.groups is None:
        return None
    groups, distinct = pd.factorize(sample.groups)
    if len(distinct) in (1, len(groups)):
        return None
    classes = pd.DataFrame({"y": sample.y} if sample.n_classes else {}, index=range(len(groups)))
    return balanced_group_folds(groups, classes, min(n_parts, len(distinct)), seed)


def _split_at(held_out: Any) -> Split:
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _can_be_stratified(sample: TargetData) -> bool:
    """Return whether each class has enough rows for both sides of every split."""
    return sample.n_classes > 0 and bool(np.bincount(sample.y.astype(int)).min() * INNER_SHARE >= 1)
