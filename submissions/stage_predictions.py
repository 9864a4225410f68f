"""Base predictions of a run: predictions of its stages, joined on id, with the labels."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.dataset import INPUT_KEY, without_extra_rows
from competition.files import read_table
from competition.task import Task, build_task
from competition.types import Array, Integers
from folds.fold_files import read_folds, read_groups
from models.jobs.job_files import stage_oof, stage_test
from models.jobs.plan import Job, JobPlan
from submissions.config import Config


@dataclass(frozen=True)
class StagePredictions:
    """Predictions of all stages with the labels.

    A base model of the blends is a column, named `stage`, or `stage:seed` with `seeds: separate`.

    Attributes:
        stage_of: column -> stage; columns are in alphabetical order everywhere.
        ids: ids of the training rows.
        oof: out-of-fold predictions (n_rows, n_models, n_outputs), NaN in fold -1.
        y: labels (n_rows, n_targets), NaN if missing.
        folds: (n_rows,).
        groups: (n_rows,); rows of one group share a fold by construction.
        test_ids: ids of the test rows.
        test: test predictions (n_test_rows, n_models, n_outputs).
        test_inputs: input keys of the test rows, equal for rows with equal inputs.
        label_means: (n_outputs,) means of the labels, or shares of the classes, without extra rows; they are
            the predictions of dropped rows.
    """

    stage_of: dict[str, str]
    ids: list[str]
    oof: Array
    y: Array
    folds: Integers
    groups: Integers
    test_ids: list[str]
    test: Array
    test_inputs: list[str]
    label_means: list[float]

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(self.stage_of)

    def stage_mask(self, stage: str) -> NDArray[np.bool_]:
        """Return the mask of the columns of a stage, (n_models,)."""
        return np.array([each == stage for each in self.stage_of.values()])

    def stage_oof(self, stage: str) -> Array:
        """Return the mean out-of-fold prediction of a stage, (n_rows, n_outputs)."""
        return self.oof[:, self.stage_mask(stage)].mean(axis=1)

    def stage_test(self, stage: str) -> Array:
        """Return the mean test prediction of a stage, (n_test_rows, n_outputs)."""
        return self.test[:, self.stage_mask(stage)].mean(axis=1)

    def table(self, task: Task) -> pd.DataFrame:
        """Return ids, folds, labels (named as the targets) and all out-of-fold columns (`column output`)."""
        names = [f"{name} {output}" for name in self.names for output in task.outputs]
        numbers = np.hstack([self.y, self.oof.reshape(len(self.ids), -1)])
        table = pd.DataFrame({"id": self.ids, "fold": self.folds})
        return table.join(pd.DataFrame(numbers, columns=[*task.targets, *names]))


def load_stage_predictions(config: Config, plan: JobPlan) -> StagePredictions:
    """Return all columns of a run.

    Raises:
        DataError: if predictions do not match the tables.
    """
    competition, task, paths = config.competition, build_task(config.competition), plan.paths
    train, test = read_table(paths.train), read_table(paths.test)
    ids, test_ids = list(train[competition.id]), list(test[competition.id])
    folds, jobs = read_folds(paths.folds, ids), jobs_by_column(config, plan)
    return StagePredictions(
        stage_of={name: part[0].stage for name, part in jobs.items()},
        ids=ids,
        oof=np.stack([stage_oof(part, ids, folds, task.outputs) for part in jobs.values()], axis=1),
        y=train[task.targets].to_numpy(),
        folds=folds,
        groups=read_groups(paths.groups, ids),
        test_ids=test_ids,
        test=load_test_predictions(config, plan, plan.test_key, test_ids),
        test_inputs=list(test[INPUT_KEY]),
        label_means=np.nanmean(
            task.one_hot(without_extra_rows(train)[task.targets].to_numpy()), axis=0
        ).tolist(),
    )


def load_test_predictions(config: Config, plan: JobPlan, test_key: str, ids: list[str]) -> Array:
    """Return the predictions of all columns for a test table, (n_rows, n_models, n_outputs)."""
    outputs = build_task(config.competition).outputs
    columns = [stage_test(jobs, test_key, ids, outputs) for jobs in jobs_by_column(config, plan).values()]
    return np.stack(columns, axis=1)


def jobs_by_column(config: Config, plan: JobPlan) -> dict[str, list[Job]]:
    """Return column -> its jobs by seed and fold; the columns are in alphabetical order."""
    columns: dict[str, list[Job]] = defaultdict(list)
    for job in plan.jobs:
        is_separate = config.submissions.seeds == "separate" and len(config.stages[job.stage].seeds) > 1
        columns[f"{job.stage}:{job.seed}" if is_separate else job.stage].append(job)
    return dict(sorted(columns.items()))
