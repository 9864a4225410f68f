"""Training and the submission in a given time: `./run.sh full --budget 2h`.

The time counts from the start of the command to the report. The last submission is built in a worker until
the end of the time, first without the LightGBM stack, which takes most of it; if it is not ready by then, the
latest submission of finished stages takes its place.
"""

import os
import shutil
import time
from argparse import Namespace
from dataclasses import replace
from typing import Any

from core import cli
from core.errors import ConfigError, NothingToSubmit
from core.files import write_atomically
from core.paths import Paths, display_path
from core.text import format_duration
from folds import diagnose
from models.inputs.features import molecule_features
from models.jobs.budget import Budget
from models.jobs.budget_stages import EARLY_SHARE, StageConfigs
from models.jobs.plan import JobPlan, make_plan
from models.jobs.scheduler import Executor, JobResult, Queue, Task, run
from models.jobs.train import failure_policy
from submissions.build_submission import build_submission
from submissions.config import Config
from submissions.interim import SUBMISSIONS, InterimSubmissions
from submissions.left_out import EPOCHS, TIME, LeftOut, describe_left_out, left_out_of
from submissions.report.__main__ import report
from submissions.run import ALL_SECONDS, SO_FAR, SUBMISSION_FILE, Run, finished_part, open_run, read_manifest

MIN_EARLY = 2.0
MAX_EARLY = 5.0
"""Minimum and maximum seconds by which the command ends early."""
NO_LABELS = "its pseudo-labels change with each seed of other stages, so a budget does not train it"
FEWER_EPOCHS = "trained for {}, since all of them did not fit into the budget"
NO_TIME = (
    "No time for training: what comes before it took all of the budget but the share that is kept for the submission. "
    "Repeat the command, since what is prepared is kept, or enlarge the budget."
)
COMPARISON = "comparison of training and test rows"
MIN_LEFT_TO_COMPARE = 60.0
"""Seconds that must be left for the comparison, which takes about ten on one core."""
MIN_WEIGHT = 0.02
"""Weight of a stage from which its jobs count as useful."""


def command_start() -> float:
    """Return time.monotonic() when the command started, before run.sh installed anything."""
    return time.monotonic() - (time.time() - float(os.environ.get("RUN_STARTED") or time.time()))


def full_in_time(
    options: Namespace, config: Config, paths: Paths, all_jobs: JobPlan, executor: Executor, started: float
) -> int:
    """Train what fits into `options.budget` and build its submission and report; return the exit status.

    Args:
        all_jobs: the jobs of all stages with all epochs and all seeds that they may get.
        started: time.monotonic() from which the time counts.
    """
    if not all_jobs.stages:
        raise ConfigError(
            "A budget trains no stages with pseudo_labels, and all have some. Use --budget none."
        )
    seconds = options.budget
    end = started + seconds - min(MAX_EARLY, max(MIN_EARLY, EARLY_SHARE * seconds))

    def plan_of(stages: StageConfigs) -> JobPlan:
        return make_plan(config.competition, stages, paths, options.reuse)

    budget = Budget(all_jobs, plan_of, executor, seconds, end, paths.budget(seconds))

    def current() -> tuple[Config, JobPlan]:
        jobs = budget.current_plan
        return config.model_copy(update={"stages": jobs.stages}), jobs

    interim = InterimSubmissions(current, first_at_once=True)
    is_compared = False

    def next_submission() -> Task | None:
        """Return a submission of what is finished; after the first one, once, the comparison for the report."""
        nonlocal is_compared
        budget.submission_seconds = interim.seconds if interim.n_written else 0.0
        if interim.n_written and not is_compared and end - time.monotonic() > MIN_LEFT_TO_COMPARE:
            is_compared = True
            return Task(COMPARISON, compare_tables, (config, paths), group=SUBMISSIONS, skips_group=False)
        return interim.next_task()

    if budget.training_deadline <= time.monotonic():
        print(NO_TIME, flush=True)
    results = budget.train(failure_policy(options), next_submission)
    if options.fail_fast and budget.failed_stages:
        print("stopped at the first failure (--fail-fast); finished jobs are kept")
        return 1
    left_out = out_of_time(budget, config, all_jobs)
    config, jobs = current()
    left_out += left_out_of(jobs, results)
    core_seconds = (time.monotonic() - started) * executor.capacity().cpus
    config, jobs = finished_part(config, jobs)
    left_out += fewer_epochs(budget, config)
    with cli.locked(paths, wait=True):
        finished = open_run(config, jobs, left_out)
        worker_seconds = {**budget.queue.seconds, ALL_SECONDS: core_seconds}
        finished = replace(finished, worker_seconds=worker_seconds, budget=seconds)
        result = _submit_until(end, finished, executor)
        if result.status == "failed":
            result = _submit(finished)  # it fails here too, with its traceback, or the worker was killed
        lines = list(result.lines)
        if result.reason == "time":  # without a report, which has what is left out
            lines = [*filter(None, [describe_left_out(left_out)]), *_take_latest(finished, interim, seconds)]
    print("\n".join(lines))
    return 3 if result.reason == "time" else finished.exit_status


def compare_tables(config: Config, paths: Paths) -> JobResult:
    """Compare training and test rows for the report, unless that is done."""
    descriptors = molecule_features(["descriptors"], 0, paths.cache)[0]
    diagnose.update(config.competition, config.folds, paths, descriptors.load)
    return JobResult(COMPARISON)


def out_of_time(budget: Budget, config: Config, all_jobs: JobPlan) -> list[LeftOut]:
    """Return a row for each stage or seed that a budget does not train."""
    left_out = [LeftOut(stage, seed, TIME, reason) for stage, seed, reason in budget.left_out]
    without_labels = [name for name in config.stages if name not in all_jobs.stages]
    return [*left_out, *(LeftOut(name, None, TIME, NO_LABELS) for name in without_labels)]


def fewer_epochs(budget: Budget, config: Config) -> list[LeftOut]:
    """Return a row for each finished network that has fewer epochs than the YAML says."""
    shortened = [state for state in budget.states.values() if state.share < 1 and state.name in config.stages]
    return [LeftOut(state.name, None, EPOCHS, FEWER_EPOCHS.format(state.epochs)) for state in shortened]


def _submit_until(end: float, finished: Run, executor: Executor) -> JobResult:
    """Build the files and the report of a run in a worker, until a moment of time.monotonic()."""
    queue = Queue([Task("submission", _submit, (finished,))])
    queue.deadline = end
    return run(queue, executor, "submission")["submission"]


def _submit(finished: Run) -> JobResult:
    """Build the files and the report of a run, and before them those that take its place if the time is over."""
    if finished.config.submissions.stack and not finished.is_built:
        build_submission(finished, interim=True)
    lines = [*build_submission(finished).lines, describe_seconds(finished), report(finished)]
    return JobResult("submission", lines=tuple(lines))


def _take_latest(finished: Run, interim: InterimSubmissions, seconds: float) -> list[str]:
    """Make the latest submission of finished stages the last one if that was not built in time; return what
    to print.

    Raises:
        NothingToSubmit: if there is none.
    """
    paths = finished.paths
    over = f"the time of {format_duration(seconds)} was over before"
    if finished.is_built:
        return [f"{over} the report was written. {display_path(paths.submission)}"]
    so_far = paths.run(SO_FAR)
    stored: dict[str, Any] = read_manifest(so_far) if so_far.exists() else {"run": ""}
    if not interim.n_written and stored["run"] != finished.name:
        raise NothingToSubmit(
            f"{over} a submission was built. Finished jobs are kept: run the same command again."
        )
    folder = paths.run(stored["run"])
    shutil.rmtree(folder, ignore_errors=True)
    so_far.rename(folder)
    write_atomically(paths.latest_run, f"{folder.name}\n")
    write_atomically(paths.submission, (folder / SUBMISSION_FILE).read_bytes())
    stages = ", ".join(stage["name"] for stage in stored["stages"])
    return [
        f"{over} the last submission was built. {display_path(paths.submission)} is that of {stages}, "
        f"without a report"
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
