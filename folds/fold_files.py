"""A file of the user with folds, `id,fold`: 0 to n-1, or -1 for a row that trains in every fold and is in no score."""

from pathlib import Path

import numpy as np

from competition.clean import parse_folds, read_table_with_ids
from core.errors import DataError, join_first
from core.types import Integers


def read_folds(path: Path, ids: list[str]) -> Integers:
    """Return the fold of each id, (n_rows,), in the order of `ids`."""
    table = read_table_with_ids(path, ["id", "fold"])
    unknown = sorted(set(table["id"]) - set(ids))
    missing = sorted(set(ids) - set(table["id"]))
    if unknown or missing:
        raise DataError(
            f"{path} must have the id of every training row once; {len(unknown)} of its ids are not training "
            f"rows ({join_first(unknown)}), and {len(missing)} rows are missing ({join_first(missing)}). "
            "Correct the file."
        )
    folds = parse_folds(table, "fold", "id", path).set_axis(table["id"]).loc[ids].to_numpy(dtype=np.int64)
    check_fold_numbers(folds, path)
    return folds


def check_fold_numbers(folds: Integers, where: object) -> None:
    """Raise a DataError if folds are not numbered 0..n-1, or if there is only one."""
    numbers = sorted(set(folds[folds >= 0].tolist()))
    if numbers != list(range(len(numbers))) or len(numbers) < 2:
        raise DataError(
            f"{where} must have the folds 0 to n-1 with n of at least 2, and -1; got {numbers}. Renumber them."
        )
