"""Train every job that is not finished: `python -m models.train [COMPETITION] [--stage S] [--fold K]`.

A job is one (stage, seed, fold).

Reads: prepared/train.csv and test.csv, folds/folds.csv.
Writes: a folder per job with weights, oof.csv, test predictions and, last, report.json. Finished jobs are skipped.
"""

from __future__ import annotations

import platform
import shutil
import time
from dataclasses import replace
from functools import partial
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition import command, prepare
from competition.config import CompetitionConfig, find_config, load_competition
from competition.errors import ConfigError
from competition.files import derive_seed
from competition.metrics import load_metric
from competition.paths import Paths
from competition.tables import Rows, read_rows
from folds import make
from folds.table import read_folds
from models.config import load_stages
from models.executor import Executor, Task
from models.jobs import Job, Plan, plan, publish, read_predictions, verify, write_predictions, write_test_predictions
from models.notes import read_notes
from models.stage import Context, build_stage, shared_caches

SHARD = 100  # molecules per shard of a cache: some seconds of work, all that a kill can lose
PACKAGES = ("torch", "transformers", "unimol_tools", "chemprop", "rdkit", "lightgbm", "scikit-learn", "numpy")


def context_of(competition: CompetitionConfig, paths: Paths, seed: int, progress: Any = None) -> Context:
    """What a stage is told beside its own settings."""
    return Context(
        competition.smiles,
        competition.text,
        competition.numeric,
        competition.categorical,
        competition.targets,
        seed,
        paths.cache,
        progress or (lambda done, total: None),
    )


def run_job(
    job: Job, stage: Any, competition: CompetitionConfig, paths: Paths, test_key: str, progress: Any = None
) -> None:
    """Fit one job, predict its held-out fold and the test rows, and publish its folder."""
    train = read_rows(paths.train, competition, labelled=True)
    held_out = read_folds(paths.folds, train.ids) == job.fold
    shutil.rmtree(job.folder, ignore_errors=True)  # what a killed run left
    job.folder.mkdir(parents=True)
    started = time.monotonic()
    test = read_rows(paths.test, competition, labelled=False)
    context = context_of(competition, paths, job_seed(competition, job), progress)
    if stage.sees_test_inputs:
        context = replace(context, unlabelled=train.take(held_out).followed_by(test))
    fitted = build_stage(stage, context)
    sees_held_out = getattr(stage, "keep", "last") == "best_on_held_out"
    fitted.fit(train.take(~held_out), train.take(held_out) if sees_held_out else None, job.folder)
    valid = train.take(held_out).without_labels()
    write_predictions(job.folder / "oof.csv", valid.ids, competition.targets, fitted.predict(valid, job.folder))
    seconds = time.monotonic() - started
    predict_job(job, stage, competition, paths, test, test_key)
    publish(
        job,
        {
            "seconds": seconds,
            "stage": stage.model_dump(mode="json"),
            "python": platform.python_version(),
            "packages": {name: metadata.version(name) for name in PACKAGES},
        },
    )


def predict_job(job: Job, stage: Any, competition: CompetitionConfig, paths: Paths, test: Rows, test_key: str) -> None:
    """Predict test rows with the weights of a job."""
    fitted = build_stage(stage, context_of(competition, paths, job_seed(competition, job)))
    y_pred = fitted.predict(test, job.folder)
    write_test_predictions(job, test_key, test.ids, competition.targets, y_pred)


def job_seed(competition: CompetitionConfig, job: Job) -> int:
    """Seed of a job, from the top-level seed and its names."""
    return derive_seed(competition.seed, job.stage, job.seed, job.fold)


def cache_tasks(competition: CompetitionConfig, stages: list[Any], paths: Paths, rows: list[Rows]) -> list[Task]:
    """Tasks that fill the caches of molecules which several jobs share, before any job starts."""
    tasks = []
    for smiles_column in competition.smiles:
        smiles = sorted({text for part in rows for text in part.inputs[smiles_column]})
        seen = set()
        for stage in stages:
            for cache in shared_caches(stage, context_of(competition, paths, 0)):
                if cache.folder not in seen:
                    seen.add(cache.folder)
                    missing = cache.missing(smiles)
                    for start in range(0, len(missing), SHARD):
                        part = missing[start : start + SHARD]
                        tasks.append(Task(cache.name, fill_cache, (stage, competition, paths, cache.folder.name, part)))
    for stage in stages:
        if stage.kind == "embedding":
            tasks.append(Task("embedding", fill_embeddings, (stage, competition, paths, rows)))
    return tasks


def fill_embeddings(stage: Any, competition: CompetitionConfig, paths: Paths, rows: list[Rows]) -> None:
    """Compute the features of all texts that a frozen encoder has not read yet."""
    from models.embedding import Embedding

    for part in rows:
        Embedding(stage, context_of(competition, paths, 0)).features(part)


def fill_cache(stage: Any, competition: CompetitionConfig, paths: Paths, folder: str, smiles: list[str]) -> None:
    """Compute one shard of one cache."""
    caches = shared_caches(stage, context_of(competition, paths, 0))
    next(cache for cache in caches if cache.folder.name == folder).compute_shard(smiles)


def train(
    competition: CompetitionConfig, stages: dict[str, Any], paths: Paths, todo: Plan, n_workers: int | None
) -> None:
    """Train what is not finished and predict what has no prediction for this test table.

    Raises:
        ConfigError, DataError: of the first job that fails; jobs that were finished before are kept.
    """
    for job in todo.jobs:
        if job.finished:
            verify(job)
    waiting = [job for job in todo.jobs if not job.finished]
    unpredicted = [job for job in todo.jobs if job.finished and not job.has_predicted(todo.test_key)]
    for name in stages:
        jobs = todo.of(name)
        done = [job for job in jobs if job.finished]
        if done:
            mark = "; by other code, accepted with --reuse" if done[0].other_code else ""
            print(f"stage {name}  {len(done)} of {len(jobs)} jobs are finished{mark}")
    if not waiting and not unpredicted:
        return
    used = [stages[name] for name in stages if any(job.stage == name for job in waiting + unpredicted)]
    rows = read_rows(paths.train, competition, labelled=True)
    test = read_rows(paths.test, competition, labelled=False)
    scorer = _Scorer(competition, rows, read_folds(paths.folds, rows.ids), todo.n_folds)
    with Executor(n_workers, len(waiting) + len(unpredicted)) as executor:
        executor.run(cache_tasks(competition, used, paths, [rows, test]), "molecules")
        executor.run(
            [
                Task(
                    f"{job.stage} seed {job.seed} fold {job.fold} of {todo.n_folds}",
                    run_job,
                    (job, stages[job.stage], competition, paths, todo.test_key),
                    takes_progress=True,
                    done=partial(scorer.print_line, job),
                )
                for job in waiting
            ],
            "jobs",
        )
        executor.run(
            [
                Task(job.stage, predict_job, (job, stages[job.stage], competition, paths, test, todo.test_key))
                for job in unpredicted
            ],
            "predictions",
        )


class _Scorer:
    """The line that is printed when a fold is finished."""

    def __init__(self, competition: CompetitionConfig, rows: Rows, folds: NDArray[np.int64], n_folds: int) -> None:
        self.competition, self.rows, self.folds, self.n_folds = competition, rows, folds, n_folds
        self.metric = load_metric(competition.metric, competition.greater_is_better)
        self.noted: set[str] = set()

    def print_line(self, job: Job) -> None:
        """Stage, seed, fold, score on the held-out fold, seconds; after a stage's first fold, its notes."""
        held_out = self.rows.take(self.folds == job.fold)
        assert held_out.y is not None
        y_pred = read_predictions(job.folder / "oof.csv", held_out.ids, self.competition.targets)
        score, seconds = self.metric(held_out.y, y_pred), verify(job)["seconds"]
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
        train(competition, stages, paths, todo, args.workers)


if __name__ == "__main__":
    command.run(main)
