"""What several jobs read of the same molecules and texts, computed before any job starts."""

from __future__ import annotations

from typing import Any

from competition.config import CompetitionConfig
from competition.paths import Paths
from competition.tables import Rows
from models.jobs.tasks import Task
from models.jobs.work import context_of, fill_cache
from models.registry import Shared, shared_caches


def cache_tasks(competition: CompetitionConfig, stages: list[Any], paths: Paths, rows: list[Rows]) -> list[Task]:
    """Tasks that fill the caches which several jobs share, before any job starts."""
    tasks = []
    planned: set[tuple[str, str]] = set()
    for stage in stages:
        for shared in shared_caches(stage, context_of(competition, paths, 0)):
            keys = keys_of(shared, rows)
            cache, name = shared.cache, shared.cache.folder.name
            missing = {key for key in cache.missing(keys) if (name, key) not in planned}
            planned.update((name, key) for key in missing)
            # Parts of all keys, not of the missing ones: so the parts of several processes are the same.
            for start in range(0, len(keys), cache.per_shard):
                part = [key for key in keys[start : start + cache.per_shard] if key in missing]
                call = (stage, competition, paths, name, part)
                if part:
                    shard = cache.shard(part)
                    tasks.append(
                        Task(
                            cache.name, fill_cache, call, group=name, claim=f"{name}.{shard.stem}",
                            finished=shard.exists,
                        )
                    )  # fmt: skip
    return tasks


def keys_of(shared: Shared, rows: list[Rows]) -> list[str]:
    """Distinct molecules or texts of rows that a shared cache has to hold, sorted."""
    return sorted({key for part in rows for key in shared.keys(part)})


def check_molecules(competition: CompetitionConfig, stages: list[Any], paths: Paths, rows: list[Rows]) -> None:
    """Let each stage see how its molecules turned out, before any job starts.

    Raises:
        DataError: if a stage cannot take one.
    """
    for stage in stages:
        for shared in shared_caches(stage, context_of(competition, paths, 0)):
            if shared.cache.check is not None:
                shared.cache.load(keys_of(shared, rows))
