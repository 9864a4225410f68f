"""Columns of a run: predictions of its stages for training and test rows, and labels, joined on id."""

from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from competition.config import CompetitionConfig
from competition.dataset import FOLD, GROUP, REFIT_FOLD, read_prepared, without_extra_rows
from competition.metrics import raw_rows_for
from competition.task import Task
from core.files import read_table
from core.paths import Paths
from core.types import Array
from core.user_tables import read_text_table
from models.jobs.job import Job, read_predictions, stage_oof, stage_test, stage_test_std
from models.jobs.plan import JobPlan
from submissions.blend.candidates import single_column
from submissions.blend.data import BlendData
from submissions.blend.scoring import Scorer
from submissions.blend.selection import CrossFit, Fitted, cross_fit
from submissions.config import Config
from submissions.manifest import CROSS_FITTED, OOF_TABLE, verify_files


@dataclass(frozen=True, eq=False, kw_only=True)
class Columns(BlendData):
    """Predictions of all stages, and the labels.

    Each stage is a column of the blends: the mean over its seeds.

    Attributes:
        names: the stages, ordered by the content of their predictions, so that a name changes no blend.
        test_ids: ids of the test rows.
        test: test predictions (n_test_rows, n_models, n_outputs).
        label_means: (n_outputs,) means of the labels, or shares of the classes, without extra rows; they are
            the predictions of dropped rows.
    """

    names: list[str]
    test_ids: list[str]
    test: Array
    label_means: list[float]

    def stage_oof(self, stage: str) -> Array:
        """Return the out-of-fold predictions of a stage, (n_rows, n_outputs)."""
        return self.preds[:, self.names.index(stage)]

    def table(self, submitted: CrossFit) -> pd.DataFrame:
        """Return the table of `oof.csv`: ids, folds, labels and out-of-fold predictions, by row.

        Columns of labels have the names of the targets, and their cells names of classes. Columns of
        predictions are `stage output` and `submission output`, before labels are made of them; ordinal
        predictions are on the scale of the levels. Where the metric scores labels, `submitted target` has them.
        """
        table = pd.DataFrame({"id": self.ids, "fold": self.folds})
        table[self.task.targets] = self._with_class_names(self.y)
        if self.task.scores_labels:
            names = [f"submitted {target}" for target in self.task.targets]
            table[names] = self._with_class_names(submitted.scored)
        predictions = {**{name: self.stage_oof(name) for name in self.names}, "submission": submitted.outputs}
        for name, y_pred in predictions.items():
            columns = [f"{name} {output}" for output in self.task.outputs]
            table[columns] = self.task.on_scale_of_levels(y_pred)
        return table

    def _with_class_names(self, y: Array) -> Array:
        """Return labels with the names of their classes, "" if missing; numbers without classes."""
        classes = np.array([*self.task.classes, ""], dtype=object)
        return classes[np.nan_to_num(y, nan=-1).astype(np.int64)] if self.task.classes else y


def training_labels(competition: CompetitionConfig, paths: Paths) -> Scorer:
    """Return the labels of the prepared training table, with which predictions are scored."""
    train = read_prepared(paths.train)
    metric = competition.scorer
    task = competition.task
    ids = list(train[competition.id])
    return Scorer(
        metric=metric,
        task=task,
        y=train[task.targets].to_numpy(),
        folds=train[FOLD].to_numpy(dtype=np.int64),
        groups=train[GROUP].to_numpy(dtype=np.int64),
        ids=ids,
        rows=raw_rows_for(metric, competition.train, competition.id, ids),
        seed=competition.seed,
    )


def load_columns(config: Config, plan: JobPlan) -> Columns:
    """Return all columns of a run.

    Raises:
        DataError: if predictions do not match the tables.
    """
    labels = training_labels(config.competition, plan.paths)
    folds = [job.fold for job in plan.jobs]  # rows of other folds are predicted by no model
    labels = replace(labels, folds=np.where(np.isin(labels.folds, folds), labels.folds, -1))
    task = labels.task
    test_ids = list(read_prepared(plan.paths.test)[config.competition.id])
    columns = {}
    for name in sorted(config.stages):
        columns[name] = stage_oof(plan.jobs_of_stage(name), labels.ids, labels.folds, task.outputs)
    names = sorted(columns, key=lambda name: (np.nanmin(columns[name]), np.nanmax(columns[name])))
    return Columns(
        **{each.name: getattr(labels, each.name) for each in fields(labels) if each.init},
        preds=np.stack([columns[name] for name in names], axis=1),
        n_trials=config.submissions.trials,
        names=names,
        test_ids=test_ids,
        test=load_test_predictions(plan, names, plan.test_key, test_ids),
        label_means=label_means(task, read_prepared(plan.paths.train)),
    )


def label_means(task: Task, train: pd.DataFrame) -> list[float]:
    """Return the means of the labels of a prepared table, or the shares of the classes, (n_outputs,)."""
    labels = without_extra_rows(train)[task.targets].to_numpy()
    return [float(mean) for mean in np.nanmean(task.one_hot(labels), axis=0)]


def load_test_predictions(plan: JobPlan, names: list[str], test_key: str, ids: list[str]) -> Array:
    """Return the predictions of stages for a test table, (n_rows, n_models, n_outputs).

    Stages without weight, which a packed run lacks (`submissions.kaggle.pack`), are 0.
    """
    outputs = plan.competition.task.outputs
    preds = np.zeros((len(ids), len(names), len(outputs)))
    for number, name in enumerate(names):
        if name in plan.stages:
            preds[:, number] = stage_test(plan.jobs_of_stage(name), test_key, ids, outputs)
    return preds


def std_table(plan: JobPlan, model: Fitted, names: list[str], test_key: str, ids: list[str]) -> pd.DataFrame:
    """Return the table of `spread.csv`: the id, the ensemble disagreement, and standard deviations of stages.

    The ensemble disagreement has a column per output. Standard deviations are of stages with `predict_std`,
    in the columns `<output> std of <stage>`.

    The disagreement is the standard deviation over the members; it is missing for one member, such as a
    refit. A member is the submission with one model per column: the model of one fold and one seed; a column
    with fewer seeds than another reuses its first ones. Refits are not members. Predictions are taken before
    post-processing and decisions. The numbers rank rows that deserve a look or a measurement. They are not
    error bars, since all models may be wrong together. Source: the disagreement of an ensemble as in
    Lakshminarayanan et al., NeurIPS 2017.

    Args:
        names: the stages in the order of the blend's columns.
        test_key: key of the table that all jobs have predicted.
        ids: ids of its rows.
    """
    outputs = plan.competition.task.outputs
    # Position of a column -> jobs, by seed and fold, so that folds agree.
    fold_jobs: dict[int, list[Job]] = {}
    for position, name in enumerate(names):
        jobs = plan.jobs_of_stage(name)
        of_folds = [job for job in jobs if job.fold != REFIT_FOLD and job.has_predicted(test_key)]
        if jobs:  # a packed run has only the stages with weight
            fold_jobs[position] = of_folds or [job for job in jobs if job.fold == REFIT_FOLD]
    before_decision = replace(model, decision=None, postprocess=None)
    members = []
    for member in range(max(map(len, fold_jobs.values()))):
        preds = np.zeros((len(ids), len(names), len(outputs)))
        for position, jobs in fold_jobs.items():
            file = jobs[member % len(jobs)].test_file(test_key)
            preds[:, position] = read_predictions(file, ids, outputs)
        members.append(before_decision.outputs(preds))
    table = pd.DataFrame({"id": ids})
    if len(members) > 1:
        table[outputs] = np.std(members, axis=0, ddof=1)
    for stage in plan.stages:
        std = stage_test_std(plan.jobs_of_stage(stage), test_key, ids, outputs)
        if std is not None:
            table[[f"{output} std of {stage}" for output in outputs]] = std
    return table


def stage_alone(columns: Columns, name: str) -> CrossFit:
    """Return a stage as a candidate."""
    return cross_fit(columns, partial(single_column, columns, columns.names.index(name)))


def scored_rows(folder: Path, task: Task) -> pd.DataFrame:
    """Return the content of `cross_fitted.csv` of a finished run, indexed by id.

    There are no rows if the run scored labels and `task` scores predictions, or vice versa, or if the classes
    differ.
    """
    manifest = verify_files(folder, CROSS_FITTED)
    is_same = manifest.choice.scores_labels == task.scores_labels and manifest.classes == task.classes
    rows = read_table(folder / CROSS_FITTED).set_index("id")
    return rows if is_same else rows.head(0)


def labels_of(folder: Path, task: Task) -> pd.DataFrame:
    """Return the labels that a finished run was scored with, indexed by id; NaN for missing targets.

    Classes are their indices in those of `task`; there are no rows if the run has others.
    """
    manifest = verify_files(folder, OOF_TABLE)
    cells = read_text_table(folder / OOF_TABLE).set_index("id").reindex(columns=task.targets)
    if manifest.classes != task.classes:
        cells = cells.head(0)
    numbers = {name: str(index) for index, name in enumerate(task.classes)}
    return cells.replace({"": "nan", **numbers}).astype(float)
