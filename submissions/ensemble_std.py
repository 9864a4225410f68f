"""Disagreement of the models of a submission on each test row, and standard deviations that stages predict."""

import numpy as np
import pandas as pd

from competition.types import Array
from models.jobs.job_files import read_predictions, stage_test_std
from models.jobs.plan import REFIT_FOLD
from submissions.predictor import SubmissionModel
from submissions.run import Run
from submissions.stage_predictions import jobs_by_column


def ensemble_std(run: Run, model: SubmissionModel) -> Array:
    """Return the standard deviation of test predictions over the members of the ensemble, (n_rows, n_outputs).

    A member is the submission with one model per column: that of one fold and one seed; a column with fewer
    seeds than another reuses its first ones. Refits are not members. If labels are submitted, the predictions
    before the decision are used. The numbers rank rows that deserve a look or a measurement. They are not
    error bars, since all models may be wrong together.
    Source: the disagreement of an ensemble as in Lakshminarayanan et al., NeurIPS 2017.
    """
    ids = run.stage_predictions.test_ids
    columns = jobs_by_column(run.config, run.plan).values()
    fold_jobs = [[job for job in jobs if job.fold != REFIT_FOLD] for jobs in columns]
    members = []
    for member in range(max(map(len, fold_jobs))):  # jobs are sorted by seed and fold, so folds agree
        files = [jobs[member % len(jobs)].test_file(run.plan.test_key) for jobs in fold_jobs]
        preds = np.stack([read_predictions(file, ids, run.task.outputs) for file in files], axis=1)
        members.append(model.predict(preds, run.stage_predictions.test_inputs, as_labels=False))
    return np.std(members, axis=0, ddof=1)


def std_table(run: Run, model: SubmissionModel) -> pd.DataFrame:
    """Return the table of `spread.csv`: the id, the disagreement on each output, and columns of stages with
    `predict_std`, named `<output> std of <stage>`.
    """
    ids, outputs = run.stage_predictions.test_ids, run.task.outputs
    table = pd.DataFrame({"id": ids}).join(pd.DataFrame(ensemble_std(run, model), columns=outputs))
    for stage in run.config.stages:
        std = stage_test_std(run.plan.jobs_of_stage(stage), run.plan.test_key, ids, outputs)
        if std is not None:
            table[[f"{output} std of {stage}" for output in outputs]] = std
    return table
