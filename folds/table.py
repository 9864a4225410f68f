"""folds.csv: `id,fold`, fold 0..n_folds-1, or -1 for rows that train in every fold and are never scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from competition.errors import DataError
from competition.files import read_text_table


def read_folds(path: Path, ids: list[str]) -> NDArray[np.int64]:
    """Fold of each id, (n_rows,), in the order of `ids`.

    Raises:
        DataError: if an id is missing, doubled or foreign, or the folds are not 0..n-1.
    """
    table = read_text_table(path)
    if list(table.columns) != ["id", "fold"] or table["id"].duplicated().any() or set(table["id"]) != set(ids):
        raise DataError(f"{path} must name every training id once with its fold; delete it and run again.")
    if not table["fold"].str.fullmatch(r"-1|\d{1,4}").all():
        raise DataError(f"{path} must hold whole numbers under fold; delete it and run again.")
    fold_of = dict(zip(table["id"], table["fold"].astype(int), strict=True))
    folds = np.array([fold_of[i] for i in ids], dtype=np.int64)
    used = sorted(set(folds[folds >= 0].tolist()))
    if used != list(range(len(used))) or len(used) < 2 or folds.min() < -1:
        raise DataError(f"{path} must use the folds 0..n-1 with n of at least 2, or -1; found {used}.")
    return folds
