"""Train every job that is not finished: `python -m models.train [COMPETITION] [--stage S] [--fold K]`.

A job is one (stage, seed, fold).

Reads: prepared/train.csv and test.csv, folds/folds.csv.
Writes: a folder per job with weights, oof.csv, test predictions and, last, report.json. Finished jobs are skipped.
"""

from __future__ import annotations

import platform
import shutil
import time
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
    fitted = build_stage(stage, context_of(competition, paths, job_seed(competition, job), progress))
    sees_held_out = getattr(stage, "keep", "last") == "best_on_held_out"
    fitted.fit(train.take(~held_out), train.take(held_out) if sees_held_out else None, job.folder)
    valid = train.take(held_out).without_labels()
    write_predictions(job.folder / "oof.csv", valid.ids, competition.targets, fitted.predict(valid, job.folder))
    seconds = time.monotonic() - started
    predict_job(job, stage, competition, paths, read_rows(paths.test, competition, labelled=False), test_key)
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
    planned: set[tuple[str, str]] = set()
    for stage in stages:
        smiles = molecules_of(competition, stage, rows)
        for cache in shared_caches(stage, context_of(competition, paths, 0)):
            name = cache.folder.name
            missing = [text for text in cache.missing(smiles) if (name, text) not in planned]
            planned.update((name, text) for text in missing)
            for start in range(0, len(missing), SHARD):
                part = missing[start : start + SHARD]
                tasks.append(Task(cache.name, fill_cache, (stage, competition, paths, name, part)))
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
        check_molecules(competition, used, paths, [rows, test])
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

    def print_line(self, job: Job) -> None:
        """Stage, seed, fold, score on the held-out fold, seconds."""
        held_out = self.rows.take(self.folds == job.fold)
        assert held_out.y is not None
        y_pred = read_predictions(job.folder / "oof.csv", held_out.ids, self.competition.targets)
        score, seconds = self.metric(held_out.y, y_pred), verify(job)["seconds"]
        print(
            f"stage {job.stage}  seed {job.seed}  fold {job.fold} of {self.n_folds}  "
            f"valid {self.metric.name} {score:.4f}  {seconds:.0f} s"
        )


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
