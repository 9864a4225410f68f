"""The caches that the jobs of a stage read, and the tasks that fill them, on all cores or cards, before the jobs.

This module does not import torch, since the driver process uses it.
"""

from collections.abc import Sequence

from competition.dataset import Dataset
from models.context import Context
from models.inputs.cache import Cache
from models.inputs.feature_blocks import stage_features
from models.inputs.frozen_encoders import encoder_cache
from models.inputs.texts import SEPARATOR, read_template
from models.inputs.weights import reads_molecules
from models.jobs.compute import context_of, usable_rows
from models.jobs.plan import JobPlan
from models.jobs.scheduler import Resources, Task
from models.stage import Stage


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


def shared_caches(
    config: Stage, context: Context, tables: Sequence[Dataset]
) -> list[tuple[Cache, list[str]]]:
    """Return the caches that the jobs of a stage read, each with the keys that it needs for the
    rows of `tables`.

    The keys are molecules or texts, sorted and unique. Caches are filled before the jobs start:
    parallel jobs would compute the same arrays several times.
    """
    caches = [(cache, _molecules(columns, tables)) for cache, columns in config.caches(context)]
    molecules = _molecules(context.smiles, tables)
    caches += [(cache, molecules) for cache in stage_features(config, context)]
    for encoder in config.encoders:
        keys = molecules
        if not reads_molecules(encoder.weights):
            template = read_template(encoder, context)
            texts = set[str]()
            for rows in tables:
                texts.update(template.texts(rows.inputs, SEPARATOR))
            keys = sorted(texts)
        caches.append((encoder_cache(encoder, context.cache), keys))
    return caches


def _molecules(columns: list[str], tables: Sequence[Dataset]) -> list[str]:
    """Return the distinct SMILES of some columns, sorted."""
    molecules = set[str]()
    for rows in tables:
        for column in columns:
            molecules.update(rows.inputs[column])
    return sorted(molecules)
