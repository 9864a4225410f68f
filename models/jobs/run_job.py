"""What a worker does with one job: rows -> stage -> fit, predict -> a published folder."""

import time
from dataclasses import replace

import numpy as np

from competition.tables import Rows, read_rows
from models.jobs.folder import CHECKPOINTS, begin, write_predictions, write_report
from models.jobs.job_rows import context_of, rows_of_job
from models.jobs.plan import ALL, Job, Plan, job_seed
from models.jobs.workers import progress
from models.registry import build_stage
from models.training.machine import machine

PIECE = 10_000
"""Test rows that are predicted at a time: features and batches of a hidden test of any length stay in memory."""


def run_job(job: Job, plan: Plan, threads: int = 1) -> None:
    """Fit one job, predict its held-out fold, if it has one, and the test rows, and publish its folder.

    If the job is finished, only the test rows are predicted.
    """
    if job.finished:
        if not job.has_predicted(plan.test_key):  # otherwise by a worker that was lost before it could say so
            predict_test(job, plan, read_rows(plan.paths.test, plan.competition, labelled=False))
        return
    folder = begin(job.folder)
    try:
        seconds = _fit_and_predict(replace(job, folder=folder), plan, threads)
    except Exception:
        (folder / ".probe").write_bytes(bytes(2**16))  # raises if the disk is full; libraries word this differently
        raise
    settings = plan.stages[job.stage].model_dump(mode="json")
    write_report(folder, {"seconds": seconds, "machine": machine(), "stage": settings})
    folder.rename(job.folder)


def _fit_and_predict(job: Job, plan: Plan, threads: int) -> float:
    """Write everything in the folder of a job except its report; return the seconds that training took."""
    stage = plan.stages[job.stage]
    rows = rows_of_job(job, plan, threads)
    started = time.monotonic()
    context = replace(rows.context, progress=progress)
    outputs = context.task.outputs
    model = build_stage(stage, context)
    model.fit(rows.train, rows.held_out if getattr(stage, "reads_held_out", False) else None, job.folder)
    if job.fold != ALL:
        held_out = rows.held_out.without_labels()
        write_predictions(job.oof_file, held_out.ids, outputs, model.predict(held_out, job.folder))
    seconds = time.monotonic() - started
    predict_test(job, plan, rows.test)
    for checkpoint in job.folder.glob(CHECKPOINTS):
        checkpoint.unlink()
    return seconds


def predict_test(job: Job, plan: Plan, test: Rows) -> None:
    """Predict test rows with the weights of a job, PIECE rows at a time."""
    context = context_of(plan, job_seed(plan.competition, job.seed, job.fold), test)
    model = build_stage(plan.stages[job.stage], replace(context, progress=progress))
    predictions = []
    for start in range(0, len(test), PIECE):
        piece = test.take(np.arange(start, min(start + PIECE, len(test))))
        predictions.append(model.predict(piece, job.folder))
    write_predictions(job.test_file(plan.test_key), test.ids, context.task.outputs, np.concatenate(predictions))
