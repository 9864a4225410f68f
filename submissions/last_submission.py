"""Submissions in time: of the stages that are finished while others train, and the last one with the report.

The first ones are in submissions/so_far/. The last one and the report are built in a worker, and are ready when the
time of the command is over. With a budget the mean of the stages and the blend without the LightGBM stack, which
takes most of the time, come first. If the last submission is not ready by then, the latest of these takes its
place. If no stage is finished, the mean of the models of the finished folds of one stage does.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from competition.task import build_metric, build_task, raw_rows_for
from core.errors import NothingToSubmit
from core.files import read_table, write_atomically
from core.paths import Paths, display_path
from core.text import format_duration, format_number
from folds import diagnose
from folds.fold_files import read_folds
from models.inputs.features import molecule_features
from models.jobs.budget_stages import Clock
from models.jobs.job_files import mean_test, read_predictions
from models.jobs.plan import REFIT_FOLD, Job, JobPlan
from models.jobs.scheduler import Executor, JobResult, Queue, Task, run
from submissions.blend.decision_rules import apply_decision, fit_decision
from submissions.blend.selection import MEAN
from submissions.build import build_submission
from submissions.columns import label_means
from submissions.config import Config
from submissions.report.report import report
from submissions.run import (
    ALL_SECONDS,
    CHOICE,
    SO_FAR,
    SUBMISSION_FILE,
    LeftOut,
    Run,
    describe_left_out,
    finished_part,
    open_run,
    read_manifest,
)
from submissions.submission_file import write_submission

SUBMISSIONS = "submissions"
"""Group of the tasks."""
SHARE_OF_TIME = 0.1
"""Maximum share of the time that these submissions take on one core."""
FIRST_SECONDS = 6.0
"""Assumed seconds of the first submission."""
COMPARISON = "comparison of training and test rows"
MIN_WEIGHT = 0.02
"""Weight of a stage from which its jobs count as useful."""


class InterimSubmissions:
    """Makes tasks that write a submission of the finished stages.

    Args:
        current: returns the current configuration and plan.
        clock: with a limit, the first one starts immediately, whatever its share of the time.
    """

    def __init__(self, current: Callable[[], tuple[Config, JobPlan]], clock: Clock) -> None:
        self.current = current
        self.first_at_once = clock.has_limit
        self.n_tasks = 0
        self.n_written = 0
        self.is_pending = False
        self.seconds = FIRST_SECONDS
        self.last_end = time.monotonic()

    def next_task(self) -> Task | None:
        """Return a task; None while one is pending, or if it would take more than its share of the time."""
        waited = time.monotonic() - self.last_end
        is_early = waited < self.seconds / SHARE_OF_TIME and not (self.first_at_once and self.n_tasks == 0)
        if self.is_pending or is_early:
            return None
        self.is_pending = True
        self.n_tasks += 1
        name = f"submission {self.n_tasks}"
        return Task(
            name, submit_finished, self.current(), group=SUBMISSIONS, skips_group=False, on_end=self._on_end
        )

    def _on_end(self, result: JobResult) -> None:
        self.is_pending = False
        self.seconds = max(result.seconds, 1.0)
        self.last_end = time.monotonic()
        if result.status == "ok":
            self.n_written += 1
            print(result.lines[0])
        elif result.status == "failed":
            print(f"no submission of the finished stages yet: {result.error}")


def submit_finished(config: Config, plan: JobPlan) -> JobResult:
    """Build the submission of the finished stages and seeds, in a worker."""
    config, plan = finished_part(config, plan)
    build_submission(open_run(config, plan), interim=True)
    file = display_path(plan.paths.run(SO_FAR) / SUBMISSION_FILE)
    line = f"submission of {', '.join(config.stages)}: {file}"
    return JobResult("submission", lines=(line,))


def compare_tables(config: Config, paths: Paths) -> JobResult:
    """Compare training and test rows for the report, unless that is done."""
    descriptors = molecule_features(["descriptors"], 0, paths.cache)[0]
    diagnose.update(config.competition, config.folds, paths, descriptors.load)
    return JobResult(COMPARISON)


def submit_until(
    clock: Clock, finished: Run, executor: Executor, interim: InterimSubmissions
) -> tuple[list[str], bool]:
    """Build the files and the report of a run; return lines to print, and whether they were built in time."""
    queue = Queue([Task("submission", _submit, (finished, clock.has_limit, interim.n_written > 0))])
    queue.deadline = clock.end
    result = run(queue, executor, "submission")["submission"]
    if result.reason == "time":  # without a report, which has what is left out
        left_out = filter(None, [describe_left_out(finished.left_out)])
        return [*left_out, *_take_latest(finished, interim, clock.seconds)], False
    if result.status == "failed":  # it fails here too, with its traceback, or the worker was killed
        result = _submit(finished, clock.has_limit, True)
    return list(result.lines), True


def _submit(finished: Run, has_limit: bool, has_interim: bool) -> JobResult:
    """Build the files and the report of a run, and before them those that take its place if the time is over."""
    if has_limit and not finished.is_built:
        if not has_interim:
            build_mean(finished)
        if finished.config.submissions.stack:
            build_submission(finished, interim=True)
    lines = build_submission(finished)
    if not has_limit:  # else it was compared while stages were trained, if there was time
        compare_tables(finished.config, finished.paths)
    return JobResult("submission", lines=(*lines, describe_seconds(finished), report(finished)))


def build_mean(finished: Run) -> None:
    """Build an interim submission that tunes nothing: the mean of the stages."""
    settings = finished.config.submissions.model_copy(update={"default": MEAN, "candidates": []})
    config = finished.config.model_copy(update={"submissions": settings})
    build_submission(replace(finished, config=config, made_from=MEAN), interim=True)


def _take_latest(finished: Run, interim: InterimSubmissions, seconds: float) -> list[str]:
    """Make the latest submission of finished stages the last one if that was not built in time; return what
    to print.

    If there is none, the mean of the stages is built, a little after the time.
    """
    paths = finished.paths
    over = f"the time of {format_duration(seconds)} was over before"
    if finished.is_built:
        return [f"{over} the report was written. {display_path(paths.submission)}"]
    so_far = paths.run(SO_FAR)
    stored: dict[str, Any] = read_manifest(so_far) if so_far.exists() else {"run": ""}
    if not interim.n_written and stored["run"] != finished.name:
        build_mean(finished)
        stored = read_manifest(so_far)
    folder = paths.run(stored["run"])
    shutil.rmtree(folder, ignore_errors=True)
    so_far.rename(folder)
    write_atomically(paths.latest_run, f"{folder.name}\n")
    write_atomically(paths.submission, (folder / SUBMISSION_FILE).read_bytes())
    stages = ", ".join(stage["name"] for stage in stored["stages"])
    return [
        f"{over} the last submission was built. {display_path(paths.submission)} is the candidate "
        f"{stored[CHOICE]['chosen']} of {stages}, without a report"
    ]


def submit_finished_folds(config: Config, plan: JobPlan, left_out: list[LeftOut]) -> list[str]:
    """Submit the mean of the models of the finished folds of one stage, if no stage has all; return what to print.

    It is the stage and seed with the most finished folds. There is no run, and no report.

    Raises:
        NothingToSubmit: if no fold is finished.
    """
    competition = config.competition
    folds_of: dict[tuple[str, int], list[Job]] = {}
    for job in plan.jobs:
        if job.fold != REFIT_FOLD and job.has_predicted(plan.test_key):
            folds_of.setdefault((job.stage, job.seed), []).append(job)
    table = describe_left_out(left_out)
    if not folds_of:
        raise NothingToSubmit(f"no stage has finished.\n{table}")
    jobs = max(folds_of.values(), key=len)
    task, metric, paths = build_task(competition), build_metric(competition), plan.paths
    train = read_table(paths.train).set_index(competition.id, drop=False)
    folds = read_folds(paths.folds, list(train.index))
    held_out = train.iloc[:0]
    predicted = []
    for job in jobs:
        rows = train[folds == job.fold]
        predicted.append(read_predictions(job.oof_file, list(rows.index), task.outputs))
        held_out = pd.concat([held_out, rows])
    y = held_out[task.targets].to_numpy()
    y_pred = np.concatenate(predicted)
    raw_rows = raw_rows_for(metric, competition.train, competition.id, list(held_out.index))
    decision = fit_decision(metric, task, y, y_pred, raw_rows) if task.scores_labels else None
    test_ids = list(read_table(paths.test)[competition.id])
    test = apply_decision(decision, mean_test(jobs, plan.test_key, test_ids, task.outputs))
    sample = read_table(paths.sample)
    write_submission(paths.submission, sample, competition.id, task, test_ids, test, label_means(task, train))
    score = format_number(metric(y, apply_decision(decision, y_pred), raw_rows))
    stage, n_folds = jobs[0].stage, ", ".join(str(job.fold) for job in jobs)
    return [
        table,
        f"WARNING: no stage has finished. {display_path(paths.submission)} is the mean of {len(jobs)} of "
        f"{plan.n_folds} models of {stage} (fold {n_folds}), without a blend and a report. Their {metric.name} is "
        f"{score} on the {len(y)} of {len(train)} training rows that they held out.",
    ]


def describe_seconds(finished: Run) -> str:
    """Return how the seconds of the workers were spent."""
    seconds = dict(finished.worker_seconds)
    total = seconds.pop(ALL_SECONDS)
    used = set()
    for weights in finished.weights.values():
        used |= {column.partition(":")[0] for column, weight in weights.items() if abs(weight) >= MIN_WEIGHT}
    stages = {*finished.config.stages, *(each.stage for each in finished.left_out)}
    others = sum(spent for group, spent in seconds.items() if group in stages and group not in used)
    submissions = seconds.pop(SUBMISSIONS, 0.0)
    well_spent = sum(seconds.values()) - others
    parts = {
        f"for stages with a weight of at least {MIN_WEIGHT} and for inputs": well_spent,
        "for other stages": others,
        "for interim submissions and the comparison of tables": submissions,
    }
    parts["idle or for the last submission and the report"] = max(0.0, total - sum(parts.values()))
    return (
        "Time of the workers: "
        + ", ".join(f"{part / total:.0%} {name}" for name, part in parts.items())
        + "."
    )
