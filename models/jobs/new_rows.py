"""Predictions of finished jobs for a new test table: weights only, no training table. Used by `submissions.predict`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from competition.config import CompetitionConfig
from competition.errors import DataError
from competition.files import table_digest
from competition.paths import Paths
from competition.tables import read_rows
from models.jobs.attempts import verify
from models.jobs.plan import Job
from models.jobs.prefill import cache_items
from models.jobs.work import predict_job
from models.jobs.workers import Item, Workers
from models.registry import asks_for_gpu


def predict_jobs(
    jobs: list[Job],
    stages: dict[str, Any],
    competition: CompetitionConfig,
    paths: Paths,
    n_workers: int | None,
    make_workers: Callable[[int | None], Workers] = Workers,
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
            raise DataError(f"a job of the run is not finished: {job.folder}. Run ./run.sh full first.")
        verify(job)
    test_key = table_digest(paths.test)[:16]
    waiting = [job for job in jobs if not job.has_predicted(test_key)]
    used = sorted({job.stage for job in waiting})
    if fixed := [name for name in used if stages[name].kind == "file"]:
        raise DataError(
            f"the stages {', '.join(fixed)} (kind: file) have no weights, only predictions for the competition's own "
            "test rows, so they cannot predict new ones. Run ./run.sh full without them first, or make the new table "
            "competition.test, add its rows to their test.csv, and run ./run.sh full."
        )
    if waiting:
        rows, items, caches = read_rows(paths.test, competition, labelled=False), list[Item](), set[tuple[str, str]]()
        for name in used:
            items += cache_items(competition, stages[name], paths, [rows], caches)[0]
        groups = frozenset(item.group for item in items)
        for job in waiting:
            call = (job, stages[job.stage], competition, paths, rows, test_key)
            items.append(Item(predict_job, call, gpu=asks_for_gpu(stages[job.stage]), after=groups))
        with make_workers(n_workers) as workers:
            workers.run(items, "predictions")
    return test_key
