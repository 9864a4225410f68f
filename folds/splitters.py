"""Folds of the training rows, by scikit-learn's splitters where they exist, over groups that must stay together."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.errors import DataError
from competition.files import derive_seed
from competition.tables import FOLD, TIME
from folds.config import FoldsConfig
from folds.groups import groups_of
from folds.table import folds_of_file


@dataclass(frozen=True)
class Division:
    """Folds and what they were made of.

    folds: (n_rows,), -1 for rows that train in every fold.
    groups: (n_rows,), equal for rows that share a fold by construction.
    crossing: number of inputs that stand in several folds; not 0 only by `equal_inputs_may_cross`.
    """

    folds: NDArray[np.int64]
    groups: NDArray[np.int64]
    crossing: int = 0


def divide(
    config: FoldsConfig,
    table: pd.DataFrame,
    id_column: str,
    targets: list[str],
    smiles: list[str],
    group: str | None,
    seed: int,
) -> Division:
    """Folds and groups of the rows of the prepared training table; they do not depend on the order of rows.

    Raises:
        DataError: if there are fewer groups than folds or one is too large, what the kind needs is not there, or folds
            of the user's own do not fit.
    """
    _require_what_the_kind_needs(config, table, smiles, group)
    order = np.argsort(table[id_column].to_numpy().astype(str), kind="stable")
    rows = table.iloc[order].reset_index(drop=True)
    group_of_row = groups_of(config, rows, smiles, group)
    crossing = 0
    if config.kind in ("column", "file"):
        own = rows[FOLD].to_numpy() if config.file is None else folds_of_file(config.file, list(rows[id_column]))
        fold_of_row = own.astype(np.int64)
        crossing = _checked_own(config, fold_of_row, group_of_row, rows[id_column])
    elif config.kind == "time":
        fold_of_row = time_blocks(rows[TIME].to_numpy(), group_of_row, config.n_folds)
    else:
        _require_divisible(config, group_of_row, rows[id_column])
        fold_of_row = _split(config, rows, group_of_row, targets, derive_seed(seed, "folds") % 2**31)
    folds, of_row = np.empty((2, len(table)), dtype=np.int64)
    folds[order], of_row[order] = fold_of_row, group_of_row
    return Division(folds, of_row, crossing)


def _require_what_the_kind_needs(
    config: FoldsConfig, table: pd.DataFrame, smiles: list[str], group: str | None
) -> None:
    needs = {
        "group": (group, "competition.group, the column whose equal values share a fold"),
        "stratified_group": (group, "competition.group, the column whose equal values share a fold"),
        "scaffold": (smiles, "a column under competition.smiles"),
        "cluster": (smiles, "a column under competition.smiles"),
        "time": (TIME in table, "competition.time, the column by which rows are ordered"),
        "column": (FOLD in table, "competition.fold_column, the column with the fold of each row"),
    }
    there, what = needs.get(config.kind, (True, ""))
    if not there:
        raise DataError(f"folds.kind {config.kind} needs {what}. Set it, or choose another kind.")


def _require_divisible(config: FoldsConfig, group_of_row: NDArray[np.int64], ids: pd.Series) -> None:
    """Check that there are as many groups as folds, and that none is larger than all folds but one together."""
    sizes = np.bincount(group_of_row)
    kind = {"scaffold": " or scaffold", "cluster": " or cluster"}.get(config.kind, " or group")
    together = "equal input" + ("" if config.kind in ("kfold", "stratified") else kind)
    if len(sizes) < config.n_folds:
        raise DataError(
            f"folds.n_folds must not exceed the groups of rows that can be divided; there are {len(sizes)} "
            f"(rows with {together} count once) for {config.n_folds} folds. Lower folds.n_folds."
        )
    others = config.n_folds - 1
    if sizes.max() * config.n_folds > len(group_of_row) * others:
        raise DataError(
            f"rows that must share a fold ({together}) must not be more than {others} of {config.n_folds} folds of "
            f"equal size hold; {int(sizes.max())} of {len(group_of_row)} rows are one group, that of id "
            f"{ids[int(np.argmax(group_of_row == sizes.argmax()))]!r}. Divide that group, or choose another folds.kind."
        )


def _checked_own(config: FoldsConfig, folds: NDArray[np.int64], group_of_row: NDArray[np.int64], ids: pd.Series) -> int:
    """Check folds of the user's own; returns how many inputs stand in several of them."""
    where = "competition.fold_column" if config.file is None else str(config.file)
    used = sorted(set(folds[folds >= 0].tolist()))
    if used != list(range(len(used))) or len(used) < 2:
        raise DataError(
            f"{where} must use the folds 0 to n-1 with n of at least 2, and -1; found {used}. Number them so."
        )
    of_group = pd.Series(folds).groupby(group_of_row)
    cross = (of_group.nunique() > 1).to_numpy()
    if cross.any() and not config.equal_inputs_may_cross:
        example = np.flatnonzero(group_of_row == cross.argmax())
        named = ", ".join(f"{ids[i]!r} in {folds[i]}" for i in example[:3])
        raise DataError(
            f"{where} must keep rows with the same whole input in one fold; {int(cross.sum())} inputs stand in several "
            f"(the first: {named}). Correct the folds, or set folds.equal_inputs_may_cross: true."
        )
    return int(cross.sum())


def time_blocks(times: NDArray[np.float64], group_of_row: NDArray[np.int64], n_folds: int) -> NDArray[np.int64]:
    """Block of each row in the order of time, (n_rows,): -1 for the first, then 0 to n_folds - 1, of like size.

    Equal times share a block, which scikit-learn's TimeSeriesSplit, counting rows, would cut through. A group has
    the time of its latest row: no fold then trains on a label that is later than its own rows.

    Raises:
        DataError: if there are too few times for the blocks.
    """
    latest = pd.Series(times).groupby(group_of_row).transform("max")
    moment, rows_at = np.unique(latest, return_inverse=True)[1], latest.value_counts().sort_index().to_numpy()
    middle = np.cumsum(rows_at) - rows_at / 2
    block_of = np.floor(middle / len(times) * (n_folds + 1)).astype(np.int64)
    if len(set(block_of.tolist())) <= n_folds:
        raise DataError(
            f"competition.time must divide into {n_folds + 1} blocks of like size, one to begin with and one per fold; "
            f"its {len(rows_at)} distinct times, the commonest with {int(rows_at.max())} of {len(times)} rows, leave "
            "some empty. Lower folds.n_folds."
        )
    return block_of[moment] - 1


def _split(
    config: FoldsConfig, rows: pd.DataFrame, group_of_row: NDArray[np.int64], targets: list[str], state: int
) -> NDArray[np.int64]:
    from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold

    settings = {"n_splits": config.n_folds, "shuffle": True, "random_state": state}
    if config.kind in ("group", "scaffold", "cluster"):
        return largest_first(np.bincount(group_of_row), config.n_folds, state)[group_of_row]
    if config.kind == "stratified_group":
        bins = target_bins(rows[targets].to_numpy(), config.n_bins, config.n_folds, state)
        return _held_out_in(StratifiedGroupKFold(**settings), bins, group_of_row)
    if config.kind == "stratified":
        means = rows[targets].groupby(group_of_row).mean().to_numpy()
        bins = target_bins(means, config.n_bins, config.n_folds, state)
        return _held_out_in(StratifiedKFold(**settings), bins)[group_of_row]
    return _held_out_in(KFold(**settings), np.zeros(int(group_of_row.max()) + 1))[group_of_row]


def _held_out_in(splitter: Any, bins: np.ndarray, groups: np.ndarray | None = None) -> NDArray[np.int64]:
    """Fold in which a splitter of scikit-learn holds out each of its rows, (n,)."""
    folds = np.empty(len(bins), dtype=np.int64)
    with warnings.catch_warnings():
        # A bin with fewer rows than folds, as of equal labels, cannot be in every fold; it is spread as far as it goes.
        warnings.filterwarnings("ignore", message="The least populated class")
        for fold, (_, held_out) in enumerate(splitter.split(bins, bins, groups)):
            folds[held_out] = fold
    return folds


def largest_first(sizes: NDArray[np.int64], n_folds: int, state: int) -> NDArray[np.int64]:
    """Fold of each group, (n_groups,): the largest groups first, each into the fold with the fewest rows so far.

    scikit-learn's GroupKFold shuffles groups only by giving every fold as many groups, and one large scaffold
    then makes a fold several times as large as another. Here the seed decides among groups of one size.

    Args:
        sizes: rows of each group, (n_groups,).
        n_folds: at most n_groups.
        state: seed of the order among groups of one size.
    """
    shuffled = np.random.default_rng(state).permutation(len(sizes))
    folds = np.empty(len(sizes), dtype=np.int64)
    rows_in_fold = np.zeros(n_folds, dtype=np.int64)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        folds[group] = rows_in_fold.argmin()
        rows_in_fold[folds[group]] += sizes[group]
    return folds


def target_bins(y: np.ndarray, n_bins: int, n_folds: int, state: int) -> NDArray[np.int64]:
    """Bin of each row: quantiles of one target; k-means of the ranks, and of which labels exist, of several.

    Args:
        y: (n_rows, n_targets), NaN for a missing label.
        n_bins: lowered where a bin could not give every fold a row.
    """
    n_bins = max(1, min(n_bins, len(y) // n_folds))
    ranks = pd.DataFrame(y).rank(pct=True)
    if y.shape[1] == 1 and not ranks[0].isna().any():
        return np.minimum((ranks[0].to_numpy() * n_bins).astype(np.int64), n_bins - 1)
    from sklearn.cluster import KMeans

    features = np.hstack([ranks.fillna(0.5).to_numpy(), ranks.isna().to_numpy().astype(float)])
    n_bins = min(n_bins, len(np.unique(features, axis=0)))
    return KMeans(n_bins, n_init=3, random_state=state).fit_predict(features).astype(np.int64)
