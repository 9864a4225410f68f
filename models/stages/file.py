"""Stage `file`: predictions made elsewhere, `oof.csv` and `test.csv` of a folder, joined on id.

A job trains nothing: it copies both files into its folder and hands out the rows that are asked for.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from competition.clean import describe_rows, join_first, parse_numbers, read_table_with_ids, require_columns
from competition.config import CompetitionConfig
from competition.dataset import Dataset, without_extra_rows
from competition.errors import ConfigError, DataError
from competition.files import read_text_table
from competition.prepare import Prepared
from competition.task import Task, build_task
from competition.types import Array, Integers
from models.base_config import FileConfig
from models.stage import Context, as_probabilities, invalid_probability_rows, write_notes

OOF, TEST, FOLD = (
    "oof.csv",
    "test.csv",
    "fold",
)  # the column fold of oof.csv says where a row was held out there
COPY_OF_OOF, COPY_OF_TEST = "their_oof.csv", "their_test.csv"  # beside the job's own predictions
WHY = (
    "their models may have seen labels of the fold that is held out here, so the scores of this stage, "
    "and the "
    "cross_fitted_score of a blend with it, may be optimistic"
)
FOLD_MARKS = {
    "other folds": f"predictions made elsewhere, with other folds than ours: {WHY}",
    "unknown folds": f"predictions made elsewhere, whose {OOF} does not name their folds: {WHY}",
}
LEAST_ROWS, FAR = 20, 3.0
"""Rows below which a column says too little; standard deviations of the labels that no column should have."""


class File:
    """The stage; see `models.stage.StageModel`."""

    def __init__(self, config: FileConfig, context: Context) -> None:
        self.config, self.context = config, context

    def fit(self, train: Dataset, valid: Dataset | None, folder: Path) -> None:
        """Copy both files and note what looks wrong beside the labels of `train`."""
        for file in files_of(self.config):
            shutil.copyfile(file, folder / f"their_{file.name}")
        oof, test = self._read(folder / COPY_OF_OOF), self._read(folder / COPY_OF_TEST)
        if not self.context.task.has_probabilities:
            write_notes(folder, doubts(oof, test, np.nanstd(train.y, axis=0)))

    def predict(self, rows: Dataset, folder: Path) -> Array:
        """Their predictions for `rows`, (n_rows, n_outputs)."""
        file = folder / (COPY_OF_OOF if self.context.predicts_held_out else COPY_OF_TEST)
        return as_probabilities(
            self.context.task, self._read(file, rows.ids).loc[rows.ids].to_numpy(dtype=np.float64)
        )

    def _read(self, file: Path, wanted: Sequence[str] = ()) -> pd.DataFrame:
        return read_theirs(file, self.context.id, self.context.task, wanted)


def files_of(config: FileConfig) -> tuple[Path, Path]:
    """oof.csv and test.csv of a stage."""
    files = Path(config.folder) / OOF, Path(config.folder) / TEST
    if lacking := [str(file) for file in files if not file.is_file()]:
        raise ConfigError(
            f"the folder of the stage needs {OOF} and {TEST}; there is no {' and no '.join(lacking)}. "
            f"Correct the "
            "path, which is relative to the YAML, or put them there."
        )
    return files


def read_theirs(path: Path, id_column: str, task: Task, wanted: Sequence[str] = ()) -> pd.DataFrame:
    """All predictions of a file, ids as the index, one column of floats for each output of the task, found by
    name.

    Grades that are whole numbers without a gap are read as such, and become their numbers from 0. Rows that
    are `wanted` must have predictions; others may lack them or have NaN.
    """
    table = read_table_with_ids(path, [id_column])
    columns = _columns(task, set(table.columns))
    require_columns(table, columns, path)
    values = pd.concat([parse_numbers(table, name, id_column, path) for name in columns], axis=1)
    if (wrong := invalid_probability_rows(task, values.to_numpy())).any():
        raise DataError(
            f"{path}: {describe_rows(table, wrong, id_column)} has no probabilities under "
            f"{join_first(columns)}; "
            "they must lie in 0 to 1 and, where there is one for each class of a target, sum to 1. "
            "Correct the file."
        )
    values = values.set_axis(pd.Index(table[id_column])) - _lowest_grade(task)
    complete = values.reindex(list(wanted)).notna().all(axis=1)
    if lacking := list(complete.index[~complete]):
        raise DataError(
            f"{path} lacks predictions for {len(lacking)} rows of the competition ({join_first(lacking)}). "
            "Use predictions for this version of the data, or leave the stage out."
        )
    return values


def _columns(task: Task, there: set[str]) -> list[str]:
    """Which columns of a file have the outputs: those of the sample, else those of the outputs' names."""
    known = [task.columns_in_sample]
    if task.problem_type == "binary":
        known = [[known[0][-1]], [f"{task.targets[0]}={task.classes[1]}"]]
    named = (names for names in known if len(names) == len(task.outputs) and there >= {*names})
    return next(named, task.outputs)


def _lowest_grade(task: Task) -> int:
    """The first of grades that are whole numbers without a gap, which files have in their own units; else 0."""
    if task.problem_type != "ordinal" or not task.classes[0].lstrip("-").isdigit():
        return 0
    first = int(task.classes[0])
    return first if task.classes == [str(first + i) for i in range(len(task.classes))] else 0


def fold_mark(oof_file: Path, id_column: str, ids: list[str], folds: Integers) -> str | None:
    """One of `FOLD_MARKS`; None where their folds are ours, whatever their numbers.

    `oof_file` has all of `ids` whose fold is not -1.
    """
    table, scored = read_text_table(oof_file).set_index(id_column), folds >= 0
    theirs = table.get(FOLD, pd.Series("", table.index)).str.strip().loc[np.array(ids, dtype=object)[scored]]
    if (theirs == "").any():
        return "unknown folds"
    same = np.array_equal(pd.factorize(theirs)[0], pd.factorize(folds[scored])[0])
    return None if same else "other folds"


def common_folds(files: Sequence[Path]) -> Path | None:
    """The first of some oof.csv, if `folds.kind: file` can read its folds and all others have the same
    partition.
    """
    tables = [read_text_table(file) for file in files if file.is_file()]
    if len(tables) < len(files) or not all({"id", FOLD} <= {*table} for table in tables):
        return None
    ids, folds = list(tables[0]["id"]), tables[0][FOLD].str.strip()
    if {*folds} != {*map(str, range(folds.nunique()))} or any({*table["id"]} != {*ids} for table in tables):
        return None
    marks = [fold_mark(file, "id", ids, folds.to_numpy(dtype=np.int64)) for file in files]
    return None if any(marks) else files[0]


def doubts(oof: pd.DataFrame, test: pd.DataFrame, scale: Array) -> list[str]:
    """Which test columns look as if they were in other units than the OOF columns, in words; no score shows
    that.

    `scale` is the standard deviation of the labels of each column.
    """
    here, there = test.median(), oof.median()
    is_far = np.maximum((here - there).abs(), test.std() / FAR) > scale
    is_known = np.minimum(oof.count(), test.count()) >= LEAST_ROWS
    return [
        f"{name} of {TEST} is not like that of {OOF} (median {here[name]:.3g}, there {there[name]:.3g}): "
        f"other units?"
        for name in test.columns[is_far & is_known]
    ]


def check_predictions(
    stage: FileConfig, competition: CompetitionConfig, prepared: Prepared, folds: Integers
) -> str | None:
    """Check both files of a stage against the tables; returns the mark of its folds, as `fold_mark`."""
    ids, task, (oof, test) = (
        without_extra_rows(prepared.train)[competition.id],
        build_task(competition),
        files_of(stage),
    )
    read_theirs(oof, competition.id, task, list(ids[folds >= 0]))
    read_theirs(test, competition.id, task, list(prepared.test[competition.id]))
    return fold_mark(oof, competition.id, list(ids), folds)
