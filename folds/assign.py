"""Assignment of training rows to folds."""

import numpy as np
import pandas as pd

from competition.config import CompetitionConfig
from competition.dataset import FOLD, TIME
from core.errors import DataError
from core.files import derive_seed
from core.types import Integers
from folds.config import FoldsConfig
from folds.fold_files import check_fold_numbers, read_folds
from folds.groups import compute_groups
from folds.splitters import SplitData


def assign_folds(
    config: FoldsConfig, table: pd.DataFrame, competition: CompetitionConfig, seed: int
) -> tuple[Integers, Integers]:
    """Return fold and group of each row of the prepared training table, (n_rows,) each.

    They do not depend on the order of rows. A user-defined fold may be -1. Rows of a group share a fold,
    except in user-defined folds with `allow_split_duplicates`.
    """
    kind = config.definition
    if kind.needs and not getattr(competition, kind.needs):
        raise DataError(
            f"folds.kind {config.kind} needs competition.{kind.needs}. Set it, or choose another kind."
        )
    order = np.argsort(table[competition.id].to_numpy().astype(str), kind="stable")
    rows = table.iloc[order].reset_index(drop=True)
    groups = compute_groups(config, rows, competition)
    if kind.split is None:
        folds = _read_user_folds(config, rows, groups, competition)
    else:
        if not kind.is_ordered_in_time:
            _require_divisible(groups, config.n_folds, rows[competition.id])
        data = SplitData(
            y=rows[competition.targets],
            is_classification=bool(competition.classes),
            groups=groups,
            times=rows[TIME].to_numpy() if TIME in rows else None,
            n_folds=config.n_folds,
            seed=derive_seed(seed, "folds") % 2**31,
        )
        folds = kind.split(data)
    original_order = np.argsort(order)
    return folds[original_order], groups[original_order]


def _read_user_folds(
    config: FoldsConfig, rows: pd.DataFrame, groups: Integers, competition: CompetitionConfig
) -> Integers:
    """Return the folds of folds.file or competition.fold_column, (n_rows,).

    Raises:
        DataError: if rows of one group are in several folds, unless the settings allow it.
    """
    ids = rows[competition.id]
    folds = read_folds(config.file, list(ids)) if config.file else rows[FOLD].to_numpy(dtype=np.int64)
    where = config.file or "competition.fold_column"
    check_fold_numbers(folds, where)
    split_groups = np.flatnonzero(pd.Series(folds).groupby(groups).nunique() > 1)
    if len(split_groups) and not config.allow_split_duplicates:
        first = np.flatnonzero(groups == split_groups[0])[:3]
        examples = ", ".join(f"{ids[i]!r} in {folds[i]}" for i in first)
        raise DataError(
            f"{where} must keep rows with equal inputs in one fold, also if only salts differ; "
            f"{len(split_groups)} inputs are in several (the first: {examples}). Correct the folds, or set "
            "folds.allow_split_duplicates: true."
        )
    return folds


def _require_divisible(groups: Integers, n_folds: int, ids: pd.Series) -> None:
    """Raise a DataError if there are fewer groups than folds, or if one is too large for a fold."""
    sizes = np.bincount(groups)
    if len(sizes) < n_folds or sizes.max() * n_folds > len(groups) * (n_folds - 1):
        id_in_largest = ids[int(np.argmax(groups == sizes.argmax()))]
        raise DataError(
            f"{len(sizes)} groups of rows (rows with equal inputs, or of one group, scaffold or cluster) cannot "
            f"be divided into {n_folds} folds of similar size; the largest, with id {id_in_largest!r}, has "
            f"{sizes.max()} of {len(groups)} rows. Lower folds.n_folds, split that group, or choose another "
            "folds.kind."
        )
