"""Train every job that is not finished: `./run.sh train [COMPETITION] [--stage S] [--fold K]`.

A job is one (stage, seed, fold), or a seed's refit on all rows, which starts when its folds are finished.
With --shard I/N, this machine has every N-th job, and other machines have the others.

Reads: the YAML and the raw tables. Writes: clean tables, folds, and a folder per job: weights,
out-of-fold and test predictions, and report.json last. Finished jobs are skipped. A job that fails ends no
other stage; the next run tries it again, last. Exit status 3 if a job failed.
"""

from contextlib import closing
from dataclasses import replace

from competition.config import load_competition
from competition.dataset import read_rows
from core import cli
from core.errors import ConfigError, DataError
from folds import make
from models.config import load_stages
from models.jobs.budget import Budget
from models.jobs.budget_stages import KEEP_GOING, Clock, FailurePolicy
from models.jobs.cluster import make_executor
from models.jobs.job_files import verify_job
from models.jobs.plan import JobPlan, describe_retraining, key_of_test_table, make_plan
from models.jobs.resume import resume
from models.jobs.scheduler import Executor, JobResult, Queue, Task, run
from models.jobs.tasks import job_tasks


def train(plan: JobPlan, executor: Executor, policy: FailurePolicy = KEEP_GOING) -> dict[str, JobResult]:
    """Train the unfinished jobs, and predict the test table with finished jobs that have not predicted it.

    Returns:
        Job title -> how it ended, of the jobs that were not finished before.

    Raises:
        DataError: if a finished job was changed, or jobs need other jobs that are not part of the plan.
        DiskFull: if a worker cannot write.
    """
    results = Budget(plan, executor, Clock()).train(policy, on_seed=lambda: None)
    waiting = [job for job in plan.jobs if job.title in results and results[job.title].reason == "dependency"]
    if waiting and plan.shard[1] > 1:
        print(
            f"{len(waiting)} jobs wait for jobs of other shards: train again when those are finished, or "
            f"run full"
        )
    elif waiting and not exit_status(results):
        needs = {need for job in waiting for need in job.dependencies}
        missing = {need.stage for need in needs if not need.has_predicted(plan.test_key)}
        raise DataError(
            f"{len(waiting)} jobs need finished jobs of {', '.join(sorted(missing))}; run ./run.sh train with "
            "--stage for these first, or without --stage and --fold."
        )
    return results


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


def main() -> int:
    """Parse the command line and run the command."""
    options = cli.parser(__doc__)
    options.add_argument("--stage", help="train this stage only")
    options.add_argument("--fold", type=int, help="train this fold only, counted from 0")
    args = options.parse_args()
    if args.budget:
        raise ConfigError("--budget is of full, which trains what fits; train has no time to keep to.")
    competition = load_competition(args.competition, args.overrides)
    stages = load_stages(args.competition, args.overrides)
    paths = competition.paths
    shard = args.shard or (1, 1)
    with cli.locked(paths, wait=True):
        make.run(competition, make.load_folds_config(args.competition, args.overrides))
    with cli.training(paths, args.shard):
        if args.earlier_run:
            resume(args.earlier_run, paths)
        selected = make_plan(competition, stages, args.reuse).select(args.stage, args.fold, shard)
        for line in describe_retraining(selected):
            print(line, flush=True)
        with closing(make_executor(args.executor, args.ray_address, args.workers)) as executor:
            results = train(selected, executor, FailurePolicy.of(args))
    return exit_status(results)


def exit_status(results: dict[str, JobResult]) -> int:
    """Return 3 if a job failed or was skipped because another one failed, else 0."""
    return 3 if any(result.status == "failed" for result in results.values()) else 0


if __name__ == "__main__":
    cli.run(main)
