"""Which rows, labels and context a job gets.

The code of this file is in the key of every job. No other file of this package is.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.dataset import FEATURE, INPUT_KEY, WEIGHT, Dataset, read_rows
from competition.files import read_table
from competition.task import Task, build_task
from competition.types import Array, Integers
from folds.fold_files import read_folds, read_groups, time_ordered
from models.base_config import StageConfig
from models.jobs.job_files import mean_test
from models.jobs.plan import REFIT_FOLD, Job, JobPlan, job_seed
from models.stage import Context


@dataclass(frozen=True)
class JobRows:
    """Rows of one job.

    Attributes:
        train: training rows of the fold, followed by pseudo-labelled test rows if the stage has them.
        held_out: rows of the fold with their labels; no rows for a refit.
        test: rows of the test table, without labels.
        context: the job's seed, columns and task.
    """

    train: Dataset
    held_out: Dataset
    test: Dataset
    context: Context


def rows_of_job(job: Job, plan: JobPlan, threads: int = 1) -> JobRows:
    """Return the rows and the context of one job.

    Args:
        threads: cores that training may use, if the result of the stage does not depend on it.
    """
    stage = plan.stages[job.stage]
    rows, test, folds = read_tables(plan)
    is_train_row = training_rows(rows, folds, job.fold, time_ordered(plan.paths.folds_report))
    if plan.competition.judges_extra_rows:
        rows, is_left_out = with_extra_labels(rows, plan, job.fold)
        is_train_row &= ~is_left_out
    is_train_row &= usable_rows(rows, stage)
    train = rows.take(is_train_row)
    fold_ids = folds[is_train_row]
    context = context_of(plan, job_seed(plan.competition, job.seed, job.fold), rows)
    if stage.pseudo_labels is not None:
        labels = pseudo_labels(job, plan.test_key, test.ids, context.task)
        test = replace(test, groups=read_groups(plan.paths.test_groups, test.ids))
        train = with_pseudo_labels(train, test, labels, stage.pseudo_labels.weight)
        fold_ids = np.append(fold_ids, np.full(len(test), REFIT_FOLD))
    context = replace(
        context,
        threads=threads,
        predicts_held_out=True,
        fold_ids=fold_of_groups(fold_ids, train),
        fold_model_dirs=[need.folder for need in job.dependencies if need.stage == job.stage],
    )
    return JobRows(train, rows.take(folds == job.fold), test, context)


def context_of(plan: JobPlan, seed: int, rows: Dataset | None = None) -> Context:
    """Return the context of a stage; `rows` name the columns of user-defined features, if there are any."""
    competition = plan.competition
    features = [] if rows is None else [str(name) for name in rows.inputs if str(name).startswith(FEATURE)]
    return Context(
        smiles=competition.smiles,
        text=competition.text,
        numeric=[*competition.numeric, *features],
        categorical=competition.categorical,
        task=build_task(competition),
        seed=seed,
        cache=plan.paths.cache,
        auxiliary=competition.auxiliary_targets,
        id=competition.id,
    )


def read_tables(plan: JobPlan) -> tuple[Dataset, Dataset, Integers]:
    """Return the training table with its groups, the test table, and the fold of each training row."""
    rows = read_rows(plan.paths.train, plan.competition, labelled=True)
    times = rows.times if time_ordered(plan.paths.folds_report) else None
    rows = replace(rows, groups=read_groups(plan.paths.groups, rows.ids), times=times)
    test = read_rows(plan.paths.test, plan.competition, labelled=False)
    return rows, test, read_folds(plan.paths.folds, rows.ids)


def usable_rows(rows: Dataset, stage: StageConfig) -> NDArray[np.bool_]:
    """Return the mask (n_rows,) of the rows that a stage may train on, in whichever fold.

    With `extra_rows: ignore` these are the rows of the training table. An extra row that has no label of a target
    is for stages that learn auxiliary targets: without a label it would still change the scale of features.
    """
    if rows.extra is None or (stage.extra_rows != "ignore" and stage.learns_auxiliary_targets):
        return np.ones(len(rows), dtype=np.bool_)
    if stage.extra_rows == "ignore":
        return ~rows.extra
    return np.asarray(~rows.extra | rows.is_labelled)


def training_rows(rows: Dataset, folds: Integers, fold: int, in_time_order: bool) -> NDArray[np.bool_]:
    """Return the mask (n_rows,) of the rows that are trained on when a fold is held out.

    These are the rows of the other folds, and the extra rows that share neither inputs nor a group (scaffold,
    cluster) with the held-out fold and are not later than the training rows of a fold that is a block in
    time.

    Args:
        in_time_order: whether folds are blocks in time, so that later folds are left out.
    """
    in_time = in_time_order and fold != REFIT_FOLD
    trains = folds < fold if in_time else folds != fold
    if rows.extra is None:
        return trains
    held_out = folds == fold
    tied: NDArray[np.bool_] = rows.inputs[INPUT_KEY].isin(rows.inputs[INPUT_KEY][held_out]).to_numpy()
    if rows.groups is not None:
        tied = tied | np.isin(rows.groups, rows.groups[held_out])
        tied = tied | (rows.groups < 0)
    if in_time and rows.times is not None:
        tied = tied | (rows.times > rows.times[trains & ~rows.extra].max())
    return trains & ~(rows.extra & tied)


def with_labels(rows: Dataset, positions: Integers, y: Array, weights: Array) -> Dataset:
    """Return all rows, with other labels (n_positions, n_targets) and weights (n_positions,) for some of them.

    Bounds of censored labels of their targets are ignored, since they are in the units of the former labels.
    """
    all_y = rows.y.copy()
    all_y[positions] = y
    all_weights = np.ones(len(rows)) if rows.weights is None else rows.weights.copy()
    all_weights[positions] = weights
    bounds = rows.bounds
    if bounds is not None:
        bounds = bounds.copy()
        bounds[positions, : y.shape[1]] = np.nan
    return replace(rows, y=all_y, weights=all_weights, bounds=bounds)


def with_extra_labels(rows: Dataset, plan: JobPlan, fold: int) -> tuple[Dataset, NDArray[np.bool_]]:
    """Return all rows with the labels and weights of extra rows for a fold, and which rows it leaves out.

    The labels are those that `models.jobs.extra_labels` has written.
    """
    labels = read_table(plan.paths.extra_labels)
    labels = labels[labels["fold"] == fold]
    positions = pd.Index(rows.ids).get_indexer(pd.Index(labels["id"]))
    y = labels[plan.competition.targets].to_numpy(dtype=np.float64)
    is_left_out = np.zeros(len(rows), dtype=bool)
    is_left_out[positions] = np.isnan(y).all(axis=1)
    rows = with_labels(rows, positions, y, labels[WEIGHT].to_numpy(dtype=np.float64))
    if rows.auxiliary is not None:
        is_left_out &= np.isnan(rows.auxiliary).all(axis=1)
    if rows.bounds is not None:
        is_left_out &= np.isnan(rows.bounds).all(axis=(1, 2))
    return rows, is_left_out


def fold_of_groups(fold_ids: Integers, train: Dataset) -> Integers:
    """Return the fold (n_rows,) of each training row; extra and pseudo-labelled rows have the fold of their
    group.

    If no other row of the group has a fold, they keep their number below 0.
    """
    if train.groups is None:
        return fold_ids
    of_group = pd.Series(fold_ids).groupby(train.groups).transform("max").to_numpy()
    return np.where(fold_ids < 0, of_group, fold_ids)


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
        groups=groups,
        times=extended(train.times, np.nan),
        bounds=extended(train.bounds, np.nan),
    )
