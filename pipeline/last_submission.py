"""Submissions in time: of the stages that are finished while others train, and the last one with the report.

The first ones are in submissions/so_far/. The last one and the report are built in a worker, and are ready
when the time of the command is over. With a budget the mean of the stages comes first, and then the blend with
its report but without the LightGBM stack, which takes most of the time. If the last submission is not ready by
then, the latest of these takes its place. If no stage is finished, the mean of the models of the finished folds
of one stage does.
"""

import math
import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from competition.dataset import REFIT_FOLD
from core.errors import NothingToSubmit
from core.files import read_json, read_table, write_atomically
from core.paths import display_path
from core.text import format_duration, format_number
from folds import compare
from folds.comparison import read_comparison
from models.jobs.budget import Budget
from models.jobs.budget_stages import Clock
from models.jobs.plan import REPORT, Job, JobPlan
from models.jobs.predictions import mean_test, read_predictions
from models.jobs.scheduler import Executor, JobResult, Queue, Task, run
from submissions.blend.decision_rules import apply_decision
from submissions.blend.selection import MEAN, decision_of
from submissions.build import build_submission
from submissions.columns import label_means, training_labels
from submissions.config import Config
from submissions.report.report import SUMMARY, report
from submissions.run import (
    CHOICE,
    SO_FAR,
    SUBMISSION_FILE,
    LeftOut,
    Run,
    describe_left_out,
    finished_part,
    name_of_latest,
    open_run,
    read_manifest,
)
from submissions.shift import cached_descriptors, measure_error_ratio
from submissions.submission_file import write_submission

SUBMISSIONS = "submissions"
"""Group of the tasks."""
COMPARISON = "comparison of training and test rows"
SHARE_OF_TIME = 0.1
"""Maximum share of the time that interim submissions take on one core."""
DESCRIPTORS = ("descriptors", "maplight")
"""Features of a stage that descriptors are among."""
SHARE_OF_FOLD = 0.05
"""Share of a budget, or of the time of all jobs, that one more fold may take to see what a shift does to the error."""
MIN_SECONDS = 60.0
"""Seconds that this fold may take in any case without a budget."""
FIRST_SECONDS = 6.0
"""Assumed seconds of the first interim submission."""
MIN_LEFT_TO_COMPARE = 60.0
"""Seconds that must be left for the comparison of the tables, which takes about ten on one core."""


class InterimSubmissions:
    """Makes tasks between jobs: submissions of the finished stages and, once under a budget, the comparison of tables.

    With a budget the first submission starts immediately, whatever its share of the time.
    """

    def __init__(self, config: Config, budget: Budget) -> None:
        self.config = config
        self.budget = budget
        has_limit = budget.clock.has_limit
        self.has_written = False
        self.is_pending = False
        self.is_compared = not has_limit  # then it is done before the report
        self.seconds = FIRST_SECONDS
        self.last_end = -math.inf if has_limit else time.monotonic()

    def next_task(self) -> Task | None:
        """Return a task; None while one is pending, or if it would take more than its share of the time."""
        clock = self.budget.clock
        has_time = clock.end - time.monotonic() > MIN_LEFT_TO_COMPARE
        if self.has_written and not self.is_compared and has_time and self.has_descriptors:
            self.is_compared = True
            arguments = (self.config, self.budget.current_plan, SHARE_OF_FOLD * clock.seconds)
            return Task(COMPARISON, compare_tables, arguments, group=SUBMISSIONS, skips_group=False)
        waited = time.monotonic() - self.last_end
        if self.is_pending or waited < self.seconds / SHARE_OF_TIME:
            return None
        self.is_pending = True
        return Task(
            "interim submission",
            submit_finished,
            (self.config, self.budget.current_plan),
            group=SUBMISSIONS,
            skips_group=False,
            on_end=self._on_end,
        )

    @property
    def has_descriptors(self) -> bool:
        """Whether descriptors, which the comparison reads, are in the cache, or no stage computes them."""
        plan = self.budget.current_plan
        readers = [
            name for name, stage in plan.stages.items() if {*stage.molecule_feature_names} & {*DESCRIPTORS}
        ]
        return not readers or any(job.finished for job in plan.jobs if job.stage in readers)

    def _on_end(self, result: JobResult) -> None:
        self.is_pending = False
        self.seconds = max(result.seconds, 1.0)
        self.last_end = time.monotonic()
        if result.status == "ok":
            self.has_written = True
            print(result.lines[0])
        elif result.status == "failed":
            print(f"no submission of the finished stages yet: {result.error}")
        self.budget.submission_seconds = self.seconds if self.has_written else 0.0


def submit_finished(config: Config, plan: JobPlan) -> JobResult:
    """Build the submission of the finished stages and seeds, in a worker."""
    plan = finished_part(plan)
    build_so_far(open_run(config, plan))
    file = display_path(plan.paths.run(SO_FAR) / SUBMISSION_FILE)
    line = f"submission of {', '.join(plan.stages)}: {file}"
    return JobResult("submission", lines=(line,))


def compare_tables(config: Config, plan: JobPlan, seconds: float) -> None:
    """Compare test and training rows, in a worker, if they were not compared before.

    An error is printed, since it must not end a run.

    Args:
        seconds: longest time of a fold of the stage whose error on rows like test rows is measured.
    """
    try:
        comparison = read_comparison(plan.paths)
        if comparison is None:
            describe = partial(cached_descriptors, plan.paths.cache)
            _, comparison = compare.compare_tables(config.competition, config.folds, describe, quick=True)
        measure_error_ratio(config, plan, comparison, seconds)
    except Exception as error:
        print(f"test and training rows were not compared ({type(error).__name__}: {error})", flush=True)


def seconds_without_budget(plan: JobPlan) -> float:
    """Return the longest time of a fold of the stage of `compare_tables` that is short beside all jobs."""
    seconds = [read_json(job.folder / REPORT)["seconds"] for job in plan.jobs]
    return max(MIN_SECONDS, SHARE_OF_FOLD * sum(seconds))


def submit_until(clock: Clock, finished: Run, executor: Executor, has_interim: bool) -> tuple[list[str], int]:
    """Build the files and the report of a run; return lines to print, and the exit status.

    Args:
        has_interim: whether there is an interim submission.
    """
    if name_of_latest(finished.paths) != finished.name:
        shutil.rmtree(finished.paths.report, ignore_errors=True)  # of another run
    queue = Queue([Task("submission", _submit, (finished, has_interim))])
    queue.deadline = clock.end
    result = run(queue, executor, "submission")["submission"]
    if result.reason == "time":
        return take_latest(finished, has_interim)
    if result.status == "failed":  # it fails here too, with its traceback, or the worker was killed
        result = _submit(finished, True)
    return list(result.lines), finished.exit_status


def _submit(finished: Run, has_interim: bool) -> JobResult:
    """Build the files and the report of a run, and before them those that take its place if the time is over."""
    if finished.budget is not None and not finished.is_built:
        if not has_interim:
            build_mean(finished)
        if finished.config.submissions.stack:
            build_submission(finished, quick=True)
            report(finished)
    if finished.budget is None:  # else it was compared while stages were trained, if there was time
        compare_tables(finished.config, finished.plan, seconds_without_budget(finished.plan))
    lines = build_submission(finished)
    return JobResult("submission", lines=(*lines, report(finished)))


def build_so_far(finished: Run) -> None:
    """Build an interim submission."""
    build_submission(replace(finished, folder=finished.paths.run(SO_FAR)), quick=True)


def build_mean(finished: Run) -> None:
    """Build an interim submission that tunes nothing: the mean of the stages."""
    settings = finished.config.submissions.model_copy(update={"default": MEAN, "candidates": []})
    config = finished.config.model_copy(update={"submissions": settings})
    build_so_far(replace(finished, config=config, made_from=MEAN))


def take_latest(finished: Run, has_interim: bool) -> tuple[list[str], int]:
    """Make the latest submission of finished stages the last one, which was not built in time.

    If there is none, the mean of the stages is built, a little after the time.

    Returns:
        Lines to print, and the exit status: 3 without a report.
    """
    paths = finished.paths
    over = f"the {format_duration(finished.budget or 0.0)} budget ran out before"
    left_out = list(filter(None, [describe_left_out(finished.left_out)]))
    if finished.is_built or finished.without_stack.is_built:
        if report_file(finished).exists():
            return [report_file(finished).read_text(encoding="utf-8")], finished.exit_status
        return [*left_out, f"{over} the report was written. {display_path(paths.submission)}"], 3
    so_far = paths.run(SO_FAR)
    is_of_this_run = so_far.exists() and read_manifest(so_far)["run"] == finished.name
    if not has_interim and not is_of_this_run:
        build_mean(finished)
    stored = read_manifest(so_far)
    folder = paths.run(stored["run"])
    shutil.rmtree(folder, ignore_errors=True)
    so_far.rename(folder)
    write_atomically(paths.latest_run, f"{folder.name}\n")
    write_atomically(paths.submission, (folder / SUBMISSION_FILE).read_bytes())
    stages = ", ".join(stage["name"] for stage in stored["stages"])
    line = (
        f"{over} the last submission was built. {display_path(paths.submission)} is the candidate "
        f"{stored[CHOICE]['chosen']} of {stages}, without a report"
    )
    return [*left_out, line], 3


def report_file(finished: Run) -> Path:
    """Return report.md, which is there if it was written for this run."""
    return finished.paths.report / SUMMARY


def submit_finished_folds(config: Config, plan: JobPlan, left_out: list[LeftOut]) -> tuple[str, str]:
    """Submit the mean of the models of the finished folds of one stage, if no stage has all.

    It is the stage and seed with the most finished folds. There is no run, and no report. Returns a table of what
    is left out, and a warning with the score.

    Raises:
        NothingToSubmit: if no fold is finished.
    """
    jobs_of_seed: dict[Path, list[Job]] = {}
    for job in plan.jobs:
        if job.fold != REFIT_FOLD and job.has_predicted(plan.test_key):
            jobs_of_seed.setdefault(job.folder.parent, []).append(job)
    table = describe_left_out(left_out)
    if not jobs_of_seed:
        raise NothingToSubmit(table)
    jobs = max(jobs_of_seed.values(), key=len)
    paths, id_column = plan.paths, config.competition.id
    shutil.rmtree(paths.report, ignore_errors=True)  # of an earlier run
    labels = training_labels(config.competition, paths)
    task = labels.task
    y_pred = np.full((len(labels.ids), len(task.outputs)), np.nan)
    for job in jobs:
        rows = np.flatnonzero(labels.folds == job.fold)
        y_pred[rows] = read_predictions(job.oof_file, [labels.ids[row] for row in rows], task.outputs)
    held_out = labels.on_rows_of(y_pred)
    decision = decision_of(held_out, y_pred, held_out.has_fold) if task.scores_labels else None
    test_ids = list(read_table(paths.test)[id_column])
    test = apply_decision(decision, mean_test(jobs, plan.test_key, test_ids, task.outputs))
    means = label_means(task, read_table(paths.train))
    write_submission(paths.submission, read_table(paths.sample), id_column, task, test_ids, test, means)
    score = format_number(held_out.score(apply_decision(decision, y_pred)))
    folds = ", ".join(str(job.fold) for job in jobs)
    return (
        table,
        f"WARNING: no stage has finished. {display_path(paths.submission)} is the mean of {len(jobs)} of "
        f"{plan.n_folds} models of {jobs[0].stage} (fold {folds}), without a blend and a report. Their "
        f"{labels.metric.name} is {score} on the {held_out.has_fold.sum()} of {len(labels.ids)} training rows that "
        "they held out.",
    )
