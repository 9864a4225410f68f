"""One job in a worker: select its rows, fit, predict, and publish the folder or a failure."""

import errno
import sys
import time
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from competition.config import CompetitionConfig
from competition.dataset import REFIT_FOLD, Dataset
from competition.metrics import raw_rows_for
from core.cli import NOT_WRITABLE
from core.errors import ConfigError, join_first
from core.files import PROJECT, require_room
from core.modules import PREFIXES, closure
from core.types import Array
from core.user_code import opened_files
from models import targets
from models.context import HeldOut
from models.hardware import is_out_of_memory, machine, peak_gpu_gib
from models.job_folder import read_notes
from models.jobs.compute import JobRows, predict, rows_of_job
from models.jobs.job import Job, write_predictions
from models.jobs.job_files import attempt_folder, clear_attempt, start_attempt, write_failure, write_report
from models.jobs.plan import JobPlan, code_files, user_files
from models.jobs.progress import ProgressFile, read_progress
from models.jobs.scheduler import JobResult, Reason, is_ctrl_c, one_line

STEPS_OF_PREDICTION = 3
"""How much longer a training step takes than predictions of its rows: a pass forwards, and two backwards."""


def run_job(job: Job, plan: JobPlan, threads: int = 1) -> JobResult:
    """Fit one job, predict its held-out fold and the test rows, and publish its folder.

    If the job is finished, only the test rows are predicted. An error is part of the result; its traceback is
    written to the temporary folder of the job.
    """
    started = time.monotonic()
    try:
        if not job.finished:
            return _train(job, plan, threads)
        if not job.has_predicted(plan.test_key):
            predict_test(job, plan, plan.tables.read_test())
        return JobResult(job.title, seconds=time.monotonic() - started)
    except BaseException as error:  # also sys.exit in user-defined code
        if is_ctrl_c(error):
            raise
        return _failure(job, error, time.monotonic() - started)


def _train(job: Job, plan: JobPlan, threads: int) -> JobResult:
    """Fit, predict, score and publish one job."""
    _require_same_code(job, plan)
    folder = start_attempt(job.folder)
    attempt = replace(job, folder=folder)
    stage = plan.stages[job.stage]
    rows = rows_of_job(job, stage, plan.tables, threads)
    stage.import_libraries(rows.context)  # a worker's first job takes as long as its later ones
    started = time.monotonic() - read_progress(folder)["seconds"]  # includes the time before the checkpoint
    held_out_predictions = _fit_and_predict(attempt, plan, rows)
    predict_test(attempt, plan, rows.test)
    seconds = time.monotonic() - started
    clear_attempt(folder)
    report = {
        "seconds": seconds,
        "machine": machine(),
        "made_by": plan.made_by.get(job.stage, {}),
        "opened": opened_files(stage.model_dump()),
        "stage": stage.model_dump(mode="json"),
    }
    write_report(folder, report)
    notes = read_notes(folder)
    folder.rename(job.folder)
    line = _describe_score(job, plan, rows.held_out, held_out_predictions)
    return JobResult(
        job.title,
        seconds=seconds,
        lines=(f"{line}  {seconds:.0f} s", *notes),
        gpu_gib=peak_gpu_gib(),
    )


def predict_rows(job: Job, plan: JobPlan, is_held_out: NDArray[np.bool_]) -> Array:
    """Return predictions of training rows by a model of the other rows, (n_held_out, n_outputs).

    Args:
        job: with a fold that no row has; the model is fitted in its folder.
        is_held_out: (n_rows,).
    """
    rows = rows_of_job(job, plan.stages[job.stage], plan.tables, is_held_out=is_held_out)
    y_pred = _fit_and_predict(job, plan, rows)
    assert y_pred is not None
    return y_pred


def _require_same_code(job: Job, plan: JobPlan) -> None:
    """Raise a ConfigError if code was edited after the plan was made, from which the key of the job is.

    Code of the user is loaded for each job. Modules of this project that the worker has imported stay as they were.
    """
    stage = plan.stages[job.stage]
    files = user_files(stage).values()
    now = code_files(stage, plan.tables.context()) if files else {}
    edited = [name for name in files if plan.made_by[job.stage].get(name) != now[name]]
    for name, code in plan.made_by[job.stage].items():
        module = name.removesuffix(".py").replace("/", ".")
        if name in files or not module.startswith(PREFIXES) or module in sys.modules:
            continue
        path = PROJECT / name
        if closure(path)[path] != code:
            edited.append(name)
    if edited:
        raise ConfigError(
            f"{join_first(edited, str)} was edited after this command had started. "
            "Run it again to train with the new code."
        )


def _fit_and_predict(job: Job, plan: JobPlan, rows: JobRows) -> Array | None:
    """Fit a job and write its held-out predictions; return them, or None for a refit."""
    held_out = rows.held_out.without_labels()
    stage = plan.stages[job.stage]
    n_predicted = len(held_out) + (len(rows.test) if job.predicts_test else 0)
    share_to_predict = n_predicted / (STEPS_OF_PREDICTION * stage.n_epochs * max(1, len(rows.train)))
    context = replace(rows.context, progress=ProgressFile(job.folder, job.title, share_to_predict))
    if job.fold != REFIT_FOLD:
        score = partial(_score, plan.competition, rows.held_out)
        context = replace(context, held_out=HeldOut(held_out, score))
    targets.fit(stage, rows.train, job.folder, context)
    if job.fold == REFIT_FOLD:
        return None
    y_pred, std = predict(stage, held_out, job.folder, context)
    outputs = rows.context.task.outputs
    write_predictions(job.oof_file, held_out.ids, outputs, y_pred, std)
    return y_pred


def _score(competition: CompetitionConfig, held_out: Dataset, y_pred: Array) -> float:
    """Return the score of a held-out fold by `CompetitionConfig.fold_scorer`.

    Args:
        held_out: held-out rows with labels.
        y_pred: predictions of a stage for them, (n_rows, n_outputs).
    """
    metric, task = competition.fold_scorer, competition.task
    raw_rows = raw_rows_for(metric, competition.train, competition.id, held_out.ids)
    return metric(held_out.y, y_pred if task.has_probabilities else task.as_scored(y_pred), raw_rows)


def predict_test(job: Job, plan: JobPlan, test: Dataset) -> None:
    """Predict test rows with the weights of a job."""
    tables = plan.tables
    context = tables.context(tables.job_seed(job.seed, job.fold), test.inputs)
    y_pred, std = predict(plan.stages[job.stage], test, job.folder, context)
    outputs = context.task.outputs
    write_predictions(job.test_file(plan.test_key), test.ids, outputs, y_pred, std)


def _describe_score(job: Job, plan: JobPlan, held_out: Dataset, y_pred: Array | None) -> str:
    """Return a line with the score of the held-out fold.

    The job is published even if the metric cannot score the fold.
    """
    if y_pred is None:
        return f"stage {job.stage}  seed {job.seed}  refit on all rows"
    competition = plan.competition
    labels = held_out.y
    name = competition.fold_scorer.name
    fold = f"stage {job.stage}  seed {job.seed}  fold {job.fold} of {plan.n_folds}"
    try:
        score = _score(competition, held_out, y_pred)
    except Exception as error:
        return f"{fold}  no valid {name} ({one_line(error)})"
    n_labels = np.isfinite(labels).sum(axis=0)
    few = " (fewer than two labels)" if (n_labels < 2).any() else ""
    return f"{fold}  valid {name} {score:.4f}{few}"


def _failure(job: Job, error: BaseException, seconds: float) -> JobResult:
    """Return the result of a job with an error, and write its traceback.

    A full disk is not a failure of the job.
    """
    folder = attempt_folder(job.folder)
    message = one_line(error)
    causes = [message, one_line(error.__cause__ or error)]
    reason: Reason = "memory" if any(map(is_out_of_memory, causes)) else "error"
    result = JobResult(job.title, "failed", reason, message, seconds=seconds)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return replace(result, reason="disk", error=str(error))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        require_room(folder)
        return write_failure(job.folder, result, error)
    except OSError as write_error:
        if write_error.errno in NOT_WRITABLE:
            return replace(result, reason="disk", error=str(write_error))
        return result  # the error of the job matters more than why it cannot be written
