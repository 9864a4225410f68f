"""Submissions in time: of the stages that are finished while others train, and the last one with the report.

The first ones are in submissions/so_far/. The last one is built in a worker, with its report, and is ready
when the time of the command is over. With a budget its levels (`submissions/levels.py`) are built one after
the other, and what is there by then is submitted.
"""

import math
import time
from dataclasses import replace
from functools import partial

from competition.dataset import read_prepared
from core.files import read_json
from core.paths import display_path
from core.text import format_duration
from folds import compare
from folds.comparison import read_comparison
from models.job_folder import REPORT
from models.jobs.budget import Budget
from models.jobs.budget_stages import Clock
from models.jobs.plan import JobPlan
from models.jobs.scheduler import Executor, JobResult, Queue, Task, exit_status, run
from submissions.build import build
from submissions.config import Config
from submissions.levels import Level
from submissions.manifest import MANIFEST, SO_FAR, describe_left_out
from submissions.report.report import SUMMARY, report
from submissions.run import (
    Run,
    finished_part,
    name_of_latest,
    open_run,
    stored_run,
)
from submissions.shift import cached_descriptors, measure_error_ratio

NOT_BUILT = "WARNING: the last submission was not built"
SUBMISSIONS = "submissions"
"""Group of the tasks that build one."""
COMPARISON = "comparison of training and test rows"
SHARE_OF_TIME = 0.1
"""Maximum share of the time that interim submissions take on one core."""
DESCRIPTORS = ("descriptors", "maplight")
"""Features of a stage that descriptors are among."""
SHARE_OF_FOLD = 0.05
"""Share of a budget, or of the time of all jobs, that a fold may take to measure the effect of a shift."""
MIN_SECONDS = 60.0
"""Seconds that this fold may take in any case without a budget."""
FIRST_SECONDS = 6.0
"""Assumed seconds of the first interim submission."""
MIN_LEFT_TO_COMPARE = 60.0
"""Seconds that must be left for the comparison of the tables, which takes about ten on one core."""
SECONDS_PER_MOLECULE = 0.02
"""Seconds in which the descriptors of a molecule are computed on one core."""


class InterimSubmissions:
    """Makes tasks between jobs: submissions of the finished stages, and the comparison of the tables.

    The tables are compared once, and only under a budget. With a budget the first submission starts
    immediately, whatever its share of the time.
    """

    def __init__(self, config: Config, budget: Budget) -> None:
        self.config = config
        self.budget = budget
        has_limit = budget.clock.has_limit
        self.has_written = False
        self.is_pending = False
        self.is_compared = not has_limit  # then it is done before the report
        self.seconds = FIRST_SECONDS
        self.asked = 0.0
        self.last_end = -math.inf if has_limit else time.monotonic()

    def next_task(self) -> Task | None:
        """Return a task; None while one is pending, or if it would take more than its share of the time."""
        clock = self.budget.clock
        has_time = clock.end - time.monotonic() > MIN_LEFT_TO_COMPARE
        if self.has_written and not self.is_compared and has_time and self.has_descriptors:
            self.is_compared = True
            arguments = (self.config, self.budget.current_plan, SHARE_OF_FOLD * clock.seconds)
            return Task(COMPARISON, compare_tables_in_worker, arguments, group=COMPARISON, is_retried=False)
        waited = time.monotonic() - self.last_end
        if self.is_pending or waited < self.seconds / SHARE_OF_TIME:
            return None
        self.is_pending = True
        self.asked = time.monotonic()
        # The first one soon, whatever the metric takes.
        level = Level.BLEND if self.has_written else Level.MEAN
        return Task(
            "interim submission",
            submit_finished,
            (self.config, self.budget.current_plan, level),
            group=SUBMISSIONS,
            is_retried=False,  # it would wait for all jobs, and no other one would be made
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
        self.last_end = time.monotonic()
        self.seconds = max(result.seconds or self.last_end - self.asked, 1.0)  # 0 if its worker was killed
        if result.status == "ok":
            self.has_written = True
            self.budget.submission_seconds = self.seconds
            print(result.lines[0])
        elif result.status == "failed":
            which = "newer submission" if self.has_written else "submission"
            print(f"no {which} of the finished stages yet: {result.error}")


def submit_finished(config: Config, plan: JobPlan, level: Level) -> JobResult:
    """Build the submission of the finished stages and seeds with its report, in a worker."""
    finished = open_run(config, finished_part(plan))
    finished = replace(finished, folder=plan.paths.run(SO_FAR))
    build(finished, level)
    if finished.is_latest:
        report(finished)
    stages = ", ".join(finished.config.stages)
    expected = f"expect {finished.metric.name} {finished.choice.expected.text}"
    return JobResult(
        "submission", lines=(f"submission of {stages}, {expected}: {display_path(finished.submission)}",)
    )


def compare_tables_in_worker(config: Config, plan: JobPlan, seconds: float) -> None:
    """Compare test and training rows, in a worker, if there are test rows and they were not compared before.

    An error is printed, since it must not end a run.

    Args:
        seconds: longest time of a fold of the stage that measures the error on rows like test rows.
    """
    if not config.competition.has_test_table:
        return
    try:
        comparison = read_comparison(plan.paths)
        if comparison is None:
            compute_descriptors = partial(cached_descriptors, plan.paths.cache)
            _, comparison = compare.compare_tables(
                config.competition, config.folds, compute_descriptors, quick=True
            )
        measure_error_ratio(config, plan, comparison, seconds)
    except Exception as error:
        print(f"test and training rows were not compared ({type(error).__name__}: {error})", flush=True)


def seconds_to_compare(run: Run) -> float:
    """Return the seconds that must be left for the comparison of the tables if nothing is computed yet."""
    n_rows = sum(len(read_prepared(path)) for path in (run.paths.train, run.paths.test))
    return MIN_LEFT_TO_COMPARE + SECONDS_PER_MOLECULE * n_rows * len(run.config.competition.smiles)


def longest_fold_seconds(plan: JobPlan) -> float:
    """Return the longest time of a fold of the stage that measures a shift: a small share of all jobs."""
    seconds = [read_json(job.folder / REPORT)["seconds"] for job in plan.jobs]
    return max(MIN_SECONDS, SHARE_OF_FOLD * sum(seconds))


def submit_until(clock: Clock, finished: Run, executor: Executor, has_interim: bool) -> tuple[list[str], int]:
    """Build the files and the report of a run; return lines to print, and the exit status.

    Args:
        has_interim: whether there is an interim submission.
    """
    queue = Queue([Task("submission", _submit, (finished, has_interim, clock))])
    queue.deadline = clock.end
    result = run(queue, executor)["submission"]
    if result.reason == "time":
        return take_latest(finished, has_interim)
    # A metric of the user's may fail with predictions that are not near the labels.
    is_of_user = finished.metric.table_score is not None and result.error.startswith("ConfigError")
    if is_of_user or (result.reason == "killed" and clock.has_limit):
        lines, _ = take_latest(finished, has_interim, f"{NOT_BUILT}: {result.error}")
        return lines, exit_status({"submission": result})
    if result.status == "failed":  # it fails here too, with its traceback
        result = _submit(finished, True, clock)
    return list(result.lines), finished.exit_status


def levels_of(finished: Run, has_interim: bool) -> list[Level]:
    """Return the levels of a run to build one after the other; time may end after any of them."""
    if not finished.has_all_folds:
        return [Level.FOLDS]
    if finished.budget is None:
        return [Level.FULL]
    first = [] if has_interim else [Level.MEAN]
    if finished.config.submissions.stack:
        first.append(Level.BLEND)
    built = finished.built
    return [*(level for level in first if not (built and built.level.includes(level))), Level.FULL]


def _submit(finished: Run, has_interim: bool, clock: Clock) -> JobResult:
    """Build the levels of a run, each with its report, if it is the latest submission.

    Before the last one the tables are compared, if that was not done while stages were trained and there is
    time.
    """
    finished = replace(finished, clock=clock)
    levels = levels_of(finished, has_interim)
    for level in levels:
        left = clock.end - time.monotonic()
        if level is levels[-1] and left > seconds_to_compare(finished):
            longest_fold = min(longest_fold_seconds(finished.plan), SHARE_OF_FOLD * left)
            compare_tables_in_worker(finished.config, finished.plan, longest_fold)
        lines = build(finished, level)
        lines.append(report(finished) if finished.is_latest else describe_left_out(finished.left_out))
    return JobResult("submission", lines=tuple(lines))


def take_latest(finished: Run, has_interim: bool, failure: str = "") -> tuple[list[str], int]:
    """Return lines to print, and the exit status, of a run without the time to build its last level.

    The latest submission of the run is reported. Without one, its first level is built, a little after
    the time and without a metric of the user's.

    Args:
        failure: why the last level was not built, if it is not the time.
    """
    finished = replace(finished, is_late=True)
    if finished.built is None and not has_interim:
        build(finished, levels_of(finished, False)[0])
    run = replace(submitted_run(finished), is_late=True)
    lines = [failure] if failure else []
    if finished.built is None:
        budget = format_duration(finished.budget or 0.0)
        reason = failure or f"the {budget} budget ran out before the last submission was built"
        lines = [
            *filter(None, [describe_left_out(finished.left_out)]),
            f"{reason}; the one before is of {', '.join(run.config.stages)}",
        ]
    if has_report(run):
        lines.append((run.paths.report / SUMMARY).read_text(encoding="utf-8"))
    elif run.is_latest:
        lines.append(report(run))
    else:
        score = f"expect {run.metric.name} {run.choice.expected.text}"
        still = f"{display_path(run.paths.submission)} is still of run {name_of_latest(run.paths)}"
        lines.append(f"{display_path(run.submission)} is the candidate {run.chosen}: {score}; {still}")
    return lines, replace(run, left_out=finished.left_out).exit_status


def submitted_run(finished: Run) -> Run:
    """Return a run if it was built, else its interim submission."""
    return finished if finished.built else stored_run(finished.paths, SO_FAR)


def has_report(run: Run) -> bool:
    """Return whether a run is the latest submission and has the report of its present level."""
    file = run.paths.report / SUMMARY
    return (
        run.is_latest
        and file.exists()
        and file.stat().st_mtime_ns >= (run.folder / MANIFEST).stat().st_mtime_ns
    )
