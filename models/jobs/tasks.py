"""Jobs as tasks of the scheduler, and before them tasks that fill the caches which the jobs read.

This module does not import torch, since the driver process uses it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from competition.dataset import Dataset
from core.paths import display_path
from models.features import feature_caches
from models.hardware import Card
from models.inputs.cache import Cache
from models.jobs.compute import usable_rows
from models.jobs.job import Job
from models.jobs.job_files import attempt_folder, write_failure
from models.jobs.plan import JobPlan
from models.jobs.run_job import run_job
from models.jobs.scheduler import Executor, JobResult, Resources, Task, run_task
from models.stage import Stage

USABLE_MEMORY = 0.8
"""Share of a card's memory that jobs may fill together, since each has a context of CUDA and fragments."""
MAX_PARTS = 1000
"""Maximum number of parts of a cache: the scheduler looks at each waiting task whenever a task ends."""


def job_tasks(
    plan: JobPlan,
    jobs: Sequence[Job],
    tables: list[Dataset],
    executor: Executor,
    on_end: Callable[[Job, JobResult], None] = lambda job, result: None,
    queued: Iterable[Task] = (),
) -> list[Task]:
    """Return the tasks that fill caches, stage by stage, and after them the jobs.

    Args:
        tables: the jobs read molecules and texts of these tables.
        on_end: called with each job that ended and its result.
        queued: tasks that run or wait. What they compute is not computed again.
    """
    planned: set[tuple[Path, str]] = set()
    for task in filter(is_cache, queued):
        cache, keys = task.arguments
        planned.update((cache.folder, key) for key in keys)
    cache_parts: list[Task] = []
    tasks: list[Task] = []
    payload = replace(plan, jobs=[])  # a worker needs only its job
    shard, n_shards = plan.shard
    for stage_name in dict.fromkeys(job.stage for job in jobs):
        stage_jobs = [job for job in jobs if job.stage == stage_name]
        resources = resources_of(plan.stages[stage_name], max(len(stage_jobs), plan.n_folds), executor)
        parts, cache_groups = cache_tasks(plan, stage_name, tables, planned)
        # Each shard starts at another part, and skips those that others have computed.
        first = len(parts) * (shard - 1) // n_shards
        cache_parts += parts[first:] + parts[:first]
        for job in stage_jobs:
            needs = () if job.finished else job.dependencies
            task = Task(
                name=job.title,
                function=run_job,
                arguments=(job, payload, resources.cpus),
                resources=resources,
                group=stage_name,
                wait_for_groups=cache_groups,
                wait_for_files=tuple(need.test_file(plan.test_key) for need in needs),
                folder=attempt_folder(job.folder),
                n_rows=0 if job.finished else job.n_rows,
                on_end=partial(on_end, job),
            )
            tasks.append(task)
    return cache_parts + tasks


def one_task_per_stage(tasks: list[Task]) -> list[Task]:
    """Join the jobs of each stage into one task, named like it, so that its libraries are imported once."""
    by_stage: dict[str, list[Task]] = {}
    for task in tasks:
        if not is_cache(task):
            by_stage.setdefault(task.group, []).append(task)
    joined = []
    for stage_name, of_stage in by_stage.items():
        calls = [task.arguments for task in of_stage]
        joined.append(replace(of_stage[0], name=stage_name, function=run_in_turn, arguments=(calls,)))
    return [*filter(is_cache, tasks), *joined]


def run_in_turn(calls: list[tuple[Job, JobPlan, int]]) -> JobResult:
    """Run jobs one after the other, each as a task; return the result of the first that failed, or of the last."""
    for arguments in calls:
        title = arguments[0].title
        result = run_task(title, run_job, arguments, on_card=False)  # the outer task looks for a GPU
        if result.status == "failed":
            break
    return result


def resources_of(stage: Stage, n_jobs: int, executor: Executor) -> Resources:
    """Return what each of `n_jobs` jobs takes: an equal share of the cores if the stage can use it."""
    n_cores = max(1, executor.max_threads // n_jobs) if stage.uses_several_cores else 1
    return Resources(n_cores, stage.gpu)


def cache_tasks(
    plan: JobPlan, stage_name: str, tables: list[Dataset], planned: set[tuple[Path, str]]
) -> tuple[list[Task], frozenset[str]]:
    """Return the tasks that fill the caches of one stage, and the groups that its jobs wait for.

    If such a task fails, the jobs compute its part themselves, and their error names the molecule.

    Args:
        planned: cache folder and key of all entries that tasks compute; the entries of the new tasks are
            added.
    """
    tasks = []
    groups = set()
    stage = plan.stages[stage_name]
    tables = [table.take(usable_rows(table, stage)) for table in tables]
    context = plan.tables.context()
    for cache, keys in [*stage.caches(context, tables), *feature_caches(stage, context, tables)]:
        group = f"{cache.name} ({cache.folder.name[-6:]})"
        groups.add(group)
        missing = {key for key in cache.missing(keys) if (cache.folder, key) not in planned}
        planned.update((cache.folder, key) for key in missing)
        for start, part in cut_into_parts(cache, keys, missing).items():
            task = Task(
                name=f"{group} for {stage_name}, from {start} of {len(keys)}",
                function=fill,
                arguments=(cache, part),
                resources=Resources(gpus=1.0 if cache.gpu else 0.0),
                group=group,
                skips_group=False,
                on_end=warn_about_part,
            )
            tasks.append(task)
    return tasks, frozenset(groups)


def cut_into_parts(cache: Cache, keys: list[str], missing: set[str]) -> dict[int, list[str]]:
    """Return position of its first key -> missing keys, of each part of a cache with missing keys.

    Parts are cut from all keys, so that several machines on one folder have the same parts. A part has one
    shard, or several if there would be more than MAX_PARTS parts.
    """
    size = cache.per_shard * max(1, math.ceil(len(keys) / (cache.per_shard * MAX_PARTS)))
    parts = {}
    for start in range(0, len(keys), size):
        parts[start] = [key for key in keys[start : start + size] if key in missing]
    return {start: part for start, part in parts.items() if part}


def fill(cache: Cache, keys: list[str]) -> None:
    """Compute the shards of a part of a cache, except those that another machine has computed meanwhile."""
    for shard_keys in shards_of(cache, keys):
        if not cache.shard(shard_keys).exists():
            cache.compute_shard(shard_keys)


def shards_of(cache: Cache, keys: list[str]) -> list[list[str]]:
    """Return the keys of each shard of a part of a cache."""
    return [keys[start : start + cache.per_shard] for start in range(0, len(keys), cache.per_shard)]


def warn_about_part(result: JobResult) -> None:
    """Print why a part of a cache could not be computed."""
    if result.status == "failed":
        how = f"failed ({result.reason}): {result.error}"
        print(f"WARNING: {result.name} {how}; its jobs compute it themselves", flush=True)


def is_cache(task: Task) -> bool:
    """Return whether a task computes a part of a cache."""
    return task.function is fill


def is_computed(task: Task) -> bool:
    """Return whether all shards of a part of a cache exist."""
    cache, keys = task.arguments
    return all(cache.shard(shard_keys).exists() for shard_keys in shards_of(cache, keys))


def groups_needed_by(tasks: Iterable[Task]) -> set[str]:
    """Return the groups of caches that tasks wait for."""
    return {group for task in tasks for group in task.wait_for_groups}


def lines_about(job: Job, result: JobResult, stage: Stage, cards: list[Card] | None) -> list[str]:
    """Return the lines about a job that ended: why it failed; or its score, and then the notes of its stage.

    The failure of a worker that died, which could not do so itself, is written.
    """
    if result.status == "failed":
        if result.reason in ("killed", "timeout"):
            result = write_failure(job.folder, result)
        folder = display_path(result.log or attempt_folder(job.folder))
        return [f"{job.title} failed ({result.reason}): {result.error}\n  {folder}"]
    notes = [*result.lines[1:], *_note_about_memory(stage.gpu, result.gpu_gib, cards or [])]
    return [*result.lines[:1], *(f"stage {job.stage}  {note}" for note in notes)]


def _note_about_memory(gpu: float, gpu_gib: float, cards: list[Card]) -> list[str]:
    """Return a note if more jobs of a stage would fit on a card than its setting `gpu` allows.

    Args:
        gpu_gib: peak memory of a job in GiB.
    """
    memory = min((card.memory_gib for card in cards), default=0.0)
    n_jobs = max((n for n in (2, 4, 8) if n * gpu_gib < USABLE_MEMORY * memory), default=1)
    if gpu_gib == 0 or n_jobs * gpu <= 1:
        return []
    return [
        f"used {gpu_gib:.1f} of {memory:.0f} GiB; gpu: {1 / n_jobs:g} trains {n_jobs} jobs at once on one GPU"
    ]
