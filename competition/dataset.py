"""The prepared tables as later steps see them: rows with ids, inputs and targets."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.config import CompetitionConfig
from competition.files import read_table
from competition.types import Array, Integers

INPUT_KEY = "__input"
"""Column of a prepared table: equal where the whole input is the same (canonical molecules, normalised text).
"""
FEATURE = "feature "  # what columns with features of the user's own begin with
WEIGHT, EXTRA, TIME, FOLD = "__weight", "__extra", "__time", "__fold"
"""Columns of a training table, where configured: weight, whether from extra_train, time as a number, own
fold.
"""


@dataclass(frozen=True)
class Dataset:
    """Some rows of a table, in a fixed order.

    ids: n_rows names.
    inputs: n_rows rows; molecule columns are canonical SMILES, numbers are floats (NaN: missing), features of
        the user's function follow as `feature <name>`.
    y: (n_rows, n_targets) in the targets' own units, NaN where there is no label; None for test rows.
    weights: (n_rows,) of the rows in training; None where all are 1. Scores know no weights.
    auxiliary: (n_rows, n_auxiliary) targets that are trained on and not submitted; None where there are none.
    extra: (n_rows,) whether a row comes from competition.extra_train; None where none does.
    groups: (n_rows,) a split of the training rows keeps the rows of one group together, as the folds do;
        None: each row may be split from all others.
    times: (n_rows,) NaN where a row has no time; None without competition.time. A job gets them if folds are
    blocks in
        time: a split of its training rows then holds out the latest.
    """

    ids: list[str]
    inputs: pd.DataFrame
    y: Any
    weights: Array | None = None
    auxiliary: Array | None = None
    extra: NDArray[np.bool_] | None = None
    groups: Integers | None = None
    times: Array | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> "Dataset":
        """Rows of a mask or of positions, in that order."""
        positions = np.flatnonzero(which) if which.dtype == bool else which
        arrays = [getattr(self, part.name) for part in fields(self)[2:]]
        return Dataset(
            [self.ids[i] for i in positions],
            self.inputs.iloc[positions].reset_index(drop=True),
            *(None if values is None else values[positions] for values in arrays),
        )

    def without_labels(self) -> "Dataset":
        """The same rows with nothing to learn from."""
        return Dataset(self.ids, self.inputs, None)


def read_rows(path: Path, config: CompetitionConfig, labelled: bool) -> Dataset:
    """A prepared table (`competition.prepare`), in its own order."""
    table = read_table(path)
    features = [name for name in table.columns if name.startswith(FEATURE)]
    ids, inputs = list(table[config.id]), table[[*config.inputs, *features, INPUT_KEY]]
    if not labelled:
        return Dataset(ids, inputs, None)
    return Dataset(
        ids,
        inputs,
        table[config.targets].to_numpy(dtype=np.float64),
        table[WEIGHT].to_numpy(dtype=np.float64) if WEIGHT in table else None,
        table[config.auxiliary_targets].to_numpy(dtype=np.float64) if config.auxiliary_targets else None,
        table[EXTRA].to_numpy(dtype=bool) if EXTRA in table else None,
        times=table[TIME].to_numpy(dtype=np.float64) if TIME in table else None,
    )


def without_extra_rows(table: pd.DataFrame) -> pd.DataFrame:
    """A prepared training table without the rows of extra_train."""
    return table[~table[EXTRA].astype(bool)].reset_index(drop=True) if EXTRA in table else table
