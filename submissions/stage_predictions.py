"""Base predictions of a run: predictions of its stages, joined on id, with the labels."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from competition.dataset import FOLD, GROUP, without_extra_rows
from competition.task import Task
from core.files import read_table
from core.types import Array, Integers
from models.jobs.plan import JobPlan
from models.jobs.predictions import stage_oof, stage_test
from submissions.config import Config


@dataclass(frozen=True)
class StagePredictions:
    """Predictions of all stages with the labels. Each stage is a column of the blends, the mean over its seeds.

    Attributes:
        names: the stages, ordered by the content of their predictions, so that a name changes no blend.
        ids: ids of the training rows.
        oof: out-of-fold predictions (n_rows, n_models, n_outputs), NaN in fold -1.
        y: labels (n_rows, n_targets), NaN if missing.
        folds: (n_rows,).
        groups: (n_rows,); rows of one group share a fold by construction.
        test_ids: ids of the test rows.
        test: test predictions (n_test_rows, n_models, n_outputs).
        label_means: (n_outputs,) means of the labels, or shares of the classes, without extra rows; they are
            the predictions of dropped rows.
    """

    names: list[str]
    ids: list[str]
    oof: Array
    y: Array
    folds: Integers
    groups: Integers
    test_ids: list[str]
    test: Array
    label_means: list[float]

    def stage_oof(self, stage: str) -> Array:
        """Return the out-of-fold predictions of a stage, (n_rows, n_outputs)."""
        return self.oof[:, self.names.index(stage)]

    def stage_test(self, stage: str) -> Array:
        """Return the test predictions of a stage, (n_test_rows, n_outputs)."""
        return self.test[:, self.names.index(stage)]

    def table(self, task: Task) -> pd.DataFrame:
        """Return ids, folds, labels (named as the targets) and all out-of-fold columns (`stage output`)."""
        names = [f"{name} {output}" for name in self.names for output in task.outputs]
        numbers = np.hstack([self.y, self.oof.reshape(len(self.ids), -1)])
        table = pd.DataFrame({"id": self.ids, "fold": self.folds})
        return table.join(pd.DataFrame(numbers, columns=[*task.targets, *names]))


def load_stage_predictions(config: Config, plan: JobPlan) -> StagePredictions:
    """Return all columns of a run.

    Raises:
        DataError: if predictions do not match the tables.
    """
    competition, task, paths = config.competition, config.competition.task, plan.paths
    train, test = read_table(paths.train), read_table(paths.test)
    ids, test_ids = list(train[competition.id]), list(test[competition.id])
    folds = train[FOLD].to_numpy(dtype=np.int64)
    columns = {
        name: stage_oof(plan.jobs_of_stage(name), ids, folds, task.outputs) for name in sorted(config.stages)
    }
    names = sorted(columns, key=lambda name: (np.nanmin(columns[name]), np.nanmax(columns[name])))
    return StagePredictions(
        names=names,
        ids=ids,
        oof=np.stack([columns[name] for name in names], axis=1),
        y=train[task.targets].to_numpy(),
        folds=folds,
        groups=train[GROUP].to_numpy(dtype=np.int64),
        test_ids=test_ids,
        test=load_test_predictions(plan, task, names, plan.test_key, test_ids),
        label_means=np.nanmean(
            task.one_hot(without_extra_rows(train)[task.targets].to_numpy()), axis=0
        ).tolist(),
    )


def load_test_predictions(
    plan: JobPlan, task: Task, names: list[str], test_key: str, ids: list[str]
) -> Array:
    """Return the predictions of stages for a test table, (n_rows, n_models, n_outputs).

    Stages without weight, which a packed run lacks (`submissions.kernel.pack`), are 0.
    """
    preds = np.zeros((len(ids), len(names), len(task.outputs)))
    for number, name in enumerate(names):
        if name in plan.stages:
            preds[:, number] = stage_test(plan.jobs_of_stage(name), test_key, ids, task.outputs)
    return preds
