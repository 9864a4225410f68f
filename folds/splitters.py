"""Functions that assign rows to folds and keep groups together, by splitters of scikit-learn if they fit."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from core.errors import DataError
from core.types import Array, Integers

MAX_BINS = 10
"""Maximum number of bins of regression targets."""


@dataclass(frozen=True)
class SplitData:
    """Input of a fold function.

    Attributes:
        y: labels (n_rows, n_targets), NaN if missing; class indices for classification.
        groups: (n_rows,) rows of one group share a fold; numbered from 0.
        times: (n_rows,) or None without competition.time.
        seed: seed of the random numbers.
        rows: prepared training rows, (n_rows,), with the columns of the inputs.
        smiles: columns of `rows` with molecules, as canonical SMILES.
    """

    y: pd.DataFrame
    is_classification: bool
    groups: Integers
    times: Array | None
    n_folds: int
    seed: int
    rows: pd.DataFrame
    smiles: list[str]


FoldFunction = Callable[[SplitData], Integers]
"""Returns the fold of each row, (n_rows,): 0 to n_folds - 1, or -1 for a row that trains in every fold."""


def kfold(data: SplitData) -> Integers:
    """Assign groups to folds at random.

    The folds equal those by KFold of scikit-learn. Its import would take longer than the rest of
    `./run.sh check`.
    """
    shuffled = np.random.RandomState(data.seed).permutation(data.groups.max() + 1)
    parts = np.array_split(shuffled, data.n_folds)
    fold_of_shuffled = np.repeat(range(data.n_folds), list(map(len, parts)))
    return fold_of_shuffled[np.argsort(shuffled)][data.groups]


def balanced_groups(data: SplitData) -> Integers:
    """Assign groups to folds of equal size, with balanced classes for classification."""
    y = data.y if data.is_classification else data.y[[]]
    return balanced_group_folds(data.groups, y, data.n_folds, data.seed)


def stratified(data: SplitData) -> Integers:
    """Assign groups to folds with similar targets: balanced classes, or bins of the groups' mean labels."""
    if data.is_classification:
        return balanced_groups(data)
    from sklearn.model_selection import StratifiedKFold

    means = data.y.groupby(data.groups).mean().to_numpy()
    return _split_bins(StratifiedKFold, means, data)[data.groups]


def stratified_group(data: SplitData) -> Integers:
    """Assign groups to folds with similar targets: balanced classes, or bins of the rows' labels."""
    if data.is_classification:
        return balanced_groups(data)
    from sklearn.model_selection import StratifiedGroupKFold

    folds = _split_bins(StratifiedGroupKFold, data.y.to_numpy(), data, data.groups)
    is_complete = len(np.unique(folds)) == data.n_folds  # with few groups some folds may be empty
    return folds if is_complete else balanced_groups(data)


def _split_bins(
    splitter_class: Any, labels: Array, data: SplitData, groups: Integers | None = None
) -> Integers:
    """Return the fold of each row of `labels`, (n_rows,), by a splitter of scikit-learn on their bins."""
    splitter = splitter_class(data.n_folds, shuffle=True, random_state=data.seed)
    bins = target_bins(labels, data.n_folds, data.seed)
    folds = np.empty(len(bins), dtype=np.int64)
    with warnings.catch_warnings():
        # A bin with fewer rows than folds, such as one of equal labels, cannot be in every fold.
        warnings.filterwarnings("ignore", message="The least populated class")
        for fold, (_, held_out) in enumerate(splitter.split(bins, bins, groups)):
            folds[held_out] = fold
    return folds


def time_blocks(data: SplitData) -> Integers:
    """Assign rows to blocks of similar size in the order of time.

    The first block has fold -1, the others 0 to n_folds - 1. Equal times share a block; scikit-learn's
    TimeSeriesSplit, which counts rows, would split them. A group has the time of its latest row, so that no
    training row is from after the start of the validation block.
    """
    assert data.times is not None
    block = blocks_in_time(data.times, data.groups, data.n_folds + 1)
    if len(np.unique(block)) <= data.n_folds:
        n_rows_at = pd.Series(data.times).groupby(data.groups).transform("max").value_counts()
        can_be_fewer = data.n_folds > 2 and len(n_rows_at) > 2
        raise DataError(
            f"competition.time must divide into {data.n_folds + 1} blocks of similar size, but its "
            f"{len(n_rows_at)} distinct times (of rows with equal inputs the latest), the most frequent with "
            f"{n_rows_at.max()} of {len(data.times)} rows, leave some empty. "
            f"{'Lower folds.n_folds, or choose' if can_be_fewer else 'Choose'} another folds.kind."
        )
    return block - 1


def blocks_in_time(times: Array, groups: Integers, n_blocks: int) -> Integers:
    """Return the block of each row, (n_rows,), 0 for the earliest; some of the `n_blocks` may be empty."""
    latest = pd.Series(times).groupby(groups).transform("max")
    time_index = np.unique(latest, return_inverse=True)[1]
    n_rows_at = np.bincount(time_index)
    middle = np.cumsum(n_rows_at) - n_rows_at / 2  # position of the middle row of each time
    return np.floor(middle / len(times) * n_blocks).astype(np.int64)[time_index]


def balanced_group_folds(groups: Integers, y: pd.DataFrame, n_folds: int, seed: int) -> Integers:
    """Return folds, (n_rows,), with similar numbers of rows in total and of each class of each target.

    Each class of each target is a category, and so are its missing labels. One greedy pass over the groups:
    the group with the largest share of any category comes first, so that rare classes and large groups are
    assigned early. It goes into the fold where it increases the sum of the squared shares of its categories
    least. The seed decides between equal groups.

    Sources: Sechidis et al., On the stratification of multi-label data, 2011, for the order; scikit-learn's
    StratifiedGroupKFold for groups and the variance of shares. GroupKFold(shuffle=True) balances numbers of
    groups, not of rows, so that a large scaffold makes one fold several times as large as another.

    Args:
        groups: (n_rows,), from 0 up.
        y: class indices (n_rows, n_targets), NaN if missing; without columns, only numbers of rows are
            balanced.
        seed: seed of the order of equal groups.
    """
    from scipy.sparse import coo_array

    # The last column is constant, so that all rows are one more category.
    cells = pd.DataFrame(np.column_stack([y, np.zeros(len(y))])).melt()
    categories = cells.groupby(["variable", "value"], dropna=False).ngroup()
    ones = np.ones(len(cells), dtype=np.int64)
    positions = (np.tile(groups, y.shape[1] + 1), categories)
    counts = coo_array((ones, positions)).tocsr()  # (n_groups, n_categories)
    totals = counts.sum(axis=0)
    starts = counts.indptr.tolist()
    largest_share = (counts / totals).max(axis=1).toarray().ravel()
    # Adding c rows to n turns n^2 into n^2 + 2nc + c^2, so folds differ only in nc, here in units of total^2.
    cost_per_row = counts.data / totals[counts.indices] ** 2
    in_fold = np.zeros((n_folds, len(totals)))  # rows of each category
    folds = np.empty(len(largest_share), dtype=np.int64)
    shuffled = np.random.default_rng(seed).permutation(len(largest_share))
    for group in shuffled[np.argsort(-largest_share[shuffled], kind="stable")].tolist():
        in_group = slice(starts[group], starts[group + 1])
        categories_in_group = counts.indices[in_group]
        fold = (in_fold[:, categories_in_group] @ cost_per_row[in_group]).argmin()
        folds[group] = fold
        in_fold[fold, categories_in_group] += counts.data[in_group]
    return folds[groups]


def target_bins(y: Array, n_folds: int, seed: int) -> Integers:
    """Return a bin per row of labels (n_rows, n_targets).

    There are at most MAX_BINS bins, of n_folds rows or more on average: quantiles of a single target without
    missing labels, otherwise clusters by k-means of the ranks and of the indicators of missing labels.
    """
    n_bins = max(1, min(MAX_BINS, len(y) // n_folds))
    ranks = pd.DataFrame(y).rank(pct=True)
    if y.shape[1] == 1 and not ranks[0].isna().any():
        return np.minimum((ranks[0].to_numpy() * n_bins).astype(np.int64), n_bins - 1)
    from sklearn.cluster import KMeans

    features = np.hstack([ranks.fillna(0.5), ranks.isna()])
    n_bins = min(n_bins, len(np.unique(features, axis=0)))
    return KMeans(n_bins, n_init=3, random_state=seed).fit_predict(features).astype(np.int64)
