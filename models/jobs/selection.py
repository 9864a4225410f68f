"""Which jobs of a plan one process is about: --stage, --fold, --shard."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from competition.errors import ConfigError
from models.jobs.plan import Job, Plan


def select(todo: Plan, stage: str | None, fold: int | None) -> Plan:
    """The part of a plan that --stage and --fold name.

    Raises:
        ConfigError: if there is no such stage or fold.
    """
    if stage is not None and stage not in todo.keys:
        raise ConfigError(f"--stage must be one of {', '.join(todo.keys)}; found {stage!r}.")
    if fold is not None and not 0 <= fold < todo.n_folds:
        raise ConfigError(f"--fold must be from 0 to {todo.n_folds - 1}; found {fold}.")
    return replace(todo, jobs=[job for job in todo.jobs if stage in (None, job.stage) and fold in (None, job.fold)])


def share(todo: Plan, i: int, n: int, alone: bool) -> Plan:
    """The plan of shard `i` of `n`, counted from 1: its own jobs, then those that it does only if no one else does.

    Own are every n-th job of the plan, whether finished or not, so that all shards, whenever they start, divide the
    jobs in the same way, and the folds of each stage evenly.

    Args:
        alone: whether others are only the unfinished jobs that its own need; else all.
    """
    own = todo.jobs[i - 1 :: n]
    folders = {job.folder for job in own}
    needed = {job.folder for job in _needed(own)}
    others = [job for job in todo.jobs if job.folder not in folders and (not alone or job.folder in needed)]
    return replace(todo, jobs=[*own, *others])


def _needed(jobs: Iterable[Job]) -> list[Job]:
    """Unfinished jobs that some jobs need, and those that these need."""
    found = [need for job in jobs if not job.finished for need in job.needs if not need.finished]
    return [*found, *_needed(found)] if found else []
