"""What several jobs read of the same molecules and texts, computed on all cores, or GPUs, before any job starts."""

from competition.tables import Rows
from models.inputs.cache import Cache
from models.jobs.job_rows import context_of
from models.jobs.plan import Plan
from models.jobs.workers import Item
from models.registry import shared_caches


def cache_items(
    todo: Plan, name: str, rows: list[Rows], planned: set[tuple[str, str]]
) -> tuple[list[Item], frozenset[str]]:
    """Items that fill the caches of one stage, and their groups.

    Args:
        planned: cache and key of all that items of other stages compute; what these compute is added.
    """
    items, groups = list[Item](), set[str]()
    for cache, keys in shared_caches(todo.stages[name], context_of(todo, 0), rows):
        folder, group = cache.folder.name, f"the {cache.name} ({cache.folder.name[-6:]})"
        missing = {key for key in cache.missing(keys) if (folder, key) not in planned}
        planned.update((folder, key) for key in missing)
        # Parts of all keys, not of the missing ones: so several processes on one folder have the same parts.
        for start in range(0, len(keys), cache.per_shard):
            if part := [key for key in keys[start : start + cache.per_shard] if key in missing]:
                items.append(Item(fill, (cache, part), gpu=cache.gpu, group=group))
        groups.add(group)
    return items, frozenset(groups)


def fill(cache: Cache, keys: list[str]) -> None:
    """Compute one shard of a cache, unless another machine has done so meanwhile."""
    if not cache.shard(keys).exists():
        cache.compute_shard(keys)
