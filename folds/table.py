"""What `folds.make` writes, and what it may read.

folds.csv: `id,fold`, fold 0..n_folds-1, or -1 for rows that train in every fold and are never scored.
groups.csv: `id,group`, equal for rows that share a fold by construction.
report.json: says whether folds are blocks in time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from competition.clean import listed, parse_folds, require_columns
from competition.errors import DataError
from competition.files import read_json, read_text_table


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


def read_groups(path: Path, ids: list[str]) -> NDArray[np.int64]:
    """Group of each id, (n_rows,), in the order of `ids`: equal for rows that share a fold.

    Raises:
        DataError: if an id is missing, doubled or foreign.
    """
    table = read_text_table(path)
    if list(table.columns) != ["id", "group"] or table["id"].duplicated().any() or set(table["id"]) != set(ids):
        raise DataError(f"{path} must name every training id once with its group; delete it and run again.")
    return table.set_index("id")["group"].loc[ids].to_numpy(dtype=np.int64)


def time_ordered(report: Path) -> bool:
    """Whether folds are blocks in time, so that the job of a fold trains on earlier blocks alone.

    Raises:
        DataError: if `folds.make` has not written its report.
    """
    return bool(read_json(report, "time_ordered")["time_ordered"])


def folds_of_file(path: Path, ids: list[str]) -> NDArray[np.int64]:
    """Fold of each id, (n_rows,), from a table `id,fold` of the user's own, in the order of `ids`.

    Raises:
        DataError: if an id is missing, doubled or foreign, or a fold is no whole number.
    """
    table = read_text_table(path)
    require_columns(table, ["id", "fold"], path)
    named, asked = set(table["id"]), set(ids)
    wrong = {
        "stand in it more than once": list(table["id"][table["id"].duplicated()].unique()),
        "are no training rows": [i for i in table["id"] if i not in asked],
        "lack in it": [i for i in ids if i not in named],
    }
    found = "; ".join(f"{len(which)} {how} ({listed(which)})" for how, which in wrong.items() if len(which))
    if found:
        raise DataError(f"{path} must name the id of every training row once; of its ids {found}. Correct the file.")
    folds = parse_folds(table, "fold", "id", path)
    return folds.set_axis(table["id"]).loc[ids].to_numpy(dtype=np.int64)
