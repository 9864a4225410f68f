"""What can change the result of a job, whatever its stage: its rows, its labels, its fit and its predictions.

The code of this file and of all that it imports is in the key of every job.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.calibration import can_calibrate, fit_calibration, shared_labels
from competition.dataset import (
    EXTRA,
    FEATURE,
    INPUT_KEY,
    REFIT_FOLD,
    Dataset,
    TableColumns,
    read_prepared,
    read_rows,
)
from competition.task import Task
from core.files import derive_seed
from core.types import Array, Integers
from folds.training_rows import training_rows
from models import targets
from models.context import Context
from models.jobs.job import Job, mean_test
from models.stage import Stage

PIECE = 10_000
"""Number of rows that are predicted at a time, which limits the memory for features and batches."""
UNUSED_LABELS = "unused_labels"
"""Key of `JobRows.unused_labels` in the report of a job."""


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
        in_time_order: whether folds are blocks in time, so that the job of a fold trains on earlier blocks only.
        test_key: digest of the test table.
        calibrations: name and setting `calibrate` of each extra table.
    """

    train: Path
    test: Path
    columns: TableColumns
    task: Task
    seed: int
    cache: Path
    in_time_order: bool
    test_key: str
    calibrations: list[tuple[str, Literal["none", "affine", "isotonic"]]] = field(default_factory=list)

    def read(self) -> tuple[Dataset, Dataset]:
        """Return the training table, with times only if folds are blocks in time, and the test table."""
        rows = read_rows(self.train, self.columns, labelled=True)
        return rows if self.in_time_order else replace(rows, times=None), self.read_test()

    def read_test(self) -> Dataset:
        """Return the test table."""
        return read_rows(self.test, self.columns, labelled=False)

    def context(self, seed: int = 0, inputs: Iterable[Hashable] = ()) -> Context:
        """Return the context of a stage.

        Args:
            inputs: columns of a prepared table, some of which may be user-defined features.
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

        It does not depend on the name of the stage: stages that differ in one setting start from the same weights
        and see the same batches, so that their scores can be compared pairwise.
        """
        return derive_seed(self.seed, seed, fold)


@dataclass(frozen=True)
class JobRows:
    """Rows of one job.

    Attributes:
        train: training rows of the fold, followed by pseudo-labelled test rows if the stage has them.
        held_out: rows of the fold with their labels; no rows for a refit.
        test: rows of the test table, without labels.
        context: the job's seed, columns and task.
        unused_labels: a message for each column of labels in extra_train that the job does not use.
    """

    train: Dataset
    held_out: Dataset
    test: Dataset
    context: Context
    unused_labels: list[str] = field(default_factory=list)


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
        is_held_out: (n_rows,), rows that are its fold, instead of those of the table; None for these.
    """
    rows, test = tables.read()
    if is_held_out is not None:
        assert rows.folds is not None
        rows = replace(rows, folds=np.where(is_held_out, job.fold, rows.folds))
    is_train_row = training_rows(rows, job.fold, tables.in_time_order)
    unused_labels: list[str] = []
    if stage.extra_rows != "ignore" and any(kind != "none" for _, kind in tables.calibrations):
        rows, unused_labels = calibrated(rows, is_train_row, tables)
    is_train_row &= usable_rows(rows, stage)
    train = rows.take(is_train_row)
    context = tables.context(tables.job_seed(job.seed, job.fold), rows.inputs)
    if stage.pseudo_labels is not None:
        labels = pseudo_labels(job, tables.test_key, test.ids, context.task)
        train = with_pseudo_labels(train, test, labels, stage.pseudo_labels.weight)
    context = replace(
        context,
        threads=threads,
        predicts_held_out=True,
        fold_ids=fold_of_groups(train),
        fold_model_dirs=[need.folder for need in job.dependencies if need.stage == job.stage],
    )
    held_out = rows.take(np.asarray(rows.folds == job.fold))
    return JobRows(train, held_out, test, context, unused_labels)


def predict(stage: Stage, rows: Dataset, folder: Path, context: Context) -> tuple[Array, Array | None]:
    """Return predictions of rows, (n_rows, n_outputs), and their standard deviations, if the stage has them.

    PIECE rows are predicted at a time.
    """
    starts = range(PIECE, len(rows), PIECE)
    pieces = [rows.take(piece) for piece in np.split(np.arange(len(rows)), starts)]
    y_pred = [targets.predict(stage, piece, folder, context) for piece in pieces]
    std = [targets.predict_std(stage, piece, folder, context) for piece in pieces]
    known = [values for values in std if values is not None]
    return np.concatenate(y_pred), np.concatenate(known) if known else None


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


def calibrated(rows: Dataset, trains: NDArray[np.bool_], tables: JobTables) -> tuple[Dataset, list[str]]:
    """Return all rows with calibrated labels of the extra tables with `calibrate`, and messages about those without.

    A table is calibrated on the inputs that it shares with the job's training rows of the competition, so
    that no held-out label has a part in it. If their labels are too few or mostly constant, its labels are
    missing. Bounds of its censored labels are removed, since they are in the units of the former labels.

    Args:
        trains: (n_rows,) whether the job may train on a row.
    """
    sources = read_prepared(tables.train)[EXTRA].to_numpy(dtype=np.int64)
    targets_of_task = tables.columns.targets
    y = rows.y.copy()
    bounds = None if rows.bounds is None else rows.bounds.copy()
    keys = rows.inputs[INPUT_KEY].to_numpy()
    is_main = trains & (sources == 0)
    unused_labels = []
    for number, (file, kind) in enumerate(tables.calibrations, start=1):
        if kind == "none":
            continue
        is_extra = trains & (sources == number)
        for t, target in enumerate(targets_of_task):
            labels = y[is_extra, t]
            shared = shared_labels(keys[is_extra], labels, keys[is_main], y[is_main, t])
            pairs = shared["extra"].to_numpy(), shared["train"].to_numpy()
            if can_calibrate(*pairs):
                fitted = fit_calibration(kind, *pairs)
                # In single precision, since the last digits of a fit depend on the machine and may decide a split.
                y[is_extra, t] = fitted(labels).astype(np.float32)
            else:
                y[is_extra, t] = np.nan
                unused_labels.append(
                    f"the labels of {target} in {file} are not used: the {len(shared)} that are shared with "
                    "the training rows are too few or mostly constant"
                )
        if bounds is not None:
            bounds[is_extra, : len(targets_of_task)] = np.nan
    return replace(rows, y=y, bounds=bounds), unused_labels


def fold_of_groups(train: Dataset) -> Integers:
    """Return the fold (n_rows,) of each training row; extra and pseudo-labelled rows have the fold of their
    group.

    If no other row of the group has a fold, they keep their number below 0.
    """
    folds = train.folds
    assert folds is not None
    if train.groups is None:
        return folds
    of_group = pd.Series(folds).groupby(train.groups).transform("max").to_numpy()
    return np.where(folds < 0, of_group, folds)


def pseudo_labels(job: Job, test_key: str, ids: list[str], task: Task) -> Array:
    """Return labels (n_rows, n_targets) of the test rows: the mean over the source stages, each over its
    jobs.

    For classes it is the most probable class (Lee, Pseudo-Label, 2013); an ordinal level stays a number. The
    labels of fold k's job come from models of fold k, so that none of them has seen a label of fold k.
    """
    sources = sorted({need.stage for need in job.dependencies} - {job.stage})
    jobs_of_source = [[need for need in job.dependencies if need.stage == source] for source in sources]
    mean = np.mean([mean_test(jobs, test_key, ids, task.outputs) for jobs in jobs_of_source], axis=0)
    return task.default_labels(mean) if task.has_probabilities else mean


def with_pseudo_labels(train: Dataset, test: Dataset, y: Array, weight: float) -> Dataset:
    """Return training rows and, below them, the test rows with labels `y` (n_test_rows, n_targets) and a
    weight.
    """

    def extended(values: Any, value: float) -> Any:
        """Append one value for all test rows."""
        if values is None:
            return None
        return np.concatenate([values, np.full((len(test), *values.shape[1:]), value)])

    groups = None
    if train.groups is not None and test.groups is not None:
        groups = np.append(train.groups, test.groups)
    return Dataset(
        ids=[*train.ids, *test.ids],
        inputs=pd.concat([train.inputs, test.inputs], ignore_index=True),
        y=np.vstack([train.y, y]),
        weights=extended(np.ones(len(train)) if train.weights is None else train.weights, weight),
        auxiliary=extended(train.auxiliary, np.nan),
        extra=extended(train.extra, False),
        folds=extended(train.folds, REFIT_FOLD),
        groups=groups,
        times=extended(train.times, np.nan),
        bounds=extended(train.bounds, np.nan),
    )
