"""Files of the folds.

folds.csv: `id,fold`, fold 0..n_folds-1, or -1 for rows that train in every fold and are never scored.
groups.csv: `id,group`, equal for rows that share a fold by construction; also of extra training rows.
test_groups.csv: `id,group` of the test rows, which a stage with pseudo-labels trains on.
report.json: whether folds are blocks in time.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from competition.clean import parse_folds, read_table_with_ids
from core.errors import DataError
from core.files import read_json
from core.text import join_first
from core.types import Integers


def read_folds(path: Path, ids: list[str]) -> Integers:
    """Return the fold of each id, (n_rows,), in the order of `ids`, from folds.csv or a file of the user."""
    table = _read(path, ids, "fold")
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


def read_groups(path: Path, ids: list[str]) -> Integers:
    """Return the group of each id, (n_rows,), in the order of `ids`: equal for rows that share a fold."""
    return _read(path, ids, "group").set_index("id")["group"].loc[ids].to_numpy(dtype=np.int64)


def time_ordered(report: Path) -> bool:
    """Return whether folds are blocks in time, so that the job of a fold trains on earlier blocks only."""
    return bool(read_json(report, "time_ordered")["time_ordered"])


def _read(path: Path, ids: list[str], column: str) -> pd.DataFrame:
    table = read_table_with_ids(path, ["id", column])
    unknown = sorted(set(table["id"]) - set(ids))
    missing = sorted(set(ids) - set(table["id"]))
    if unknown or missing:
        raise DataError(
            f"{path} must have the id of every training row once; {len(unknown)} of its ids are not training "
            f"rows ({join_first(unknown)}), and {len(missing)} rows are missing ({join_first(missing)}). "
            "Correct the file; folds.csv and groups.csv are made again if deleted."
        )
    return table
