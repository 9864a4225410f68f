"""Train every job that is not finished: `python -m models.train [COMPETITION] [--stage S] [--fold K] [--budget T]`.

A job is one (stage, seed, fold), or a seed's refit on all rows, which starts when its folds are finished. Within a
budget, stages start in the YAML's order; the first job of each shows how long the others take, and what cannot finish
in time is not started.

Reads: prepared/train.csv and test.csv, folds/folds.csv.
Writes: a folder per job with weights, oof.csv, test predictions and, last, report.json. Finished jobs are skipped.
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition import command, prepare
from competition.config import CompetitionConfig, find_config, load_competition
from competition.durations import in_words
from competition.errors import ConfigError, DataError
from competition.metrics import load_metric
from competition.paths import Paths
from competition.tables import Rows, read_rows
from folds import make
from folds.table import read_folds
from models.budget import Budget, Group
from models.config import load_stages
from models.executor import Executor, Task
from models.jobs import ALL, Job, Plan, plan, read_predictions, verify
from models.notes import read_notes
from models.stage import shared_caches
from models.work import context_of, fill_cache, fill_embeddings, predict_job, run_job

SHARD = 100  # molecules per shard of a cache: some seconds of work, all that a kill can lose


def cache_tasks(competition: CompetitionConfig, stages: list[Any], paths: Paths, rows: list[Rows]) -> list[Task]:
    """Tasks that fill the caches of molecules which several jobs share, before any job starts."""
    tasks = []
    planned: set[tuple[str, str]] = set()
    for stage in stages:
        smiles = molecules_of(competition, stage, rows)
        for cache in shared_caches(stage, context_of(competition, paths, 0)):
            name = cache.folder.name
            missing = [text for text in cache.missing(smiles) if (name, text) not in planned]
            planned.update((name, text) for text in missing)
            for start in range(0, len(missing), SHARD):
                part = missing[start : start + SHARD]
                call = (stage, competition, paths, name, part)
                tasks.append(Task(cache.name, fill_cache, call, group=name))
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


def train(
    competition: CompetitionConfig,
    stages: dict[str, Any],
    paths: Paths,
    todo: Plan,
    n_workers: int | None,
    budget: float | None = None,
) -> None:
    """Train what is not finished and predict what has no prediction for this test table.

    Args:
        budget: seconds from now; what cannot finish in them is left for a later run.

    Raises:
        ConfigError, DataError: of the first job that fails; jobs that were finished before are kept.
    """
    deadline = time.monotonic() + (budget or math.inf)
    seconds: dict[str, list[float]] = {name: [] for name in stages}
    for job in todo.jobs:
        if job.finished:
            seconds[job.stage].append(verify(job)["seconds"])
    waiting = [job for job in todo.jobs if not job.finished]
    _require_needs(waiting)
    unpredicted = [job for job in todo.jobs if job.finished and not job.has_predicted(todo.test_key)]
    for name in stages:
        jobs = todo.of(name)
        done = [job for job in jobs if job.finished]
        if done:
            mark = "; by other code, accepted with --reuse" if done[0].other_code else ""
            print(f"stage {name}  {len(done)} of {len(jobs)} jobs are finished{mark}")
    if not waiting and not unpredicted:
        return
    used = {name: stages[name] for name in stages if any(job.stage == name for job in waiting + unpredicted)}
    rows = read_rows(paths.train, competition, labelled=True)
    test = read_rows(paths.test, competition, labelled=False)
    tasks = _tasks(competition, used, paths, todo, waiting, unpredicted, rows, test)
    with Executor(n_workers, len(waiting) + len(unpredicted)) as executor:
        if budget is None:
            for noun, part in tasks.items():
                executor.run(part, noun)
                if noun == "molecules":
                    check_molecules(competition, list(used.values()), paths, [rows, test])
            return
        together = [task for part in tasks.values() for task in part]
        order = Budget(_groups(competition, used, paths, seconds), together, executor.n_workers, deadline)
        executor.run(together, "jobs", order)
    for name in used:
        _print_cut(name, todo, order, budget)


def _require_needs(waiting: list[Job]) -> None:
    """Check that what jobs need is finished or will be trained with them.

    Raises:
        DataError: if not, as with --stage and pseudo-labels of another.
    """
    coming = {job.folder for job in waiting}
    for job in waiting:
        for need in job.needs:
            if not need.finished and need.folder not in coming:
                raise DataError(
                    f"stage {job.stage} needs finished jobs of stage {need.stage}; {need.folder} is not. "
                    f"Run ./run.sh train with --stage {need.stage} first, or without --stage."
                )


def _tasks(
    competition: CompetitionConfig,
    stages: dict[str, Any],
    paths: Paths,
    todo: Plan,
    waiting: list[Job],
    unpredicted: list[Job],
    rows: Rows,
    test: Rows,
) -> dict[str, list[Task]]:
    """All tasks, in the order in which they are run without a budget: noun for the bar -> tasks."""
    scorer = _Scorer(competition, rows, read_folds(paths.folds, rows.ids), todo.n_folds)
    return {
        "molecules": cache_tasks(competition, list(stages.values()), paths, [rows, test]),
        "predictions": [
            Task(
                job.stage,
                predict_job,
                (job, stages[job.stage], competition, paths, test, todo.test_key),
                group=_predictions_of(job.stage),
            )
            for job in unpredicted
        ],
        "jobs": [
            Task(
                f"{job.stage} {job.seed} {job.folder.name}",
                run_job,
                (job, stages[job.stage], competition, paths, todo.test_key),
                takes_progress=True,
                done=partial(scorer.print_line, job),
                group=_jobs_of(job.stage),
                can_start=job.can_start,
            )
            for job in waiting
        ],
    }


def _print_cut(stage: str, todo: Plan, order: Budget, budget: float) -> None:
    """A line for a stage that has not all its jobs: how many it has, and why not the others."""
    jobs = todo.of(stage)
    done = [job for job in jobs if job.finished and job.has_predicted(todo.test_key)]
    if len(done) < len(jobs):
        why = ", ".join(filter(None, (order.why(_jobs_of(stage)), order.why(_predictions_of(stage)))))
        within = f"within the budget of {in_words(budget)}"
        print(f"stage {stage}  {len(done)} of {len(jobs)} jobs finished {within}; {why}")


def _groups(
    competition: CompetitionConfig, stages: dict[str, Any], paths: Paths, seconds: dict[str, list[float]]
) -> list[Group]:
    """Groups of tasks in the order of the stages, each stage after the molecules that it reads."""
    groups: dict[str, Group] = {}
    for name, stage in stages.items():
        caches = {cache.folder.name: cache for cache in shared_caches(stage, context_of(competition, paths, 0))}
        for folder, cache in caches.items():
            groups.setdefault(folder, Group(folder, label=cache.name))
        if stage.kind == "embedding":
            groups.setdefault("embedding", Group("embedding", label="features of the encoder"))
        needs = frozenset([*caches, *(["embedding"] if stage.kind == "embedding" else [])])
        labelling = [source for source in (stage.pseudo_labels.of if stage.pseudo_labels else []) if source in stages]
        needs |= {group for source in labelling for group in (_predictions_of(source), _jobs_of(source))}
        for group in (Group(_predictions_of(name), needs), Group(_jobs_of(name), needs, seconds[name])):
            groups[group.name] = group
    return list(groups.values())


def _jobs_of(stage: str) -> str:
    return f"jobs of {stage}"


def _predictions_of(stage: str) -> str:
    return f"predictions of {stage}"


class _Scorer:
    """The line that is printed when a job is finished."""

    def __init__(self, competition: CompetitionConfig, rows: Rows, folds: NDArray[np.int64], n_folds: int) -> None:
        self.competition, self.rows, self.folds, self.n_folds = competition, rows, folds, n_folds
        self.metric = load_metric(competition.metric, competition.greater_is_better)
        self.noted: set[str] = set()

    def print_line(self, job: Job) -> None:
        """Stage, seed, fold, score on the held-out fold, seconds; after a stage's first fold, its notes."""
        seconds = verify(job)["seconds"]
        if job.fold == ALL:
            print(f"stage {job.stage}  seed {job.seed}  refit on all rows  {seconds:.0f} s")
            return
        held_out = self.rows.take(self.folds == job.fold)
        assert held_out.y is not None
        y_pred = read_predictions(job.folder / "oof.csv", held_out.ids, self.competition.targets)
        score = self.metric(held_out.y, y_pred)
        print(
            f"stage {job.stage}  seed {job.seed}  fold {job.fold} of {self.n_folds}  "
            f"valid {self.metric.name} {score:.4f}  {seconds:.0f} s"
        )
        for note in read_notes(job.folder) if job.stage not in self.noted else []:
            print(f"stage {job.stage}  {note}")
        self.noted.add(job.stage)


def select(todo: Plan, stage: str | None, fold: int | None) -> Plan:
    """The part of a plan that --stage and --fold name.

    Raises:
        ConfigError: if there is no such stage or fold.
    """
    if stage is not None and stage not in todo.keys:
        raise ConfigError(f"--stage must be one of {', '.join(todo.keys)}; found {stage!r}.")
    if fold is not None and not 0 <= fold < todo.n_folds:
        raise ConfigError(f"--fold must be from 0 to {todo.n_folds - 1}; found {fold}.")
    jobs = [job for job in todo.jobs if stage in (None, job.stage) and fold in (None, job.fold)]
    return Plan(jobs, todo.keys, todo.n_folds, todo.test_key)


def main() -> None:
    """Command line."""
    options = command.parser(__doc__)
    options.add_argument("--prepare", action="store_true", help="prepare the tables and make the folds first")
    options.add_argument("--stage", help="train this stage only")
    options.add_argument("--fold", type=int, help="train this fold only, counted from 0")
    args = options.parse_args()
    competition = load_competition(args.competition, args.seed)
    stages = load_stages(args.competition)
    paths = Paths.of(args.competition)
    with command.locked(paths):
        if args.prepare:
            prepare.run(competition, paths, find_config(args.competition))
            make.run(competition, make.load_folds_config(args.competition), paths)
        todo = select(plan(competition, stages, paths, args.reuse), args.stage, args.fold)
        train(competition, stages, paths, todo, args.workers, args.budget)


if __name__ == "__main__":
    command.run(main)
