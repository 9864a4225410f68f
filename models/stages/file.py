"""Stage `file`: external predictions, `oof.csv` and `test.csv` of a folder, joined on id.

A job trains nothing: it copies both files into its folder and returns the requested rows.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from competition.cells import describe_rows, parse_numbers, read_table_with_ids, require_columns
from competition.dataset import Dataset
from competition.task import Task
from core.errors import ConfigError, DataError, join_first
from core.files import sha256_of
from core.settings import UserPath
from core.types import Array, Integers
from core.user_tables import read_text_table
from models.context import CheckTables, Context
from models.job_folder import write_notes
from models.stage import FOLD_MARKS, Stage, as_probabilities, invalid_probability_rows

OOF = "oof.csv"
TEST = "test.csv"
FOLD = "fold"
"""Column of oof.csv with the fold in which a row was held out."""
COPY_OF_OOF = "their_oof.csv"
COPY_OF_TEST = "their_test.csv"
"""Copies in the folder of the job."""
MIN_ROWS = 20
"""Number of predictions that a comparison of units needs."""
MAX_STD_RATIO = 3.0
"""Standard deviation of test predictions, relative to the labels, above which other units are suspected."""


class File(Stage):
    """External predictions, for example of another notebook or of AutoGluon. Nothing is trained."""

    is_trained = False
    no_effect = ("seeds", "target_transform", "final_fit", "gpu")
    kind: Literal["file"]
    folder: UserPath
    """Folder with oof.csv and test.csv. Both contain the id and the columns of the submission. For
    classification, they may instead contain a column of probabilities per target, or a column
    `target=class` per class. oof.csv may contain a column `fold`."""
    extra_rows: Literal["ignore"] = "ignore"

    def files(self) -> tuple[Path, Path]:
        """Return the paths of oof.csv and test.csv.

        Raises:
            ConfigError: a file is missing.
        """
        files = Path(self.folder) / OOF, Path(self.folder) / TEST
        missing = [str(file) for file in files if not file.is_file()]
        if missing:
            raise ConfigError(
                f"the folder of the stage needs {OOF} and {TEST}; missing: {', '.join(missing)}. "
                "Correct the path, which is relative to the YAML, or add the files."
            )
        return files

    def key_settings(self, task: Task) -> dict[str, Any]:
        """Return the digests of both files, and the columns under which they are read."""
        return {"files": [sha256_of(file) for file in self.files()], "file_columns": task.columns_in_sample}

    def check(self, tables: CheckTables) -> Iterator[str]:
        """Check both files against the tables, and warn of other folds."""
        yield from super().check(tables)
        context = tables.context
        task = context.task
        ids = list(tables.train[context.id])[: len(tables.folds)]
        oof, test = self.files()
        held_out_ids = [row_id for row_id, fold in zip(ids, tables.folds, strict=True) if fold >= 0]
        read_external(oof, context.id, task, held_out_ids)
        read_external(test, context.id, task, list(tables.test[context.id]))
        mark = fold_mark(oof, context.id, ids, tables.folds)
        if mark:
            yield f"{mark}: {FOLD_MARKS[mark]}"

    def fold_mark(self, folder: Path, id_column: str, ids: list[str], folds: Integers) -> str | None:
        """Return a key of `FOLD_MARKS`; None if the external folds are the same."""
        return fold_mark(folder / COPY_OF_OOF, id_column, ids, folds)

    def fit(self, train: Dataset, folder: Path, context: Context) -> None:
        """Copy both files, and note suspicious units."""
        for file in self.files():
            shutil.copyfile(file, folder / f"their_{file.name}")
        oof = read_external(folder / COPY_OF_OOF, context.id, context.task)
        test = read_external(folder / COPY_OF_TEST, context.id, context.task)
        if not context.task.has_probabilities:
            write_notes(folder, unit_mismatch_notes(oof, test, np.nanstd(train.y, axis=0)))

    def predict(self, rows: Dataset, folder: Path, context: Context) -> Array:
        """Return the external predictions of rows, (n_rows, n_outputs)."""
        file = folder / (COPY_OF_OOF if context.predicts_held_out else COPY_OF_TEST)
        table = read_external(file, context.id, context.task, rows.ids)
        return as_probabilities(context.task, table.loc[rows.ids].to_numpy(dtype=np.float64))


def read_external(path: Path, id_column: str, task: Task, required_ids: Sequence[str] = ()) -> pd.DataFrame:
    """Return all predictions of a file, indexed by id, one column of floats per output of the task.

    Numeric ordinal levels are converted to indices from 0.

    Args:
        required_ids: ids of rows that must have predictions; others may be missing or NaN.
    """
    table = read_table_with_ids(path, [id_column])
    columns = _columns(task, set(table.columns))
    require_columns(table, columns, path)
    values = pd.concat([parse_numbers(table, name, id_column, path) for name in columns], axis=1)
    is_invalid = invalid_probability_rows(task, values.to_numpy())
    if is_invalid.any():
        raise DataError(
            f"{path}: {describe_rows(table, is_invalid, id_column)} has no probabilities in "
            f"{join_first(columns)}; they must be from 0 to 1, with the sum 1 if there is one per class. "
            "Correct the file."
        )
    values = values.set_axis(pd.Index(table[id_column]))
    values[:] = task.from_scale_of_levels(values.to_numpy())
    is_complete = values.reindex(list(required_ids)).notna().all(axis=1)
    missing = list(is_complete.index[~is_complete])
    if missing:
        raise DataError(
            f"{path} has no predictions for {len(missing)} rows of the competition ({join_first(missing)}). "
            "Use predictions for this version of the data, or remove the stage."
        )
    return values


def _columns(task: Task, available: set[str]) -> list[str]:
    """Return the columns of a file with the outputs.

    They have the names of the sample's columns, of the classes, or of the outputs.
    """
    candidates = [task.columns_in_sample, task.classes]
    if task.problem_type == "binary":
        candidates = [
            [task.columns_in_sample[-1]],
            [task.classes[1]],
            [f"{task.targets[0]}={task.classes[1]}"],
        ]
    for names in candidates:
        if len(names) == len(task.outputs) and available >= {*names}:
            return names
    return task.outputs


def fold_mark(oof_file: Path, id_column: str, ids: list[str], folds: Integers) -> str | None:
    """Return a key of `FOLD_MARKS`; None if the external folds are the same partition.

    Args:
        oof_file: file with all ids that have a fold.
        folds: (n_rows,), -1 for rows without a fold.
    """
    table = read_text_table(oof_file).set_index(id_column)
    has_fold = folds >= 0
    external = table.get(FOLD, pd.Series("", table.index)).str.strip()
    external = external.loc[np.array(ids, dtype=object)[has_fold]]
    if (external == "").any():
        return "unknown folds"
    is_same = np.array_equal(pd.factorize(external)[0], pd.factorize(folds[has_fold])[0])
    return None if is_same else "other folds"


def common_folds(files: Sequence[Path], id_column: str) -> Path | None:
    """Return the first of several oof.csv if all have the same folds, which `folds.kind: file` can read."""
    tables = [read_text_table(file) for file in files if file.is_file()]
    if len(tables) < len(files) or not all({id_column, FOLD} <= {*table} for table in tables):
        return None
    ids = list(tables[0][id_column])
    folds = tables[0][FOLD].str.strip()
    has_other_ids = any({*table[id_column]} != {*ids} for table in tables)
    if has_other_ids or {*folds} != {*map(str, range(folds.nunique()))}:
        return None
    marks = [fold_mark(file, id_column, ids, folds.to_numpy(dtype=np.int64)) for file in files]
    return None if any(marks) else files[0]


def unit_mismatch_notes(oof: pd.DataFrame, test: pd.DataFrame, scale: Array) -> list[str]:
    """Return a note per test column that may have other units than the OOF column, which no score shows.

    Args:
        scale: standard deviation of the labels per column.
    """
    test_median = test.median()
    oof_median = oof.median()
    is_far = np.maximum((test_median - oof_median).abs(), test.std() / MAX_STD_RATIO) > scale
    has_min_rows = np.minimum(oof.count(), test.count()) >= MIN_ROWS
    return [
        f"{name} of {TEST} differs from {OOF} "
        f"(median {test_median[name]:.3g}, there {oof_median[name]:.3g}): other units?"
        for name in test.columns[is_far & has_min_rows]
    ]
