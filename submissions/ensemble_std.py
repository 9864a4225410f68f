"""How far the models behind a submission disagree on each test row."""

import numpy as np

from competition.types import Array
from models.jobs.job_files import read_predictions
from models.jobs.plan import REFIT_FOLD
from submissions.predictor import SubmissionModel
from submissions.run import Run
from submissions.stage_predictions import jobs_by_column


def ensemble_std(run: Run, model: SubmissionModel) -> Array:
    """Standard deviation of the predictions of each test row over the members of the ensemble, (n_rows,
    n_outputs).

    A member is the submission as one model per column makes it: of one fold, and of the first, second and so
    on seed of every column; a column with fewer seeds than another starts again with its first. Refits are in
    no member. If labels are submitted, these are the predictions before the decision. The number ranks rows
    that deserve a look or a measurement. It is not an error bar, since all models may be wrong together.
    Source: the disagreement of an ensemble as in Lakshminarayanan et al., NeurIPS 2017.
    """
    ids = run.columns.test_ids
    columns = jobs_by_column(run.config, run.plan).values()
    fold_jobs = [[job for job in jobs if job.fold != REFIT_FOLD] for jobs in columns]
    members = []
    for member in range(
        max(map(len, fold_jobs))
    ):  # by seed, then fold: all columns have the same fold in a member
        files = [jobs[member % len(jobs)].test_file(run.plan.test_key) for jobs in fold_jobs]
        P = np.stack([read_predictions(file, ids, run.task.outputs) for file in files], axis=1)
        members.append(model.predict(P, run.columns.test_inputs, decided=False))
    return np.std(members, axis=0, ddof=1)
