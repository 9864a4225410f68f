"""What `folds.make` writes, and what it may read.

folds.csv: `id,fold`, fold 0..n_folds-1, or -1 for rows that train in every fold and are never scored.
groups.csv: `id,group`, equal for rows that share a fold by construction; extra training rows have groups,
too. test_groups.csv: the same for the rows of the test table, which a stage with pseudo-labels trains on.
report.json: says whether folds are blocks in time.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from competition.clean import join_first, parse_folds, read_table_with_ids
from competition.errors import DataError
from competition.files import read_json
from competition.types import Integers


def read_folds(path: Path, ids: list[str]) -> Integers:
    """Fold of each id, (n_rows,), in the order of `ids`, from our table or one of the user's."""
    table = _read(path, ids, "fold")
    folds = parse_folds(table, "fold", "id", path).set_axis(table["id"]).loc[ids].to_numpy(dtype=np.int64)
    check_fold_numbers(folds, path)
    return folds


def check_fold_numbers(folds: Integers, where: object) -> None:
    """Check that folds are numbered 0..n-1 and that there are at least two."""
    used = sorted(set(folds[folds >= 0].tolist()))
    if used != list(range(len(used))) or len(used) < 2:
        raise DataError(
            f"{where} must use the folds 0 to n-1 with n of at least 2, and -1; found {used}. Number them so."
        )


def read_groups(path: Path, ids: list[str]) -> Integers:
    """Group of each id, (n_rows,), in the order of `ids`: equal for rows that share a fold."""
    return _read(path, ids, "group").set_index("id")["group"].loc[ids].to_numpy(dtype=np.int64)


def time_ordered(report: Path) -> bool:
    """Whether folds are blocks in time, so that the job of a fold trains on earlier blocks alone."""
    return bool(read_json(report, "time_ordered")["time_ordered"])


def _read(path: Path, ids: list[str], column: str) -> pd.DataFrame:
    table = read_table_with_ids(path, ["id", column])
    named, asked = set(table["id"]), set(ids)
    if named != asked:
        raise DataError(
            f"{path} must name the id of every training row once; {len(named - asked)} of its ids are no "
            f"training "
            f"rows ({join_first(sorted(named - asked))}), and {len(asked - named)} rows lack in it "
            f"({join_first(sorted(asked - named))}). Correct the file; folds.csv and groups.csv are made "
            f"again if "
            "deleted."
        )
    return table
