"""What several jobs read of the same molecules and texts, computed on all cores, or GPUs, before any job starts."""

from __future__ import annotations

from typing import Any

from competition.config import CompetitionConfig
from competition.paths import Paths
from competition.tables import Rows
from models.jobs.work import context_of
from models.jobs.workers import Item
from models.registry import Shared, shared_caches


def cache_items(
    competition: CompetitionConfig, stage: Any, paths: Paths, rows: list[Rows], planned: set[tuple[str, str]]
) -> tuple[list[Item], frozenset[str]]:
    """Items that fill the caches of one stage, and show it what came out where it may refuse that; their groups.

    Args:
        planned: cache and key of all that items of other stages compute; what these compute is added.
    """
    items, groups = list[Item](), set[str]()
    for shared in shared_caches(stage, context_of(competition, paths, 0)):
        cache, keys = shared.cache, keys_of(shared, rows)
        folder, group = cache.folder.name, f"the {cache.name} ({cache.folder.name[-6:]})"
        missing = {key for key in cache.missing(keys) if (folder, key) not in planned}
        planned.update((folder, key) for key in missing)
        # Parts of all keys, not of the missing ones: so several processes on one folder have the same parts.
        parts = [keys[start : start + cache.per_shard] for start in range(0, len(keys), cache.per_shard)]
        calls = [[key for key in part if key in missing] for part in parts]
        items += [
            Item(fill_cache, (stage, competition, paths, folder, part), gpu=cache.gpu, group=group, alike=group)
            for part in calls
            if part
        ]
        groups.add(group)
        if cache.check is not None:
            check = f"a look at {group}"
            call = (stage, competition, paths, folder, keys)
            items.append(Item(check_cache, call, group=check, alike=check, after=frozenset([group])))
            groups.add(check)
    return items, frozenset(groups)


def keys_of(shared: Shared, rows: list[Rows]) -> list[str]:
    """Distinct molecules or texts of rows that a shared cache has to hold, sorted."""
    return sorted({key for part in rows for key in shared.keys(part)})


def fill_cache(stage: Any, competition: CompetitionConfig, paths: Paths, folder: str, keys: list[str]) -> None:
    """Compute one shard of one cache, unless another machine has done so meanwhile."""
    cache = _cache(stage, competition, paths, folder)
    if not cache.shard(keys).exists():
        cache.compute_shard(keys)


def check_cache(stage: Any, competition: CompetitionConfig, paths: Paths, folder: str, keys: list[str]) -> None:
    """Let a stage see how its molecules turned out.

    Raises:
        DataError: if it cannot take one.
    """
    _cache(stage, competition, paths, folder).load(keys)


def _cache(stage: Any, competition: CompetitionConfig, paths: Paths, folder: str) -> Any:
    caches = [shared.cache for shared in shared_caches(stage, context_of(competition, paths, 0))]
    return next(cache for cache in caches if cache.folder.name == folder)
