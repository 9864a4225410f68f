"""The prepared tables as later steps see them: rows with ids, inputs and targets."""

from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.swap import Swap
from core.files import read_table
from core.types import Array, Integers

INPUT_KEY = "__input"
"""Column of a prepared table: equal for rows with equal inputs (canonical molecules, normalised text)."""
FEATURE = "feature "
"""Prefix of the columns with user-defined features."""
WEIGHT = "__weight"
"""Column of a prepared training table with weights."""
EXTRA = "__extra"
"""Column of a prepared training table: number of a row's table of extra_train, from 1; else 0."""
TIME = "__time"
"""Column of a prepared training table with times as numbers."""
LOWER = "__lower "
"""Prefix of the columns of a prepared training table with numbers that a censored label is above."""
UPPER = "__upper "
"""Prefix of the columns of a prepared training table with numbers that a censored label is below."""
FOLD = "__fold"
"""Column of a prepared training table with folds: 0 to n-1, or -1 for rows that only train, in every fold."""
REFIT_FOLD = -2
"""Fold of a refit on all rows: no row has it, so none is held out."""
GROUP = "__group"
"""Column of prepared tables with groups: equal for rows that share a fold; -1 if tied to several."""


@dataclass(frozen=True)
class TableColumns:
    """Names of the columns of the prepared tables by their role, as the section `competition` has them.

    Attributes:
        auxiliary: targets that are trained on and not submitted.
        pairs: text columns that are compared, two each.
        swap: what may change places.
    """

    id: str
    targets: list[str]
    auxiliary: list[str]
    smiles: list[str]
    text: list[str]
    numeric: list[str]
    categorical: list[str]
    pairs: list[list[str]] = field(default_factory=list, kw_only=True)
    swap: Swap | None = field(default=None, kw_only=True)

    @property
    def inputs(self) -> list[str]:
        """Columns that stages read, molecules first."""
        return [*self.smiles, *self.text, *self.numeric, *self.categorical]

    @property
    def labels(self) -> list[str]:
        """All columns of labels, auxiliary targets last."""
        return [*self.targets, *self.auxiliary]


@dataclass(frozen=True)
class Dataset:
    """Rows of a table, in a fixed order.

    Attributes:
        ids: n_rows names.
        inputs: n_rows rows. Molecule columns are canonical SMILES, numbers are floats (NaN: missing), and
            user-defined features follow as `feature <name>`. The last column is a key of the inputs.
        y: (n_rows, n_targets) in the units of the targets, NaN for a missing label; None for test rows.
        weights: (n_rows,) for training, None if all are 1. Scores ignore them.
        auxiliary: (n_rows, n_auxiliary) targets that are trained on and not submitted, or None.
        folds: (n_rows,) fold of a row, see `FOLD`; None for test rows.
        extra: (n_rows,) whether a row is from competition.extra_train; None if no row is.
        groups: (n_rows,) rows of one group stay together in splits of the training rows; None without groups.
        times: (n_rows,) NaN for a row without a time; None without competition.time. A job gets them if folds
            are blocks in time: splits of its training rows then hold out the latest rows.
        bounds: (n_rows, n_targets + n_auxiliary, 2) lower and upper bound of a censored label, NaN without
            one; None if no label is censored, or without `competition.censored: bound`. `y` is NaN for these
            labels.
    """

    ids: list[str]
    inputs: pd.DataFrame
    y: Any
    weights: Array | None = None
    auxiliary: Array | None = None
    extra: NDArray[np.bool_] | None = None
    folds: Integers | None = None
    groups: Integers | None = None
    times: Array | None = None
    bounds: Array | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def is_labelled(self) -> NDArray[np.bool_]:
        """(n_rows,) whether a row has a label of a target; the others may have one of an auxiliary target."""
        return np.asarray(~np.isnan(self.y).all(axis=1))

    @property
    def has_any_label(self) -> NDArray[np.bool_]:
        """(n_rows,) whether a row has a label of a target or an auxiliary target, or a bound of one."""
        has_label = self.is_labelled
        if self.auxiliary is not None:
            has_label = has_label | np.isfinite(self.auxiliary).any(axis=1)
        if self.bounds is not None:
            has_label = has_label | np.isfinite(self.bounds).any(axis=(1, 2))
        return np.asarray(has_label)

    def take(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> "Dataset":
        """Return the rows of a mask, or of positions in their order."""
        positions = np.flatnonzero(which) if which.dtype == bool else which
        arrays = {array.name: getattr(self, array.name) for array in fields(self)[2:]}
        return Dataset(
            ids=[self.ids[i] for i in positions],
            inputs=self.inputs.iloc[positions].reset_index(drop=True),
            **{name: None if values is None else values[positions] for name, values in arrays.items()},
        )

    def without_labels(self) -> "Dataset":
        """Return ids and inputs only, without labels, weights and groups."""
        return Dataset(self.ids, self.inputs, None)


def read_rows(path: Path, columns: TableColumns, labelled: bool) -> Dataset:
    """Return the rows of a prepared table (`competition.prepare`), in the order of the file."""
    table = read_prepared(path)
    features = [name for name in table.columns if name.startswith(FEATURE)]
    ids = list(table[columns.id])
    inputs = table[[*columns.inputs, *features, INPUT_KEY]]
    groups = table[GROUP].to_numpy(dtype=np.int64) if GROUP in table else None
    if not labelled:
        return Dataset(ids, inputs, None, groups=groups)
    auxiliary = table[columns.auxiliary].to_numpy(dtype=np.float64)
    return Dataset(
        ids=ids,
        inputs=inputs,
        y=table[columns.targets].to_numpy(dtype=np.float64),
        weights=table[WEIGHT].to_numpy(dtype=np.float64) if WEIGHT in table else None,
        auxiliary=auxiliary if columns.auxiliary else None,
        extra=table[EXTRA].to_numpy(dtype=bool) if EXTRA in table else None,
        folds=table[FOLD].to_numpy(dtype=np.int64) if FOLD in table else None,
        groups=groups,
        times=table[TIME].to_numpy(dtype=np.float64) if TIME in table else None,
        bounds=_read_bounds(table, columns.labels),
    )


def read_prepared(path: Path) -> pd.DataFrame:
    """Return a prepared table. A process reads it once, as long as the file stays the same."""
    file = path.stat()
    version = file.st_ino, file.st_mtime_ns, file.st_size  # a file is replaced by another one, never changed
    return _read(path, version).copy(deep=False)


@lru_cache(maxsize=2)  # the training and the test table
def _read(path: Path, version: tuple[int, int, int]) -> pd.DataFrame:
    return read_table(path)


def _read_bounds(table: pd.DataFrame, labels: list[str]) -> Array | None:
    """Return the bounds of censored labels, (n_rows, n_labels, 2); None if the table has none."""
    columns = [prefix + name for name in labels for prefix in (LOWER, UPPER)]
    if not {*columns} & {*table.columns}:
        return None
    return table.reindex(columns=columns).to_numpy(dtype=np.float64).reshape(len(table), len(labels), 2)


def without_extra_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return a prepared training table without the rows of extra_train."""
    return table[~table[EXTRA].astype(bool)].reset_index(drop=True) if EXTRA in table else table
