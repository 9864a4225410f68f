"""Train every job that is not finished: `./run.sh train [COMPETITION] [--stage S] [--fold K]`.

A job is one (stage, seed, fold), or a seed's refit on all rows, which starts when its folds are finished. With
--shard I/N, this machine has every N-th job, and other machines have the others.

Reads: prepared/train.parquet and test.parquet, folds/folds.csv.
Writes: a folder per job: weights, out-of-fold and test predictions, and report.json last. Finished jobs are skipped.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from competition import command, prepare
from competition.config import find_config, load_competition
from competition.errors import ConfigError, DataError
from competition.files import read_json, table_digest
from competition.metrics import METRICS
from competition.paths import Paths
from competition.tables import Rows, read_rows
from competition.task import metric_of, task_of
from competition.types import Integers
from folds import make
from models.config import TreesStage, load_stages
from models.jobs.folder import read_predictions, verify
from models.jobs.job_rows import read_tables
from models.jobs.plan import ALL, REPORT, Job, Plan, plan, require_answer
from models.jobs.prefill import cache_items
from models.jobs.ray_workers import workers_of
from models.jobs.resume import resume
from models.jobs.run_job import run_job
from models.jobs.workers import Item, Workers
from models.stage import read_notes

SEEN_AFTER = 90
"""Seconds after which even a slow network file system shows what another machine wrote."""


def train(todo: Plan, make_workers: Callable[[], Workers] = Workers) -> None:
    """Train what is not finished and predict what has no prediction for this test table."""
    for name in todo.stages:
        if done := [job for job in todo.of(name) if job.finished]:
            for job in done:
                verify(job)
            mark = "; by other code, accepted with --reuse" if done[0].other_code else ""
            print(f"stage {name}  {len(done)} of {len(todo.of(name))} jobs are finished{mark}")
    unfinished = [job for job in todo.jobs if not job.has_predicted(todo.test_key)]
    if not unfinished:
        return
    rows, test, folds = read_tables(todo)
    with make_workers() as workers:
        left = workers.run(items_of(todo, unfinished, [rows, test], workers, Told(todo, rows, folds).of), "jobs")
    if left and todo.shard[1] > 1:
        print(f"{len(left)} jobs wait for jobs of other shards: train again when those are finished, or run full")
    elif left:
        needs = [need for item in left for need in item.arguments[0].needs]
        lacking = sorted({need.stage for need in needs if not need.has_predicted(todo.test_key)})
        raise DataError(
            f"{len(left)} jobs need finished jobs of {', '.join(lacking)}; run ./run.sh train with --stage for these "
            "first, or without --stage and --fold."
        )


class Told:
    """Says what each trained job gave, a line each."""

    def __init__(self, todo: Plan, rows: Rows, folds: Integers) -> None:
        self.rows, self.folds, self.n_folds = rows, folds, todo.n_folds
        self.metric, self.task, self.noted = metric_of(todo.competition), task_of(todo.competition), set[str]()
        if self.task.decides and self.task.has_probabilities:  # decisions are tuned by the blend, on all folds
            self.metric, self.task = METRICS["log_loss"], replace(self.task, decides=False)

    def of(self, job: Job) -> None:
        """Stage, seed, fold, score on the held-out fold, seconds; after a stage's first fold, its notes."""
        deadline = time.monotonic() + SEEN_AFTER
        while not job.finished and time.monotonic() < deadline:  # by a machine of a cluster that shares a folder
            time.sleep(1)
        took = f"{read_json(job.folder / REPORT, 'seconds')['seconds']:.0f} s"
        if job.fold == ALL:
            print(f"stage {job.stage}  seed {job.seed}  refit on all rows  {took}")
            return
        held_out, metric, task = self.rows.take(self.folds == job.fold), self.metric, self.task
        y_pred = read_predictions(job.oof_file, held_out.ids, task.outputs)
        score = metric(held_out.y, task.likeliest(y_pred) if task.decides else y_pred)
        few = " (fewer than two labels)" if (np.isfinite(held_out.y).sum(axis=0) < 2).any() else ""
        fold = f"fold {job.fold} of {self.n_folds}"
        print(f"stage {job.stage}  seed {job.seed}  {fold}  valid {metric.name} {score:.4f}{few}  {took}")
        for note in read_notes(job.folder) if job.stage not in self.noted else []:
            print(f"stage {job.stage}  {note}")
        self.noted.add(job.stage)


def predict_jobs(todo: Plan, make_workers: Callable[[], Workers] = Workers) -> str:
    """Predict a new test table with every finished job that has not predicted it yet; returns the key of the table.

    Reads weights and `todo.paths.test`, no training table.
    """
    for job in todo.jobs:
        verify(job)
    todo = replace(todo, test_key=table_digest(todo.paths.test)[:16])
    waiting = [job for job in todo.jobs if not job.has_predicted(todo.test_key)]
    if fixed := sorted({job.stage for job in waiting if todo.stages[job.stage].kind == "file"}):
        raise DataError(
            f"the stages {', '.join(fixed)} (kind: file) only have predictions for the competition's own test rows. "
            "Run ./run.sh full without them, or with the new table as competition.test and its rows in their test.csv."
        )
    if waiting:
        rows = read_rows(todo.paths.test, todo.competition, labelled=False)
        with make_workers() as workers:
            workers.run(items_of(todo, waiting, [rows], workers), "predictions")
    return todo.test_key


def uses_gpu(stage: Any) -> bool:
    """Whether its jobs take a GPU for themselves, where there is one."""
    return bool(stage.gpu_share)


def threads_of(stage: Any, n_jobs: int, workers: Workers) -> int:
    """Cores of a job where so many train side by side: of trees, whose result does not depend on it, an equal share."""
    return max(1, workers.most_threads // n_jobs) if isinstance(stage, TreesStage) else 1


def items_of(
    todo: Plan,
    unfinished: list[Job],
    rows: list[Rows],
    workers: Workers,
    say: Callable[[Job], None] = print,
    planned: set[tuple[str, str]] | None = None,
) -> list[Item]:
    """Parts of caches to fill, stage by stage, and behind them jobs, which `say` is called with when trained.

    Args:
        planned: cache and key of all that items handed out before compute; what these compute is added.
    """
    planned, all_fills, jobs = set() if planned is None else planned, list[Item](), list[Item]()
    told, (shard, n_shards) = replace(todo, jobs=[]), todo.shard  # a worker needs no other job than its own
    for name in dict.fromkeys(job.stage for job in unfinished):
        stage, own = todo.stages[name], [job for job in unfinished if job.stage == name]
        threads = threads_of(stage, max(len(own), todo.n_folds), workers)
        fills, caches = cache_items(todo, name, rows, planned)
        begin = len(fills) * (shard - 1) // n_shards  # each machine elsewhere; it skips what others have filled
        all_fills += fills[begin:] + fills[:begin]
        jobs += [
            Item(
                run_job,
                (job, told, threads),
                uses_gpu(stage),
                threads,
                group=name,
                after=caches,
                files=() if job.finished else tuple(need.test_file(todo.test_key) for need in job.needs),
                done=None if job.finished else partial(say, job),
            )
            for job in own
        ]
    return all_fills + jobs


def main() -> None:
    """Command line."""
    options = command.parser(__doc__)
    options.add_argument("--prepare", action="store_true", help="the verb train: prepare tables and folds first")
    options.add_argument("--stage", help="train this stage only")
    options.add_argument("--fold", type=int, help="train this fold only, counted from 0")
    args = options.parse_args()
    if args.budget:
        raise ConfigError("--budget is of full, which trains what fits; train has no time to keep to.")
    competition = load_competition(args.competition, args.seed)
    stages, paths, shard = load_stages(args.competition), Paths.of(args.competition), args.shard or (1, 1)
    if args.prepare:
        with command.locked(paths, wait=True):
            prepare.run(competition, paths, find_config(args.competition))
            make.run(competition, make.load_folds_config(args.competition), paths)
    with command.training(paths, args.shard):
        if args.earlier:
            resume(args.earlier, paths)
        todo = plan(competition, stages, paths, args.reuse).select(args.stage, args.fold, shard)
        if not args.reuse and not args.retrain:
            require_answer(todo)
        train(todo, workers_of(args.executor, args.ray_address, args.workers))


if __name__ == "__main__":
    command.run(main)
