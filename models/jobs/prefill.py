"""What several jobs read of the same molecules and texts, computed before any job starts."""

from __future__ import annotations

from typing import Any

from competition.config import CompetitionConfig
from competition.paths import Paths
from competition.tables import Rows
from models.jobs.tasks import Task
from models.jobs.work import context_of, fill_cache, fill_embeddings
from models.registry import shared_caches

SHARD = 100  # molecules per shard of a cache: some seconds of work, all that a kill can lose


def cache_tasks(competition: CompetitionConfig, stages: list[Any], paths: Paths, rows: list[Rows]) -> list[Task]:
    """Tasks that fill the caches of molecules which several jobs share, before any job starts."""
    tasks = []
    planned: set[tuple[str, str]] = set()
    for stage in stages:
        smiles = molecules_of(competition, stage, rows)
        for cache in shared_caches(stage, context_of(competition, paths, 0)):
            name = cache.folder.name
            missing = {text for text in cache.missing(smiles) if (name, text) not in planned}
            planned.update((name, text) for text in missing)
            # Parts of all molecules, not of the missing ones: so the parts of several processes are the same.
            for start in range(0, len(smiles), SHARD):
                part = [text for text in smiles[start : start + SHARD] if text in missing]
                call = (stage, competition, paths, name, part)
                if part:
                    shard = cache.shard(part)
                    tasks.append(
                        Task(
                            cache.name, fill_cache, call, group=name, claim=f"{name}.{shard.stem}",
                            finished=shard.exists,
                        )
                    )  # fmt: skip
        if stage.kind == "embedding":
            tasks.append(Task("embedding", fill_embeddings, (stage, competition, paths, rows), group="embedding"))
    return tasks


def molecules_of(competition: CompetitionConfig, stage: Any, rows: list[Rows]) -> list[str]:
    """Distinct molecules of the columns that a stage reads, sorted."""
    columns = getattr(stage, "columns", None) or competition.smiles
    return sorted(
        {text for part in rows for name in columns if name in competition.smiles for text in part.inputs[name]}
    )


def check_molecules(competition: CompetitionConfig, stages: list[Any], paths: Paths, rows: list[Rows]) -> None:
    """Let each stage see how its molecules turned out, before any job starts.

    Raises:
        DataError: if a stage cannot take one.
    """
    for stage in stages:
        for cache in shared_caches(stage, context_of(competition, paths, 0)):
            if cache.check is not None:
                cache.load(molecules_of(competition, stage, rows))
