"""Predictions of finished jobs for a new test table: weights only, no training table. Used by `submissions.predict`."""

from __future__ import annotations

from typing import Any

from competition.config import CompetitionConfig
from competition.errors import DataError
from competition.files import table_digest
from competition.paths import Paths
from competition.tables import read_rows
from models.jobs.executor import Executor
from models.jobs.plan import Job, verify
from models.jobs.prefill import cache_tasks, check_molecules
from models.jobs.tasks import Task
from models.jobs.work import predict_job


def predict_jobs(
    jobs: list[Job], stages: dict[str, Any], competition: CompetitionConfig, paths: Paths, n_workers: int | None
) -> str:
    """Predict the table `paths.test` with every job that has not predicted it yet.

    Args:
        jobs: all of a run; their folders must be finished and unchanged.
        stages: their settings by name.
        paths: of which only `test` and `cache` are read here.

    Returns:
        The key of the test table, under which each job has its predictions.

    Raises:
        DataError: if a job is not finished, has a changed file, or a row cannot be predicted, as by a stage `file`.
    """
    for job in jobs:
        if not job.finished:
            raise DataError(f"every job of the run must be finished; {job.folder} is not. Run ./run.sh full first.")
        verify(job)
    test_key = table_digest(paths.test)[:16]
    rows = read_rows(paths.test, competition, labelled=False)
    waiting = [job for job in jobs if not job.has_predicted(test_key)]
    if fixed := sorted({job.stage for job in waiting if stages[job.stage].kind == "file"}):
        raise DataError(
            "new rows must be predicted by saved weights; the stages " + ", ".join(fixed) + " (kind: file) have none, "
            "only predictions for the competition's own test rows. Run ./run.sh full without them first, or make the "
            "new table competition.test, add its rows to their test.csv, and run ./run.sh full."
        )
    if waiting:
        used = [stages[name] for name in sorted({job.stage for job in waiting})]
        with Executor(n_workers, len(waiting)) as executor:
            executor.run(cache_tasks(competition, used, paths, [rows]), "molecules")
            check_molecules(competition, used, paths, [rows])
            executor.run(
                [
                    Task(
                        f"{job.stage} {job.seed} {job.folder.name}",
                        predict_job,
                        (job, stages[job.stage], competition, paths, rows, test_key),
                    )
                    for job in waiting
                ],
                "predictions",
            )
    return test_key
