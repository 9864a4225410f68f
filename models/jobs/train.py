"""Training of the jobs of a plan without a budget, and their predictions for a new test table."""

import math
from dataclasses import replace

from core.errors import DataError
from models.jobs.budget import Budget
from models.jobs.budget_stages import Clock
from models.jobs.job_files import verify_job
from models.jobs.plan import JobPlan, key_of_test_table
from models.jobs.scheduler import Executor, JobResult, Queue, run
from models.jobs.tasks import job_tasks, one_task_per_stage

FEW_ROWS = 100
"""Number of rows up to which importing libraries takes longer than predicting."""


def train(plan: JobPlan, executor: Executor, job_timeout: float = math.inf) -> dict[str, JobResult]:
    """Train the unfinished jobs, and predict the test table with finished jobs that have not predicted it.

    Args:
        job_timeout: seconds after which a running job fails.

    Returns:
        Job title -> how it ended, of the jobs that were not finished before.

    Raises:
        DiskFull: if a worker cannot write.
    """
    results = Budget(plan, executor, Clock()).train(lambda: None, job_timeout)
    waiting = [job for job in plan.jobs if job.title in results and results[job.title].reason == "dependency"]
    if waiting and plan.shard[1] > 1:
        print(
            f"{len(waiting)} jobs wait for jobs of other shards: train again when those are finished, or "
            f"run ./run.sh full {plan.paths.on_command_line}"
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
    waiting.sort(key=lambda job: -plan.stages[job.stage].gpu)  # networks first, which take longest to import
    external = sorted({job.stage for job in waiting if not plan.stages[job.stage].is_trained})
    if external:
        raise DataError(
            f"the stages {', '.join(external)} (kind: file) only have predictions for the competition's test "
            f"rows. Run ./run.sh full {plan.paths.on_command_line} without them, or with the new table as "
            "competition.test and its rows in their test.csv."
        )
    if waiting:
        test = plan.tables.read_test()
        tasks = job_tasks(plan, waiting, [test], executor)
        n_stages = len({job.stage for job in waiting})
        if len(test) <= FEW_ROWS and n_stages >= executor.capacity().cpus:
            tasks = one_task_per_stage(tasks)
        results = run(Queue(tasks), executor)
        for name in [task.name for task in tasks if task.skips_group]:  # a part of a cache may fail
            result = results[name]
            if result.status == "failed":
                raise DataError(f"{result.name} failed ({result.reason}): {result.error}")
    return plan.test_key
