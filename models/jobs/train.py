"""Train every job that is not finished: `./run.sh train [COMPETITION] [--stage S] [--fold K] [--budget T]`.

A job is one (stage, seed, fold), or a seed's refit on all rows, which starts when its folds are finished. Within a
budget, stages start in the YAML's order; the first job of each shows how long the others take, and what cannot finish
in time is not started. With --shard I/N, this machine has every N-th job, and other machines have the others.

Reads: prepared/train.parquet and test.parquet, folds/folds.csv.
Writes: a folder per job: weights, out-of-fold and test predictions, and report.json last. Finished jobs are skipped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

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
from models.jobs.attempts import verify
from models.jobs.budget import choose, why_unfinished
from models.jobs.local_workers import LocalWorkers
from models.jobs.plan import ALL, Job, Plan, plan, require_answer, say_old_products
from models.jobs.predictions import read_predictions
from models.jobs.prefill import cache_items
from models.jobs.ray_workers import workers_of
from models.jobs.resume import resume
from models.jobs.work import predict_job, run_job
from models.jobs.workers import Item, Workers
from models.notes import read_notes
from models.registry import asks_for_gpu, asks_for_threads

NOUNS = ("molecules", "predictions", "jobs")
"""What is done first, next and last, where there is no budget."""
SEEN_AFTER = 90
"""Seconds after which even a slow network file system shows what another machine wrote."""


def train(
    competition: CompetitionConfig,
    paths: Paths,
    todo: Plan,
    n_workers: int | None,
    budget: float | None = None,
    make_workers: Callable[[int | None], Workers] = LocalWorkers,
    shard: tuple[int, int] = (1, 1),
) -> None:
    """Train what is not finished and predict what has no prediction for this test table.

    Args:
        budget: seconds from now; what cannot finish in them is left for a later run.
        make_workers: makes the workers, from their number.
        shard: which of how many machines on one folder this is.

    Raises:
        ConfigError, DataError: of the first job that fails; jobs that were finished before are kept.
    """
    started, seconds = time.monotonic(), {}
    for name in todo.stages:
        jobs = todo.of(name)
        done = [job for job in jobs if job.finished]
        seconds[_jobs_of(name)] = [verify(job)["seconds"] for job in done]
        if done:
            mark = "; by other code, accepted with --reuse" if done[0].other_code else ""
            print(f"stage {name}  {len(done)} of {len(jobs)} jobs are finished{mark}")
    unfinished = [job for job in todo.jobs if not (job.finished and job.has_predicted(todo.test_key))]
    if not unfinished:
        return
    with make_workers(n_workers) as workers:
        of_stages = _items(competition, paths, todo, unfinished, workers, shard)
        if budget:
            workers.deadline = started + budget
            workers.seconds.update(seconds)
            in_order = [item for items in of_stages for noun in NOUNS for item in items[noun]]
            left, ended = workers.run(in_order, "jobs", choose)
        for noun in NOUNS if not budget else ():
            left, _ = workers.run([item for items in of_stages for item in items[noun]], noun)
    if budget:
        for name in dict.fromkeys(job.stage for job in unfinished):
            for seed, finished in todo.done_by_seed(name).items():
                groups = (_jobs_of(name, seed), _predictions_of(name))
                why = ", ".join(filter(None, (why_unfinished(left, ended, group, workers) for group in groups)))
                of_all = f"{sum(finished)} of {len(finished)} jobs finished within the budget of {in_words(budget)}"
                if not all(finished):
                    print(f"stage {name}  seed {seed}  {of_all}; {why}")
    elif left and shard[1] > 1:
        print(f"{len(left)} jobs wait for jobs of other shards: train again when those are finished, or run full")
    elif left:
        needs = {need.stage for item in left for need in item.arguments[0].needs if not need.finished}
        raise DataError(
            f"{len(left)} jobs need finished jobs of {', '.join(sorted(needs))}; run ./run.sh train with --stage for "
            "these first, or without --stage and --fold."
        )


def _items(
    competition: CompetitionConfig,
    paths: Paths,
    todo: Plan,
    unfinished: list[Job],
    workers: Workers,
    shard: tuple[int, int],
) -> list[dict[str, list[Item]]]:
    """What is to be done for each stage, in their order: noun -> items."""
    rows, test = read_rows(paths.train, competition, labelled=True), read_rows(paths.test, competition, labelled=False)
    lines = _Lines(competition, rows, read_folds(paths.folds, rows.ids), todo.n_folds)
    planned, found = set[tuple[str, str]](), []
    for name in dict.fromkeys(job.stage for job in unfinished):
        stage, predicted = todo.stages[name], _predictions_of(name)
        fills, caches = cache_items(competition, stage, paths, [rows, test], planned)
        begin = len(fills) * (shard[0] - 1) // shard[1]  # each machine elsewhere; it skips what others have filled
        needs = caches | {_predictions_of(source) for source in (stage.pseudo_labels.of if stage.pseudo_labels else [])}
        training = [job for job in unfinished if job.stage == name and not job.finished]
        threads = max(1, workers.most_threads // max(1, len(training))) if asks_for_threads(stage) else 1
        gpu = asks_for_gpu(stage)
        predictions = [
            Item(
                predict_job, (job, stage, competition, paths, test, todo.test_key), gpu,
                group=predicted, alike=predicted, after=caches,
            )
            for job in unfinished
            if job.stage == name and job.finished
        ]  # fmt: skip
        jobs = [
            Item(
                run_job, (job, stage, competition, paths, todo.test_key, threads), gpu, threads,
                group=_jobs_of(name, job.seed), alike=_jobs_of(name), after=needs,
                can_start=job.can_start, done=partial(lines.say, job),
            )
            for job in training
        ]  # fmt: skip
        found.append({"molecules": fills[begin:] + fills[:begin], "predictions": predictions, "jobs": jobs})
    return found


def _jobs_of(stage: str, seed: int | None = None) -> str:
    return f"jobs of {stage}" if seed is None else f"jobs of {stage}, seed {seed}"


def _predictions_of(stage: str) -> str:
    return f"predictions of {stage}"


class _Lines:
    """The line that is printed when a job is finished."""

    def __init__(self, competition: CompetitionConfig, rows: Rows, folds: NDArray[np.int64], n_folds: int) -> None:
        self.competition, self.rows, self.folds, self.n_folds = competition, rows, folds, n_folds
        self.metric = load_metric(competition.metric, competition.greater_is_better)
        self.noted: set[str] = set()

    def say(self, job: Job) -> None:
        """Stage, seed, fold, score on the held-out fold, seconds; after a stage's first fold, its notes."""
        waited = 0
        while not job.finished and waited < SEEN_AFTER:  # by a machine of a cluster that shares a folder
            time.sleep(1)
            waited += 1
        seconds = verify(job)["seconds"]
        if job.fold == ALL:
            print(f"stage {job.stage}  seed {job.seed}  refit on all rows  {seconds:.0f} s")
            return
        held_out = self.rows.take(self.folds == job.fold)
        assert held_out.y is not None
        score = self.metric(held_out.y, read_predictions(job.oof_file, held_out.ids, self.competition.targets))
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
    stages, paths, shard = load_stages(args.competition), Paths.of(args.competition), args.shard or (1, 1)
    if args.prepare:
        with command.locked(paths, wait=True):
            prepare.run(competition, paths, find_config(args.competition))
            make.run(competition, make.load_folds_config(args.competition), paths)
    with command.training(paths, args.shard):
        if args.earlier:
            n_finished, n_begun = resume(args.earlier, paths)
            came = f"{n_finished} finished jobs and {n_begun} with a checkpoint that were not here"
            print(f"from {args.earlier}: {came}")
        say_old_products(paths)
        todo = plan(competition, stages, paths, args.reuse).select(args.stage, args.fold, shard)
        if not args.reuse and not args.retrain:
            require_answer(todo, paths)
        make_workers = workers_of(args.executor, args.ray_address)
        train(competition, paths, todo, args.workers, args.budget, make_workers, shard)


if __name__ == "__main__":
    command.run(main)
