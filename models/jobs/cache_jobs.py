"""Tasks that fill the caches of molecules and texts, on all cores or cards, before the jobs that read them."""

from competition.dataset import Dataset
from models.inputs.cache import Cache
from models.inputs.stage_caches import shared_caches
from models.jobs.compute import context_of, usable_rows
from models.jobs.plan import JobPlan
from models.jobs.scheduler import Resources, Task


def cache_tasks(
    plan: JobPlan, stage_name: str, tables: list[Dataset], planned: set[tuple[str, str]]
) -> tuple[list[Task], frozenset[str]]:
    """Return the tasks that fill the caches of one stage, and the groups that its jobs wait for.

    If such a task fails, the jobs compute its part themselves, and their error names the molecule.

    Args:
        planned: cache folder and key of all entries that tasks compute; the entries of the new tasks are added.
    """
    tasks = []
    groups = set()
    stage = plan.stages[stage_name]
    tables = [table.take(usable_rows(table, stage)) for table in tables]
    for cache, keys in shared_caches(stage, context_of(plan, 0), tables):
        folder = cache.folder.name
        group = f"the {cache.name} ({folder[-6:]})"
        groups.add(group)
        missing = {key for key in cache.missing(keys) if (folder, key) not in planned}
        planned.update((folder, key) for key in missing)
        # Parts are cut from all keys, so that several machines on one folder have the same parts.
        for start in range(0, len(keys), cache.per_shard):
            part = [key for key in keys[start : start + cache.per_shard] if key in missing]
            if not part:
                continue
            task = Task(
                name=f"{group} of {stage_name} from {start}",
                function=fill,
                arguments=(cache, part),
                resources=Resources(gpus=1.0 if cache.gpu else 0.0),
                group=group,
                skips_group=False,
            )
            tasks.append(task)
    return tasks, frozenset(groups)


def fill(cache: Cache, keys: list[str]) -> None:
    """Compute one shard of a cache, unless another machine has done so meanwhile."""
    if not cache.shard(keys).exists():
        cache.compute_shard(keys)
