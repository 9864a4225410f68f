"""Train every job that is not finished: `./run.sh train [COMPETITION] [--stage S] [--fold K] [--budget T]`.

A job is one (stage, seed, fold), or a seed's refit on all rows, which starts when its folds are finished. Within a
budget, stages start in the YAML's order; the first job of each shows how long the others take, and what cannot finish
in time is not started. Several processes on one folder share the jobs: each is trained by the one that claims it.
With --shard I/N, a process begins with its own part of all jobs; the verb train ends there, full goes on with the rest.

Reads: prepared/train.parquet and test.parquet, folds/folds.csv.
Writes: a folder per job: weights, out-of-fold and test predictions, and report.json last. Finished jobs are skipped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition import command, prepare
from competition.config import CompetitionConfig, find_config, load_competition
from competition.durations import in_words
from competition.errors import DataError
from competition.metrics import load_metric
from competition.paths import Paths
from competition.tables import Rows, read_rows
from folds import make
from folds.table import read_folds
from models.config import load_stages
from models.jobs.budget import Budget, Group
from models.jobs.claims import Claims
from models.jobs.executor import Executor, runner_of
from models.jobs.plan import ALL, REPORT, Job, Plan, plan, verify
from models.jobs.predictions import read_predictions
from models.jobs.prefill import cache_tasks, check_molecules
from models.jobs.resume import resume
from models.jobs.selection import select, share
from models.jobs.tasks import Runner, Task
from models.jobs.work import context_of, predict_job, run_job
from models.notes import read_notes
from models.registry import shared_caches


def train(
    competition: CompetitionConfig,
    stages: dict[str, Any],
    paths: Paths,
    todo: Plan,
    n_workers: int | None,
    budget: float | None = None,
    runner: Callable[[int | None, int], Runner] = Executor,
) -> None:
    """Train what is not finished and predict what has no prediction for this test table.

    Args:
        budget: seconds from now; what cannot finish in them is left for a later run.
        runner: makes the workers, from their number and that of the tasks.

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
    with Claims(paths) as claims, runner(n_workers, len(waiting) + len(unpredicted)) as executor:
        if budget is None:
            for noun, part in tasks.items():
                executor.run(part, noun, claims=claims)
                if noun == "molecules":
                    check_molecules(competition, list(used.values()), paths, [rows, test])
            return
        together = [task for part in tasks.values() for task in part]
        order = Budget(_groups(competition, used, paths, seconds), together, executor.n_workers, deadline)
        executor.run(together, "jobs", order, claims)
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
                claim=f"{todo.test_key}.{job.name}",
                finished=partial(job.has_predicted, todo.test_key),
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
                group=_jobs_of(job.stage, job.seed),
                can_start=job.can_start,
                claim=job.name,
                finished=(job.folder / REPORT).exists,
            )
            for job in waiting
        ],
    }


def _print_cut(stage: str, todo: Plan, order: Budget, budget: float) -> None:
    """A line for each seed of a stage that has not all its jobs: how many it has, and why not the others."""
    for seed, done in todo.done_by_seed(stage).items():
        if not all(done):
            why = ", ".join(filter(None, (order.why(_jobs_of(stage, seed)), order.why(_predictions_of(stage)))))
            within = f"within the budget of {in_words(budget)}"
            print(f"stage {stage}  seed {seed}  {sum(done)} of {len(done)} jobs finished {within}; {why}")


def _groups(
    competition: CompetitionConfig, stages: dict[str, Any], paths: Paths, seconds: dict[str, list[float]]
) -> list[Group]:
    """Groups of tasks in the order of the stages, each stage after the molecules that it reads."""
    groups: dict[str, Group] = {}
    for name, stage in stages.items():
        shared = [shared.cache for shared in shared_caches(stage, context_of(competition, paths, 0))]
        caches = {cache.folder.name: cache for cache in shared}
        for folder, cache in caches.items():
            groups.setdefault(folder, Group(folder, label=cache.name))
        needs = frozenset(caches)
        labelling = [source for source in (stage.pseudo_labels.of if stage.pseudo_labels else []) if source in stages]
        for source in labelling:
            needs |= {_predictions_of(source), *(_jobs_of(source, seed) for seed in stages[source].seeds)}
        own = [Group(_predictions_of(name), needs)]
        own += [Group(_jobs_of(name, seed), needs, seconds[name]) for seed in stage.seeds]
        groups |= {group.name: group for group in own}
    return list(groups.values())


def _jobs_of(stage: str, seed: int) -> str:
    return f"jobs of {stage}, seed {seed}"


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
        y_pred = read_predictions(job.oof_file, held_out.ids, self.competition.targets)
        score = self.metric(held_out.y, y_pred)
        print(
            f"stage {job.stage}  seed {job.seed}  fold {job.fold} of {self.n_folds}  "
            f"valid {self.metric.name} {score:.4f}  {seconds:.0f} s"
        )
        for note in read_notes(job.folder) if job.stage not in self.noted else []:
            print(f"stage {job.stage}  {note}")
        self.noted.add(job.stage)


def main() -> None:
    """Command line."""
    options = command.parser(__doc__)
    options.add_argument("--prepare", action="store_true", help="the verb train: prepare tables and folds first")
    options.add_argument("--stage", help="train this stage only")
    options.add_argument("--fold", type=int, help="train this fold only, counted from 0")
    args = options.parse_args()
    competition = load_competition(args.competition, args.seed)
    stages = load_stages(args.competition)
    paths = Paths.of(args.competition)
    if args.prepare or args.earlier:
        with command.locked(paths, wait=True):
            if args.prepare:
                prepare.run(competition, paths, find_config(args.competition))
                make.run(competition, make.load_folds_config(args.competition), paths)
            if args.earlier:
                n_finished, n_begun = resume(args.earlier, paths)
                came = f"{n_finished} finished jobs and {n_begun} with a checkpoint that were not here"
                print(f"from {args.earlier}: {came}")
    with command.training(paths, args.shard):
        todo = select(plan(competition, stages, paths, args.reuse), args.stage, args.fold)
        if args.shard:
            i, n = args.shard
            todo = share(todo, i, n, alone=args.prepare)
        runner = runner_of(args.executor, args.ray_address)
        train(competition, stages, paths, todo, args.workers, args.budget, runner)


if __name__ == "__main__":
    command.run(main)
