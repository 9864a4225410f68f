"""Functions that split rows into folds over groups that must stay together, by scikit-learn where it has one."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from competition.errors import DataError
from competition.types import Array, Integers

MAX_BINS = 10
"""Number of bins of regression targets."""


@dataclass(frozen=True)
class SplitData:
    """What a kind of folds is made from.

    Attributes:
        y: labels (n_rows, n_targets), NaN if missing; class indices for classification.
        groups: (n_rows,) rows of one group share a fold; numbered from 0.
        times: (n_rows,) or None without competition.time.
        seed: seed of the random numbers.
    """

    y: pd.DataFrame
    is_classification: bool
    groups: Integers
    times: Array | None
    n_folds: int
    seed: int


FoldFunction = Callable[[SplitData], Integers]
"""Returns the fold of each row, (n_rows,): 0 to n_folds - 1, or -1 for a row that trains in every fold."""


def kfold(data: SplitData) -> Integers:
    """Assign groups to folds at random.

    The result is that of scikit-learn's KFold, whose import takes longer than the rest of a check.
    """
    shuffled = np.random.RandomState(data.seed).permutation(data.groups.max() + 1)
    parts = np.array_split(shuffled, data.n_folds)
    folds = np.repeat(range(data.n_folds), list(map(len, parts)))
    return folds[np.argsort(shuffled)][data.groups]


def balanced_groups(data: SplitData) -> Integers:
    """Assign groups to folds of equal size, with balanced classes for classification."""
    y = data.y if data.is_classification else data.y[[]]
    return balanced_group_folds(data.groups, y, data.n_folds, data.seed)


def stratified(data: SplitData) -> Integers:
    """Assign groups to folds with similar targets: balanced classes, or bins of the groups' mean labels."""
    if data.is_classification:
        return balanced_groups(data)
    from sklearn.model_selection import StratifiedKFold

    splitter = StratifiedKFold(data.n_folds, shuffle=True, random_state=data.seed)
    means = data.y.groupby(data.groups).mean().to_numpy()
    return _split_bins(splitter, means, data, None)[data.groups]


def stratified_group(data: SplitData) -> Integers:
    """Assign groups to folds with similar targets: balanced classes, or bins of the rows' labels."""
    if data.is_classification:
        return balanced_groups(data)
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(data.n_folds, shuffle=True, random_state=data.seed)
    return _split_bins(splitter, data.y.to_numpy(), data, data.groups)


def _split_bins(splitter: "object", labels: Array, data: SplitData, groups: Integers | None) -> Integers:
    """Return the fold of each row of labels, (n_labels,), by a splitter of scikit-learn on their bins."""
    bins = target_bins(labels, data.n_folds, data.seed)
    folds = np.empty(len(bins), dtype=np.int64)
    with warnings.catch_warnings():
        # A bin with fewer rows than folds, such as one of equal labels, cannot be in every fold.
        warnings.filterwarnings("ignore", message="The least populated class")
        for fold, (_, held_out) in enumerate(splitter.split(bins, bins, groups)):  # type: ignore[attr-defined]
            folds[held_out] = fold
    return folds


def time_blocks(data: SplitData) -> Integers:
    """Assign rows to blocks of similar size in the order of time: -1 for the first block, then 0 to n_folds - 1.

    Equal times share a block; scikit-learn's TimeSeriesSplit, which counts rows, would split them. A group has
    the time of its latest row, so that no fold trains on a label that is later than its own rows.
    """
    assert data.times is not None
    block = blocks_in_time(data.times, data.groups, data.n_folds + 1)
    if len(np.unique(block)) <= data.n_folds:
        rows_at = pd.Series(data.times).groupby(data.groups).transform("max").value_counts()
        raise DataError(
            f"competition.time must divide into {data.n_folds + 1} blocks of similar size, but its "
            f"{len(rows_at)} distinct times, the most frequent with {rows_at.max()} of {len(data.times)} rows, "
            "leave some empty. Lower folds.n_folds."
        )
    return block - 1


def blocks_in_time(times: Array, groups: Integers, n_blocks: int) -> Integers:
    """Return the block of each row, (n_rows,), 0 for the earliest; some of the `n_blocks` may be empty."""
    latest = pd.Series(times).groupby(groups).transform("max")
    moment = np.unique(latest, return_inverse=True)[1]
    rows_at = np.bincount(moment)
    middle = np.cumsum(rows_at) - rows_at / 2
    return np.floor(middle / len(times) * n_blocks).astype(np.int64)[moment]


def balanced_group_folds(groups: Integers, y: pd.DataFrame, n_folds: int, state: int) -> Integers:
    """Return folds, (n_rows,), with similar numbers of rows, and of rows of each label.

    One greedy pass over the groups. The group with the largest share of any label comes first, so that rare
    labels and large groups are assigned early. It goes into the fold that has the fewest rows with its labels:
    the fold with the smallest sum of squared shares afterwards. The seed decides between equal groups.

    Sources: Sechidis et al., On the stratification of multi-label data, 2011, for the order; scikit-learn's
    StratifiedGroupKFold for groups and the variance of shares. GroupKFold with a seed gives every fold the
    same number of groups, so that a large scaffold makes one fold several times as large as another.

    Args:
        groups: (n_rows,), from 0 up.
        y: class indices (n_rows, n_labels), whose classes and missing labels are balanced; or no column.
        state: seed.
    """
    from scipy.sparse import coo_array

    cells = pd.DataFrame(np.column_stack([y, np.zeros(len(y))])).melt()  # the last label is that of all rows
    labels = cells.groupby(["variable", "value"], dropna=False).ngroup()
    ones = np.ones(len(cells), dtype=np.int64)
    positions = (np.tile(groups, y.shape[1] + 1), labels)
    counts = coo_array((ones, positions)).tocsr()  # (n_groups, n_labels)
    totals = counts.sum(axis=0)
    starts = counts.indptr.tolist()
    largest_share = (counts / totals).max(axis=1).toarray().ravel()
    gain = counts.data / totals[counts.indices] ** 2
    in_fold = np.zeros((n_folds, len(totals)))
    folds = np.empty(len(largest_share), dtype=np.int64)
    shuffled = np.random.default_rng(state).permutation(len(largest_share))
    for group in shuffled[np.argsort(-largest_share[shuffled], kind="stable")].tolist():
        in_group = slice(starts[group], starts[group + 1])
        label = counts.indices[in_group]
        fold = (in_fold[:, label] @ gain[in_group]).argmin()
        folds[group] = fold
        in_fold[fold, label] += counts.data[in_group]
    return folds[groups]


def target_bins(y: Array, n_folds: int, state: int) -> Integers:
    """Return a bin per row of labels (n_rows, n_targets), at most MAX_BINS, so that every fold gets a row of each.

    The bins are quantiles of a single target. For several targets they are clusters by k-means of the ranks
    and of which labels are missing.
    """
    n_bins = max(1, min(MAX_BINS, len(y) // n_folds))
    ranks = pd.DataFrame(y).rank(pct=True)
    if y.shape[1] == 1 and not ranks[0].isna().any():
        return np.minimum((ranks[0].to_numpy() * n_bins).astype(np.int64), n_bins - 1)
    from sklearn.cluster import KMeans

    features = np.hstack([ranks.fillna(0.5), ranks.isna()])
    n_bins = min(n_bins, len(np.unique(features, axis=0)))
    return KMeans(n_bins, n_init=3, random_state=state).fit_predict(features).astype(np.int64)
