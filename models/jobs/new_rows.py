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
from models.jobs.work import run_job
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
    """Predict the table `paths.test` with every job that has not predicted it yet; returns the key of the table.

    Raises:
        DataError: if a job is not finished or has a changed file, or is of a stage `file`.
    """
    for job in jobs:
        verify(job)
    test_key = table_digest(paths.test)[:16]
    waiting = [job for job in jobs if not job.has_predicted(test_key)]
    used = sorted({job.stage for job in waiting})
    if fixed := [name for name in used if stages[name].kind == "file"]:
        raise DataError(
            f"the stages {', '.join(fixed)} (kind: file) only have predictions for the competition's own test rows. "
            "Run ./run.sh full without them, or with the new table as competition.test and its rows in their test.csv."
        )
    if waiting:
        rows, items, caches = read_rows(paths.test, competition, labelled=False), list[Item](), set[tuple[str, str]]()
        for name in used:
            items += cache_items(competition, stages[name], paths, [rows], caches)[0]
        groups = frozenset(item.group for item in items)
        for job in waiting:
            call = (job, stages[job.stage], competition, paths, test_key)
            items.append(Item(run_job, call, gpu=asks_for_gpu(stages[job.stage]), after=groups))
        with make_workers(n_workers) as workers:
            workers.run(items, "predictions")
    return test_key
