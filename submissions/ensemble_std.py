"""Disagreement of the models of a submission on each test row, and standard deviations that stages predict."""

import numpy as np
import pandas as pd

from competition.types import Array
from models.jobs.job_files import read_predictions, stage_test_std
from models.jobs.plan import REFIT_FOLD
from submissions.predictor import SubmissionModel
from submissions.run import Run
from submissions.stage_predictions import jobs_by_column

STD_FILE = "spread.csv"
"""File with the standard deviation of each row's prediction over seeds and folds."""


def ensemble_std(
    run: Run, model: SubmissionModel, test_key: str, ids: list[str], inputs: list[str]
) -> Array | None:
    """Return the standard deviation of predictions over the members of the ensemble, (n_rows, n_outputs).

    It is None if there is one member, such as a refit.

    A member is the submission with one model per column: that of one fold and one seed; a column with fewer
    seeds than another reuses its first ones. Refits are not members. If labels are submitted, the predictions
    before the decision are used. The numbers rank rows that deserve a look or a measurement. They are not
    error bars, since all models may be wrong together.
    Source: the disagreement of an ensemble as in Lakshminarayanan et al., NeurIPS 2017.

    Args:
        test_key: key of the table that all jobs have predicted.
        ids: ids of its rows.
        inputs: input keys of its rows (`INPUT_KEY`).
    """
    fold_jobs = []
    for jobs in jobs_by_column(run.config, run.plan).values():
        of_folds = [job for job in jobs if job.fold != REFIT_FOLD and job.has_predicted(test_key)]
        fold_jobs.append(of_folds or [job for job in jobs if job.fold == REFIT_FOLD])
    members = []
    for member in range(max(map(len, fold_jobs))):  # jobs are sorted by seed and fold, so folds agree
        files = [jobs[member % len(jobs)].test_file(test_key) for jobs in fold_jobs]
        preds = np.stack([read_predictions(file, ids, run.task.outputs) for file in files], axis=1)
        members.append(model.predict(preds, inputs, as_labels=False))
    return np.std(members, axis=0, ddof=1) if len(members) > 1 else None


def std_table(
    run: Run, model: SubmissionModel, test_key: str, ids: list[str], inputs: list[str]
) -> pd.DataFrame:
    """Return the table of `spread.csv`: the id, the disagreement on each output if there is one, and columns of stages
    with `predict_std`, named `<output> std of <stage>`. The arguments are those of `ensemble_std`.
    """
    outputs = run.task.outputs
    disagreement = ensemble_std(run, model, test_key, ids, inputs)
    table = pd.DataFrame({"id": ids})
    if disagreement is not None:
        table[outputs] = disagreement
    for stage in run.config.stages:
        std = stage_test_std(run.plan.jobs_of_stage(stage), test_key, ids, outputs)
        if std is not None:
            table[[f"{output} std of {stage}" for output in outputs]] = std
    return table
