"""Disagreement of the models of a submission on each test row, and standard deviations that stages predict."""

import numpy as np
import pandas as pd

from competition.dataset import REFIT_FOLD
from core.types import Array
from models.jobs.plan import Job
from models.jobs.predictions import read_predictions, stage_test_std
from submissions.blend.selection import Fitted
from submissions.run import Run

STD_FILE = "spread.csv"
"""File with the standard deviation of each row's prediction over seeds and folds."""


def ensemble_std(run: Run, model: Fitted, names: list[str], test_key: str, ids: list[str]) -> Array | None:
    """Return the standard deviation of predictions over the members of the ensemble, (n_rows, n_outputs).

    It is None if there is one member, such as a refit.

    A member is the submission with one model per column: that of one fold and one seed; a column with fewer
    seeds than another reuses its first ones. Refits are not members. Predictions are those before
    post-processing and decisions. The numbers rank rows that deserve a look or a measurement. They are not
    error bars, since all models may be wrong together.
    Source: the disagreement of an ensemble as in Lakshminarayanan et al., NeurIPS 2017.

    Args:
        names: the stages in the order of the blend's columns.
        test_key: key of the table that all jobs have predicted.
        ids: ids of its rows.
    """
    fold_jobs: dict[int, list[Job]] = {}  # position of a column -> jobs
    for position, name in enumerate(names):
        jobs = run.plan.jobs_of_stage(name)
        of_folds = [job for job in jobs if job.fold != REFIT_FOLD and job.has_predicted(test_key)]
        if jobs:  # a packed run has only the stages with weight
            fold_jobs[position] = of_folds or [job for job in jobs if job.fold == REFIT_FOLD]
    members = []
    for member in range(
        max(map(len, fold_jobs.values()))
    ):  # jobs are sorted by seed and fold, so folds agree
        preds = np.zeros((len(ids), len(names), len(run.task.outputs)))
        for position, jobs in fold_jobs.items():
            file = jobs[member % len(jobs)].test_file(test_key)
            preds[:, position] = read_predictions(file, ids, run.task.outputs)
        members.append(model.predictor.predict(preds))
    return np.std(members, axis=0, ddof=1) if len(members) > 1 else None


def std_table(run: Run, model: Fitted, names: list[str], test_key: str, ids: list[str]) -> pd.DataFrame:
    """Return the table of `spread.csv`: the id, the disagreement on each output if there is one, and columns of stages
    with `predict_std`, named `<output> std of <stage>`. The arguments are those of `ensemble_std`.
    """
    outputs = run.task.outputs
    disagreement = ensemble_std(run, model, names, test_key, ids)
    table = pd.DataFrame({"id": ids})
    if disagreement is not None:
        table[outputs] = disagreement
    for stage in run.config.stages:
        std = stage_test_std(run.plan.jobs_of_stage(stage), test_key, ids, outputs)
        if std is not None:
            table[[f"{output} std of {stage}" for output in outputs]] = std
    return table
