"""Folds of the training rows, by scikit-learn's splitters where they exist, over groups that must stay
together.
"""

import warnings

import numpy as np
import pandas as pd

from competition.config import CompetitionConfig
from competition.dataset import FOLD, TIME
from competition.errors import DataError
from competition.files import derive_seed
from competition.types import Array, Integers
from folds.config import FoldsConfig
from folds.fold_files import check_fold_numbers, read_folds
from folds.groups import compute_groups

NEEDS = {
    "group": "group", "stratified_group": "group", "scaffold": "smiles", "cluster": "smiles", "time": "time",
    "column": "fold_column",
}  # fmt: skip
"""Kind of folds -> the setting of the competition that it needs."""
MOST_BINS = 10  # of the targets of a regression


def assign_folds(
    config: FoldsConfig, table: pd.DataFrame, competition: CompetitionConfig, seed: int
) -> tuple[Integers, Integers]:
    """Fold and group of each row of the prepared training table, whatever the order of rows; a fold may be
    -1.

    Rows of a group share a fold, unless in folds of the user's own `equal_inputs_may_cross`.
    """
    needed = NEEDS.get(config.kind)
    if needed and not getattr(competition, needed):
        raise DataError(
            f"folds.kind {config.kind} needs competition.{needed}. Set it, or choose another kind."
        )
    order = np.argsort(table[competition.id].to_numpy().astype(str), kind="stable")
    rows = table.iloc[order].reset_index(drop=True)
    ids, groups = rows[competition.id], compute_groups(config, rows, competition)
    if config.kind in ("column", "file"):
        folds = read_folds(config.file, list(ids)) if config.file else rows[FOLD].to_numpy(dtype=np.int64)
        where = config.file or "competition.fold_column"
        check_fold_numbers(folds, where)
        cross = np.flatnonzero(pd.Series(folds).groupby(groups).nunique() > 1)
        if len(cross) and not config.equal_inputs_may_cross:
            named = ", ".join(f"{ids[i]!r} in {folds[i]}" for i in np.flatnonzero(groups == cross[0])[:3])
            raise DataError(
                f"{where} must keep rows with the same whole input in one fold, also where only salts "
                f"differ; "
                f"{len(cross)} inputs stand in several (the first: {named}). Correct the folds, or set "
                "folds.equal_inputs_may_cross: true."
            )
    elif config.kind == "time":
        folds = time_blocks(rows[TIME].to_numpy(), groups, config.n_folds)
    else:
        _require_divisible(config, groups, ids)
        state, y = derive_seed(seed, "folds") % 2**31, rows[competition.targets]
        folds = _split(config, y, bool(competition.classes), groups, state)
    back = np.argsort(order)
    return folds[back], groups[back]


def _require_divisible(config: FoldsConfig, groups: Integers, ids: pd.Series) -> None:
    """Check that there are as many groups as folds, and that none is larger than all folds but one together."""
    sizes, n_folds = np.bincount(groups), config.n_folds
    if len(sizes) < n_folds or sizes.max() * n_folds > len(groups) * (n_folds - 1):
        raise DataError(
            f"{n_folds} folds of like size cannot be made of {len(sizes)} groups of rows (those with "
            f"equal inputs, or "
            f"of one group, scaffold or cluster, stay together), the largest of which, that of id "
            f"{ids[int(np.argmax(groups == sizes.argmax()))]!r}, has {sizes.max()} of {len(groups)} rows. "
            f"Lower "
            "folds.n_folds, divide that group, or choose another folds.kind."
        )


def time_blocks(times: Array, groups: Integers, n_folds: int) -> Integers:
    """Block of each row in the order of time, (n_rows,): -1 for the first, then 0 to n_folds - 1, of like
    size.

    Equal times share a block, which scikit-learn's TimeSeriesSplit, counting rows, would cut through. A group
    has
    the time of its latest row: no fold then trains on a label that is later than its own rows.
    """
    block = blocks_in_time(times, groups, n_folds + 1)
    if len(np.unique(block)) <= n_folds:
        rows_at = pd.Series(times).groupby(groups).transform("max").value_counts()
        raise DataError(
            f"competition.time must divide into {n_folds + 1} blocks of like size, and its {len(rows_at)} "
            f"distinct "
            f"times, the commonest with {rows_at.max()} of {len(times)} rows, leave some empty. Lower "
            f"folds.n_folds."
        )
    return block - 1


def blocks_in_time(times: Array, groups: Integers, n_blocks: int) -> Integers:
    """Return the block of each row, (n_rows,), 0 for the earliest; some of the `n_blocks` may be empty."""
    latest = pd.Series(times).groupby(groups).transform("max")
    moment = np.unique(latest, return_inverse=True)[1]
    rows_at = np.bincount(moment)
    middle = np.cumsum(rows_at) - rows_at / 2
    return np.floor(middle / len(times) * n_blocks).astype(np.int64)[moment]


def _split(config: FoldsConfig, y: pd.DataFrame, has_classes: bool, groups: Integers, state: int) -> Integers:
    if config.kind == "kfold":  # as scikit-learn's KFold, whose import takes longer than the rest of a check
        shuffled = np.random.RandomState(state).permutation(groups.max() + 1)
        parts = np.array_split(shuffled, config.n_folds)
        return np.repeat(range(config.n_folds), list(map(len, parts)))[np.argsort(shuffled)][groups]
    if has_classes or config.kind in ("group", "scaffold", "cluster"):
        return balanced_group_folds(groups, y if has_classes else y[[]], config.n_folds, state)
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    of_rows = config.kind == "stratified_group"  # else the groups are divided, by the means of their labels
    splitter = (StratifiedGroupKFold if of_rows else StratifiedKFold)(
        config.n_folds, shuffle=True, random_state=state
    )
    labels = (y if of_rows else y.groupby(groups).mean()).to_numpy()
    bins = target_bins(labels, config.n_folds, state)
    folds = np.empty(len(bins), dtype=np.int64)
    with warnings.catch_warnings():
        # A bin with fewer rows than folds, as of equal labels, cannot be in every fold; it is spread as far
        # as it goes.
        warnings.filterwarnings("ignore", message="The least populated class")
        for fold, (_, held_out) in enumerate(splitter.split(bins, bins, groups if of_rows else None)):
            folds[held_out] = fold
    return folds if of_rows else folds[groups]


def balanced_group_folds(groups: Integers, y: pd.DataFrame, n_folds: int, state: int) -> Integers:
    """Fold of each row, (n_rows,), so that all folds have like numbers of rows, and of rows of each label.

    One greedy pass: the group with the largest share of any label comes first, which puts rare labels and
    large groups
    first, and it goes into the fold that has least of what the group brings: that with the smallest sum of
    squared shares afterwards. The seed decides among groups that are alike.

    Sources: Sechidis et al., On the stratification of multi-label data, 2011, for the order; scikit-learn's
    StratifiedGroupKFold for groups and the variance of shares. That its GroupKFold, with a seed, gives every
    fold as many groups makes one fold several times as large as another where a scaffold is large.

    Args:
        groups: (n_rows,), from 0 up.
        y: numbers of classes (n_rows, n_labels), whose classes and missing labels are counted; or no column.
    """
    from scipy.sparse import coo_array

    cells = pd.DataFrame(np.column_stack([y, np.zeros(len(y))])).melt()  # a last label that all rows have
    labels = cells.groupby(["variable", "value"], dropna=False).ngroup()
    ones, places = np.ones(len(cells), dtype=np.int64), (np.tile(groups, y.shape[1] + 1), labels)
    counts = coo_array((ones, places)).tocsr()  # (n_groups, n_labels)
    totals, starts = counts.sum(axis=0), counts.indptr.tolist()
    largest = (counts / totals).max(axis=1).toarray().ravel()
    worth = counts.data / totals[counts.indices] ** 2
    in_fold, folds = np.zeros((n_folds, len(totals))), np.empty(len(largest), dtype=np.int64)
    shuffled = np.random.default_rng(state).permutation(len(largest))
    for group in shuffled[np.argsort(-largest[shuffled], kind="stable")].tolist():
        own = slice(starts[group], starts[group + 1])
        label = counts.indices[own]
        folds[group] = fold = (in_fold[:, label] @ worth[own]).argmin()
        in_fold[fold, label] += counts.data[own]
    return folds[groups]


def target_bins(y: Array, n_folds: int, state: int) -> Integers:
    """Bin of each row of labels: quantiles of one target; k-means of the ranks, and of which labels exist, of
    several.

    There are fewer than `MOST_BINS` where a bin could not give every fold a row.
    """
    n_bins = max(1, min(MOST_BINS, len(y) // n_folds))
    ranks = pd.DataFrame(y).rank(pct=True)
    if y.shape[1] == 1 and not ranks[0].isna().any():
        return np.minimum((ranks[0].to_numpy() * n_bins).astype(np.int64), n_bins - 1)
    from sklearn.cluster import KMeans

    features = np.hstack([ranks.fillna(0.5), ranks.isna()])
    n_bins = min(n_bins, len(np.unique(features, axis=0)))
    return KMeans(n_bins, n_init=3, random_state=state).fit_predict(features).astype(np.int64)
