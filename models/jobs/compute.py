"""What can change the result of a job, whatever its stage: its rows, its labels, its fit and its predictions.

The code of this file and of all that it imports is in the key of every job.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.calibration import can_calibrate, fit_calibration, shared_labels
from competition.dataset import EXTRA, FEATURE, INPUT_KEY, REFIT_FOLD, Dataset, read_rows
from competition.task import Task
from core.files import derive_seed, read_table
from core.types import Array, Integers
from folds.training_rows import training_rows
from models import targets
from models.context import Context
from models.jobs.predictions import mean_test
from models.stage import Stage

if TYPE_CHECKING:
    from competition.config import CompetitionConfig
    from models.jobs.plan import Job, JobPlan

PIECE = 10_000
"""Number of rows that are predicted at a time, which limits the memory for features and batches."""
UNUSED_LABELS = "unused_labels"
"""Key of `JobRows.unused_labels` in the report of a job."""


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
    job: "Job", plan: "JobPlan", threads: int = 1, is_held_out: NDArray[np.bool_] | None = None
) -> JobRows:
    """Return the rows and the context of one job.

    Args:
        threads: cores that training may use, if the result of the stage does not depend on it.
        is_held_out: (n_rows,), rows that are its fold, instead of those of the table; None for these.
    """
    stage = plan.stages[job.stage]
    rows, test = read_tables(plan)
    if is_held_out is not None:
        assert rows.folds is not None
        rows = replace(rows, folds=np.where(is_held_out, job.fold, rows.folds))
    is_train_row = training_rows(rows, job.fold, plan.in_time_order)
    unused_labels: list[str] = []
    if stage.extra_rows != "ignore" and any(
        extra.calibrate != "none" for extra in plan.competition.extra_train
    ):
        sources = read_table(plan.paths.train)[EXTRA].to_numpy(dtype=np.int64)
        rows, unused_labels = calibrated(rows, sources, is_train_row, plan.competition)
    is_train_row &= usable_rows(rows, stage)
    train = rows.take(is_train_row)
    context = context_of(plan, job_seed(plan.competition, job.seed, job.fold), rows)
    if stage.pseudo_labels is not None:
        labels = pseudo_labels(job, plan.test_key, test.ids, context.task)
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


def job_seed(competition: "CompetitionConfig", seed: int, fold: int) -> int:
    """Return the seed of a job.

    It does not depend on the name of the stage: stages that differ in one setting start from the same weights
    and see the same batches, so that their scores can be compared pairwise.
    """
    return derive_seed(competition.seed, seed, fold)


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


def context_of(plan: "JobPlan", seed: int, rows: Dataset | None = None) -> Context:
    """Return the context of a stage; `rows` name the columns of user-defined features, if there are any."""
    competition = plan.competition
    features = [] if rows is None else [str(name) for name in rows.inputs if str(name).startswith(FEATURE)]
    return Context(
        smiles=competition.smiles,
        text=competition.text,
        numeric=[*competition.numeric, *features],
        categorical=competition.categorical,
        task=competition.task,
        seed=seed,
        cache=plan.paths.cache,
        auxiliary=competition.auxiliary_targets,
        id=competition.id,
    )


def read_tables(plan: "JobPlan") -> tuple[Dataset, Dataset]:
    """Return the training table, with times only if folds are blocks in time, and the test table."""
    rows = read_rows(plan.paths.train, plan.competition, labelled=True)
    if not plan.in_time_order:
        rows = replace(rows, times=None)
    return rows, read_rows(plan.paths.test, plan.competition, labelled=False)


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


def calibrated(
    rows: Dataset, sources: Integers, trains: NDArray[np.bool_], competition: "CompetitionConfig"
) -> tuple[Dataset, list[str]]:
    """Return all rows with calibrated labels of the extra tables with `calibrate`, and messages about those without.

    A table is calibrated on the inputs that it shares with the job's training rows of the competition, so
    that no held-out label has a part in it. If their labels are too few or mostly constant, its labels are
    missing. Bounds of its censored labels are removed, since they are in the units of the former labels.

    Args:
        sources: (n_rows,) number of the extra table of each row, from 1; 0 for the training table.
        trains: (n_rows,) whether the job may train on a row.
    """
    y = rows.y.copy()
    bounds = None if rows.bounds is None else rows.bounds.copy()
    keys = rows.inputs[INPUT_KEY].to_numpy()
    is_main = trains & (sources == 0)
    unused_labels = []
    for number, extra in enumerate(competition.extra_train, start=1):
        if extra.calibrate == "none":
            continue
        is_extra = trains & (sources == number)
        for t, target in enumerate(competition.targets):
            labels = y[is_extra, t]
            shared = shared_labels(keys[is_extra], labels, keys[is_main], y[is_main, t])
            pairs = shared["extra"].to_numpy(), shared["train"].to_numpy()
            if can_calibrate(*pairs):
                fitted = fit_calibration(extra.calibrate, *pairs)
                # In single precision, since the last digits of a fit depend on the machine and may decide a split.
                y[is_extra, t] = fitted(labels).astype(np.float32)
            else:
                y[is_extra, t] = np.nan
                unused_labels.append(
                    f"the labels of {target} in {extra.file.name} are not used: the {len(shared)} that are shared with "
                    "the training rows are too few or mostly constant"
                )
        if bounds is not None:
            bounds[is_extra, : len(competition.targets)] = np.nan
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


def pseudo_labels(job: "Job", test_key: str, ids: list[str], task: Task) -> Array:
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
