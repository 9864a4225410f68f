"""Train every job that is not finished: `./run.sh train [COMPETITION] [--stage S] [--fold K]`.

A job is one (stage, seed, fold), or a seed's refit on all rows, which starts when its folds are finished.
With --shard I/N, this machine has every N-th job, and other machines have the others.

Reads: prepared/train.parquet and test.parquet, folds/folds.csv. Writes: a folder per job: weights,
out-of-fold and test predictions, and report.json last. Finished jobs are skipped. A job that fails ends no
other stage; the next run tries it again, last. Exit status 3 if a job failed.
"""

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from competition.config import load_competition
from competition.dataset import Dataset, read_rows
from core import cli
from core.errors import ConfigError, DataError
from core.paths import display_path
from folds import make
from models.config import load_stages
from models.jobs.cache_jobs import cache_tasks
from models.jobs.cluster import make_executor
from models.jobs.compute import read_tables
from models.jobs.job_files import attempt_folder, read_failure, recorded_failure, verify_job, write_failure
from models.jobs.pace import Forecast
from models.jobs.plan import Job, JobPlan, describe_retraining, key_of_test_table, make_plan
from models.jobs.progress import describe_loss
from models.jobs.resume import resume
from models.jobs.run_job import run_job
from models.jobs.scheduler import Executor, JobResult, Queue, Resources, Task, run

USABLE_MEMORY = 0.8
"""Share of a card's memory that jobs may fill together, since each has a context of CUDA and fragments."""
DRIVER_FAILURES = ("killed", "timeout")
"""Reasons of a worker that could not write them itself."""


@dataclass(frozen=True)
class FailurePolicy:
    """What a run does about jobs that fail: the options of the command line.

    Attributes:
        fail_fast: end the run at the first failure.
        skip_failed: leave out jobs that failed in an earlier run.
        job_timeout: seconds after which a running job fails.
    """

    fail_fast: bool = False
    skip_failed: bool = False
    job_timeout: float = math.inf


def train(
    plan: JobPlan,
    executor: Executor,
    policy: FailurePolicy = FailurePolicy(),
    on_seed: Callable[[], Task | None] = lambda: None,
    queue: Queue | None = None,
) -> dict[str, JobResult]:
    """Train the unfinished jobs, and predict the test table with finished jobs that have not predicted it.

    Args:
        on_seed: called each time when all jobs of a seed of a stage are finished; its task is the next to
        start.
        queue: an empty queue, whose attributes the caller reads after the run.

    Returns:
        Job title -> how it ended, of the jobs that were not finished before.

    Raises:
        DataError: if a finished job was changed, or jobs need other jobs that are not part of the plan.
        DiskFull: if a worker cannot write.
    """
    _verify_finished(plan)
    unfinished = [job for job in plan.jobs if not job.has_predicted(plan.test_key)]
    if not unfinished:
        return {}
    rows, test = read_tables(plan)
    queue = queue or Queue()
    queue.job_timeout = policy.job_timeout
    reporter = JobReporter(plan, executor)
    stages = dict.fromkeys(job.stage for job in unfinished)
    forecast = Forecast(queue, executor, stages, networks_of(plan.stages))
    forecast.paces.most_rows = {name: plan.largest_fold(name).n_rows for name in stages}
    queue.watch = forecast.update

    def on_end(job: Job, result: JobResult) -> None:
        reporter.on_end(job, result)
        if result.lines:  # it was trained, not only asked for predictions
            forecast.paces.add(job.stage, result, job.n_rows)
        if result.status == "failed" and policy.fail_fast:
            queue.stop("stopped by --fail-fast")
        if result.status == "ok" and queue.waiting and plan.has_finished_seed(job.stage, job.seed):
            task = on_seed()
            queue.waiting[:0] = [task] if task else []

    queue.waiting = job_tasks(plan, unfinished, [rows, test], executor, on_end)
    if policy.skip_failed:
        _skip_failed(queue, unfinished)
    results = run(queue, executor, "jobs")
    _explain_skipped(plan, unfinished, results)
    return {job.title: results[job.title] for job in unfinished}


def _verify_finished(plan: JobPlan) -> None:
    """Check the files of all finished jobs, and print their number per stage."""
    for stage_name in plan.stages:
        jobs = plan.jobs_of_stage(stage_name)
        finished = [job for job in jobs if job.finished]
        for job in finished:
            verify_job(job)
        if finished:
            mark = "; by other code, accepted with --reuse" if finished[0].from_other_code else ""
            print(f"stage {stage_name}  {len(finished)} of {len(jobs)} jobs are finished{mark}")


@dataclass
class JobReporter:
    """Prints a line per job that ended, and writes failures of workers that died.

    Attributes:
        executor: executor of the jobs. It detects its cards when the first job needs one.
        noted: stages whose notes were printed.
    """

    plan: JobPlan
    executor: Executor
    noted: set[str] = field(default_factory=set)

    def on_end(self, job: Job, result: JobResult) -> None:
        """Report one job: its score and seconds, and after the first job of a stage its notes; or why it
        failed.
        """
        if result.status == "ok" and result.lines:
            print(result.lines[0])
            if job.stage not in self.noted:
                self.noted.add(job.stage)
                for note in [*result.lines[1:], *self._describe_memory(job.stage, result.gpu_gib)]:
                    print(f"stage {job.stage}  {note}")
        elif result.status == "failed":
            if result.reason in DRIVER_FAILURES:
                loss = describe_loss(attempt_folder(job.folder))
                last = f"; last: {loss}" if loss else ""
                result = write_failure(job.folder, replace(result, error=result.error + last))
            print(describe_failure(job, result), flush=True)

    def _describe_memory(self, stage_name: str, gpu_gib: float) -> list[str]:
        """Return a note if more jobs of a stage would fit on a card than its setting `gpu` allows."""
        share = self.plan.stages[stage_name].gpu
        if not self.executor.cards or gpu_gib == 0 or share == 0:
            return []
        memory = min(card.memory_gib for card in self.executor.cards)
        n_jobs = max((n for n in (2, 4, 8) if n * gpu_gib < USABLE_MEMORY * memory), default=1)
        if n_jobs * share <= 1:
            return []
        return [
            f"used {gpu_gib:.1f} of {memory:.0f} GiB; gpu: {1 / n_jobs:g} trains {n_jobs} jobs at once on "
            f"a card"
        ]


def describe_failure(job: Job, result: JobResult) -> str:
    """Return one line about a failed job."""
    is_repeated = read_failure(job.folder).get("same_error_before")
    remark = ", the same error as in the previous run" if is_repeated else ""
    folder = attempt_folder(job.folder) if result.log is None else result.log
    return f"{result.name} failed ({result.reason}){remark}: {result.error}\n  {display_path(folder)}"


def _skip_failed(queue: Queue, jobs: list[Job]) -> None:
    """Leave out the jobs that failed in an earlier run, and with them the rest of their stages."""
    failures = {job.title: recorded_failure(job) for job in jobs if read_failure(job.folder)}
    for task in [task for task in queue.waiting if task.name in failures]:
        if task in queue.waiting:  # else it was skipped with its group
            print(
                f"{task.name} is left out (--skip-failed), since it failed before: "
                f"{failures[task.name].error}"
            )
            queue.record_earlier_failure(task, failures[task.name])


def _explain_skipped(plan: JobPlan, jobs: list[Job], results: dict[str, JobResult]) -> None:
    """Say which jobs were not run because others are not finished.

    Raises:
        DataError: if no job failed and all jobs are on this machine, so that the selection was too small.
    """
    waiting = [job for job in jobs if results[job.title].reason == "dependency"]
    if not waiting:
        return
    if plan.shard[1] > 1:
        print(
            f"{len(waiting)} jobs wait for jobs of other shards: train again when those are finished, or "
            f"run full"
        )
    elif not any(result.status == "failed" for result in results.values()):
        missing = set()
        for job in waiting:
            missing |= {need.stage for need in job.dependencies if not need.has_predicted(plan.test_key)}
        raise DataError(
            f"{len(waiting)} jobs need finished jobs of {', '.join(sorted(missing))}; run ./run.sh train with "
            "--stage for these first, or without --stage and --fold."
        )


def predict_jobs(plan: JobPlan, executor: Executor) -> str:
    """Predict a new test table with every finished job that has not predicted it yet; return the key of the
    table.

    Reads weights and `plan.paths.test`, no training table.

    Raises:
        DataError: if a job cannot predict it.
    """
    for job in plan.jobs:
        verify_job(job)
    plan = replace(plan, test_key=key_of_test_table(plan.paths))
    waiting = [job for job in plan.jobs if not job.has_predicted(plan.test_key)]
    external = sorted({job.stage for job in waiting if not plan.stages[job.stage].is_trained})
    if external:
        raise DataError(
            f"the stages {', '.join(external)} (kind: file) only have predictions for the competition's test "
            "rows. Run ./run.sh full without them, or with the new table as competition.test and its rows in "
            "their test.csv."
        )
    if waiting:
        rows = read_rows(plan.paths.test, plan.competition, labelled=False)
        run_all(job_tasks(plan, waiting, [rows], executor), executor, "predictions")
    return plan.test_key


def run_all(tasks: list[Task], executor: Executor, noun: str) -> None:
    """Run tasks that all have to succeed.

    Raises:
        DataError: with the error of the first one that failed; a part of a cache may fail.
    """
    required = [task.name for task in tasks if task.skips_group]
    results = run(Queue(tasks), executor, noun)
    for name in required:
        if results[name].status == "failed":
            raise DataError(f"{name} failed ({results[name].reason}): {results[name].error}")


def networks_of(stages: dict[str, Any]) -> set[str]:
    """Return the names of the stages that are networks."""
    return {name for name, stage in stages.items() if stage.reports_progress}


def threads_of(stage: Any, n_jobs: int, executor: Executor) -> int:
    """Return the cores of a job if `n_jobs` train in parallel: an equal share if the stage can use it."""
    return max(1, executor.max_threads // n_jobs) if stage.uses_several_cores else 1


def job_tasks(
    plan: JobPlan,
    jobs: list[Job],
    tables: list[Dataset],
    executor: Executor,
    on_end: Callable[[Job, JobResult], None] | None = None,
    planned: set[tuple[str, str]] | None = None,
) -> list[Task]:
    """Return the tasks that fill caches, stage by stage, and after them the jobs.

    Stages with a job that failed in an earlier run come last, and begin with that job.

    Args:
        tables: the tables of which the jobs read molecules and texts.
        on_end: called with each job that ended and its result.
        planned: cache folder and key of all entries that tasks compute; the entries of new tasks are added.
    """
    planned = set() if planned is None else planned
    cache_parts: list[Task] = []
    tasks: list[Task] = []
    payload = replace(plan, jobs=[])  # a worker needs only its job
    shard, n_shards = plan.shard
    for stage_name in dict.fromkeys(job.stage for job in jobs):
        stage = plan.stages[stage_name]
        stage_jobs = [job for job in jobs if job.stage == stage_name]
        threads = threads_of(stage, max(len(stage_jobs), plan.n_folds), executor)
        parts, cache_groups = cache_tasks(plan, stage_name, tables, planned)
        # Each shard starts at another part, and skips those that others have computed.
        first = len(parts) * (shard - 1) // n_shards
        cache_parts += parts[first:] + parts[:first]
        for job in stage_jobs:
            task = Task(
                name=job.title,
                function=run_job,
                arguments=(job, payload, threads),
                resources=Resources(threads, stage.gpu),
                group=stage_name,
                wait_for_groups=cache_groups,
                wait_for_files=()
                if job.finished
                else tuple(need.test_file(plan.test_key) for need in job.dependencies),
                folder=attempt_folder(job.folder),
                n_rows=job.n_rows,
                on_end=partial(on_end, job) if on_end is not None else None,
            )
            tasks.append(task)
    failed_jobs = {job.title for job in jobs if read_failure(job.folder)}
    failed_stages = {job.stage for job in jobs if job.title in failed_jobs}
    tasks.sort(key=lambda task: (task.group in failed_stages, task.name not in failed_jobs))
    return cache_parts + tasks


def failure_policy(args: Any) -> FailurePolicy:
    """Return the failure policy of a command line."""
    return FailurePolicy(args.fail_fast, args.skip_failed, args.job_timeout or math.inf)


def main() -> int:
    """Parse the command line and run the command."""
    options = cli.parser(__doc__)
    options.add_argument(
        "--prepare", action="store_true", help="the command train: prepare tables and folds first"
    )
    options.add_argument("--stage", help="train this stage only")
    options.add_argument("--fold", type=int, help="train this fold only, counted from 0")
    args = options.parse_args()
    if args.budget:
        raise ConfigError("--budget is of full, which trains what fits; train has no time to keep to.")
    competition = load_competition(args.competition, args.overrides)
    stages = load_stages(args.competition, args.overrides)
    paths = competition.paths
    shard = args.shard or (1, 1)
    if args.prepare:
        with cli.locked(paths, wait=True):
            folds_config = make.load_folds_config(args.competition, args.overrides)
            make.run(competition, folds_config)
    with cli.training(paths, args.shard):
        if args.earlier_run:
            resume(args.earlier_run, paths)
        selected = make_plan(competition, stages, args.reuse).select(args.stage, args.fold, shard)
        for line in describe_retraining(selected):
            print(line, flush=True)
        with closing(make_executor(args.executor, args.ray_address, args.workers)) as executor:
            results = train(selected, executor, failure_policy(args))
    return exit_status(results)


def exit_status(results: dict[str, JobResult]) -> int:
    """Return 3 if a job failed or was skipped because another one failed, else 0."""
    return 3 if any(result.status == "failed" for result in results.values()) else 0


if __name__ == "__main__":
    cli.run(main)
