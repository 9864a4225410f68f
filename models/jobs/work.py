"""What a worker does with a job: from prepared tables to a published folder, and predictions of new rows.

The code of this file is in the key of every job, since it hands stages their rows, labels and seeds.
"""

import time
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.tables import FEATURE, INPUT_KEY, Rows, read_rows
from competition.task import Task, task_of
from competition.types import Array, Integers
from folds.table import read_folds, time_ordered
from models.jobs.folder import CHECKPOINTS, begin, mean_test, write_predictions, write_report
from models.jobs.plan import ALL, Job, Plan, job_seed
from models.jobs.workers import progress
from models.registry import build_stage
from models.stage import Context
from models.training.machine import machine

PIECE = 10_000
"""Test rows that are predicted at a time: features and batches of a hidden test of any length stay in memory."""


def context_of(plan: Plan, seed: int, rows: Rows | None = None) -> Context:
    """What a stage is told beside its own settings; `rows` name the features of the user's own, if there are any."""
    competition = plan.competition
    features = [] if rows is None else [str(name) for name in rows.inputs if str(name).startswith(FEATURE)]
    return Context(
        competition.smiles,
        competition.text,
        [*competition.numeric, *features],
        competition.categorical,
        task_of(competition),
        seed,
        plan.paths.cache,
        progress,
        competition.auxiliary_targets,
        id=competition.id,
    )


def read_tables(plan: Plan) -> tuple[Rows, Rows, Integers]:
    """The training table, the test table, and the fold of each training row."""
    rows = read_rows(plan.paths.train, plan.competition, labelled=True)
    test = read_rows(plan.paths.test, plan.competition, labelled=False)
    return rows, test, read_folds(plan.paths.folds, rows.ids)


def run_job(job: Job, plan: Plan, threads: int = 1) -> None:
    """Fit one job, predict its held-out fold, if it has one, and the test rows, and publish its folder.

    With a finished job, the test rows are predicted alone.
    """
    if job.finished:
        if not job.has_predicted(plan.test_key):  # else by a worker that was lost before it could say so
            predict_test(job, plan, read_rows(plan.paths.test, plan.competition, labelled=False))
        return
    folder = begin(job.folder)
    try:
        seconds = _fit_and_predict(replace(job, folder=folder), plan, threads)
    except Exception:
        (folder / ".probe").write_bytes(bytes(2**16))  # says that a disk is full; libraries have words of their own
        raise
    settings = plan.stages[job.stage].model_dump(mode="json")
    write_report(folder, {"seconds": seconds, "machine": machine(), "stage": settings})
    folder.rename(job.folder)


def _fit_and_predict(job: Job, plan: Plan, threads: int) -> float:
    """Write all that the folder of a job holds but its report; returns the seconds that training took."""
    stage, (rows, test, folds) = plan.stages[job.stage], read_tables(plan)
    trains = training_rows(rows, folds, job.fold, stage.extra_rows, time_ordered(plan.paths.folds_report))
    train, division = rows.take(trains), folds[trains]
    held_out = rows.take(folds == job.fold)
    started = time.monotonic()
    if checkpoints := list(job.folder.glob(CHECKPOINTS)):  # count what a killed run spent on them
        from models.training.checkpoint import seconds_in  # here, since it imports torch, which trees do without

        started -= sum(map(seconds_in, checkpoints))
    context = replace(
        context_of(plan, job_seed(plan.competition, job.seed, job.fold), rows),
        threads=threads,
        predicts_held_out=True,
        division=division,
        folds=[need.folder for need in job.needs if need.stage == job.stage],
    )
    outputs = context.task.outputs
    if stage.pseudo_labels is not None:
        labels = pseudo_labels(job, plan.test_key, test.ids, context.task)
        train = with_pseudo_labels(train, test, labels, stage.pseudo_labels.weight)
        context = replace(context, division=np.append(division, np.full(len(test), ALL)))
    fitted = build_stage(stage, context)
    fitted.fit(train, held_out if getattr(stage, "reads_held_out", False) else None, job.folder)
    if job.fold != ALL:
        valid = held_out.without_labels()
        write_predictions(job.oof_file, valid.ids, outputs, fitted.predict(valid, job.folder))
    seconds = time.monotonic() - started
    predict_test(job, plan, test)
    for checkpoint in job.folder.glob(CHECKPOINTS):
        checkpoint.unlink()
    return seconds


def predict_test(job: Job, plan: Plan, test: Rows) -> None:
    """Predict test rows with the weights of a job, PIECE rows at a time."""
    context = context_of(plan, job_seed(plan.competition, job.seed, job.fold), test)
    fitted = build_stage(plan.stages[job.stage], context)
    parts = [test.take(np.arange(start, min(start + PIECE, len(test)))) for start in range(0, len(test), PIECE)]
    y_pred = np.concatenate([fitted.predict(part, job.folder) for part in parts])
    write_predictions(job.test_file(plan.test_key), test.ids, context.task.outputs, y_pred)


def training_rows(rows: Rows, folds: Integers, fold: int, extra_rows: str, earlier_alone: bool) -> NDArray[np.bool_]:
    """Which rows (n_rows,) a job trains on: those of other folds, and extra rows with no input of the held-out fold.

    Args:
        extra_rows: the setting of the stage.
        earlier_alone: whether folds are blocks in time, of which later ones are left out.
    """
    trains = folds < fold if earlier_alone and fold != ALL else folds != fold
    if rows.extra is not None:
        held_out = set(rows.inputs[INPUT_KEY][folds == fold])
        in_fold = rows.inputs[INPUT_KEY].isin(held_out).to_numpy()
        trains &= ~(rows.extra & (in_fold | (extra_rows == "ignore")))
    return trains


def pseudo_labels(job: Job, test_key: str, ids: list[str], task: Task) -> Array:
    """Labels (n_rows, n_targets) of the test rows: the plain mean over the stages that give them, each over its jobs.

    Of classes that is the likeliest one (Lee, Pseudo-Label, 2013); a grade stays the number that it is. Those of fold
    k's job come from models of fold k, so nothing of fold k's own labels comes back to it through them.
    """
    sources = sorted({need.stage for need in job.needs} - {job.stage})
    of_source = [[need for need in job.needs if need.stage == source] for source in sources]
    mean = np.mean([mean_test(jobs, test_key, ids, task.outputs) for jobs in of_source], axis=0)
    return task.likeliest(mean) if task.has_probabilities else mean


def with_pseudo_labels(train: Rows, test: Rows, y: Array, weight: float) -> Rows:
    """Training rows and, below them, the test rows with labels `y` (n_test_rows, n_targets) and a weight."""
    n, auxiliary = len(test), train.auxiliary
    weights = np.ones(len(train)) if train.weights is None else train.weights
    return Rows(
        [*train.ids, *test.ids],
        pd.concat([train.inputs, test.inputs], ignore_index=True),
        np.vstack([train.y, y]),
        np.append(weights, np.full(n, weight)),
        None if auxiliary is None else np.vstack([auxiliary, np.full((n, auxiliary.shape[1]), np.nan)]),
        None if train.extra is None else np.append(train.extra, np.zeros(n, dtype=bool)),
    )
