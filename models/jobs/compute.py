"""What can change the result of a job, whatever its stage: its rows, its labels, its fit and its predictions.

The code of this file and of all that it imports is in the key of every job.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.dataset import (
    FEATURE,
    Dataset,
    TableColumns,
    read_rows,
)
from competition.task import Task
from core.files import derive_seed
from core.types import Array, Integers
from folds.training_rows import training_rows
from models import targets
from models.context import Context
from models.jobs.job import Job
from models.stage import Stage

PIECE = 10_000
"""Number of rows that are predicted at a time, which limits the memory for features and batches."""


@dataclass(frozen=True)
class JobTables:
    """The prepared tables of a competition, and what all of its jobs know about them.

    Attributes:
        train: file of the training table.
        test: file of the test table.
        columns: names of the columns of both.
        task: what the competition predicts.
        seed: seed of the competition.
        cache: folder of all caches.
        in_time_order: whether folds are blocks in time, so that the job of a fold trains on earlier blocks
            only.
        test_key: digest of the test table.
    """

    train: Path
    test: Path
    columns: TableColumns
    task: Task
    seed: int
    cache: Path
    in_time_order: bool
    test_key: str

    def read(self) -> tuple[Dataset, Dataset]:
        """Return the training table, with times only if folds are blocks in time, and the test table."""
        rows = read_rows(self.train, self.columns, labelled=True)
        return rows if self.in_time_order else replace(rows, times=None), self.read_test()

    def read_test(self) -> Dataset:
        """Return the test table, without labels."""
        return read_rows(self.test, self.columns, labelled=False)

    def context(self, seed: int = 0, inputs: Iterable[Hashable] = ()) -> Context:
        """Return the context of a stage.

        Args:
            inputs: columns of a prepared table; they may include user-defined features.
        """
        columns = self.columns
        features = [name for name in map(str, inputs) if name.startswith(FEATURE)]
        return Context(
            smiles=columns.smiles,
            text=columns.text,
            numeric=[*columns.numeric, *features],
            categorical=columns.categorical,
            task=self.task,
            seed=seed,
            cache=self.cache,
            auxiliary=columns.auxiliary,
            pairs=columns.pairs,
            swap=columns.swap,
            id=columns.id,
        )

    def job_seed(self, seed: int, fold: int) -> int:
        """Return the seed of a job.

        It does not depend on the name of the stage: stages that differ in one setting start from the same
        weights and see the same batches, so that their scores can be compared pairwise.
        """
        return derive_seed(self.seed, seed, fold)


@dataclass(frozen=True)
class JobRows:
    """Rows of one job.

    Attributes:
        train: training rows of the fold.
        held_out: rows of the fold with their labels; no rows for a refit.
        test: rows of the test table, without labels.
        context: the job's seed, columns and task.
    """

    train: Dataset
    held_out: Dataset
    test: Dataset
    context: Context


def rows_of_job(
    job: Job,
    stage: Stage,
    tables: JobTables,
    threads: int = 1,
    is_held_out: NDArray[np.bool_] | None = None,
) -> JobRows:
    """Return the rows and the context of one job.

    Args:
        threads: cores that training may use, if the result of the stage does not depend on it.
        is_held_out: (n_rows,), rows of its fold in place of the folds of the table; None to use the table.
    """
    rows, test = tables.read()
    if is_held_out is not None:
        assert rows.folds is not None
        rows = replace(rows, folds=np.where(is_held_out, job.fold, rows.folds))
    is_train_row = training_rows(rows, job.fold, tables.in_time_order) & usable_rows(rows, stage)
    train = rows.take(is_train_row)
    if train.weights is not None and (train.weights == 1).all():
        train = replace(train, weights=None)
    context = tables.context(tables.job_seed(job.seed, job.fold), rows.inputs)
    context = replace(
        context,
        threads=threads,
        predicts_held_out=True,
        fold_ids=fold_of_groups(train),
        fold_model_dirs=[fold.folder for fold in job.dependencies],
    )
    held_out = rows.take(np.asarray(rows.folds == job.fold))
    return JobRows(train, held_out, test, context)


def predict(stage: Stage, rows: Dataset, folder: Path, context: Context) -> tuple[Array, Array | None]:
    """Return predictions of rows, (n_rows, n_outputs), and their standard deviations, if the stage has them.

    PIECE rows are predicted at a time.
    """
    starts = range(PIECE, len(rows), PIECE)
    pieces = [rows.take(piece) for piece in np.split(np.arange(len(rows)), starts)]
    y_pred = [targets.predict(stage, piece, folder, context) for piece in pieces]
    std = [targets.predict_std(stage, piece, folder, context) for piece in pieces]
    std_pieces = [values for values in std if values is not None]
    return np.concatenate(y_pred), np.concatenate(std_pieces) if std_pieces else None


def usable_rows(rows: Dataset, stage: Stage) -> NDArray[np.bool_]:
    """Return the mask (n_rows,) of the rows that a stage may train on, in whichever fold.

    With `extra_rows: ignore` these are the rows of the training table. An extra row that has no label of a
    target is for stages that learn auxiliary targets: without a label it would still change the scale of
    features.
    """
    if rows.extra is None:
        return np.ones(len(rows), dtype=np.bool_)
    if stage.extra_rows == "ignore":
        return ~rows.extra
    has_label = rows.has_any_label if stage.learns_auxiliary_targets else rows.is_labelled
    return np.asarray(~rows.extra | has_label)


def fold_of_groups(train: Dataset) -> Integers:
    """Return the fold (n_rows,) of each training row; extra rows have the fold of their group.

    If no other row of the group has a fold, they keep their number below 0.
    """
    folds = train.folds
    assert folds is not None
    if train.groups is None:
        return folds
    of_group = pd.Series(folds).groupby(train.groups).transform("max").to_numpy()
    return np.where(folds < 0, of_group, folds)
