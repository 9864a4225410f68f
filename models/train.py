"""Train every job that is not finished: `python -m models.train [COMPETITION] [--stage S] [--fold K] [--budget T]`.

A job is one (stage, seed, fold). Within a budget, stages start in the YAML's order; the first job of each shows how
long the others take, and what cannot finish in time is not started.

Reads: prepared/train.csv and test.csv, folds/folds.csv.
Writes: a folder per job with weights, oof.csv, test predictions and, last, report.json. Finished jobs are skipped.
"""

from __future__ import annotations

import math
import platform
import shutil
import time
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition import command, prepare
from competition.config import CompetitionConfig, find_config, load_competition
from competition.durations import in_words
from competition.errors import ConfigError
from competition.files import derive_seed
from competition.metrics import load_metric
from competition.paths import Paths
from competition.tables import FEATURE, INPUT_KEY, Rows, read_rows
from folds import make
from folds.table import read_folds
from models.budget import Budget, Group
from models.config import load_stages
from models.executor import Executor, Task
from models.jobs import Job, Plan, plan, publish, read_predictions, verify, write_predictions, write_test_predictions
from models.stage import Context, build_stage, shared_caches

CHECKPOINTS = "checkpoint*.pt"
SHARD = 100  # molecules per shard of a cache: some seconds of work, all that a kill can lose
PACKAGES = (
    "torch", "transformers", "unimol_tools", "chemprop", "rdkit", "lightgbm", "catboost", "scikit-learn", "skops",
    "optuna", "numpy",
)  # fmt: skip


def context_of(
    competition: CompetitionConfig, paths: Paths, seed: int, rows: Rows | None = None, progress: Any = None
) -> Context:
    """What a stage is told beside its own settings; `rows` name the features of the user's own, if there are any."""
    features = [] if rows is None else [str(name) for name in rows.inputs if str(name).startswith(FEATURE)]
    return Context(
        competition.smiles,
        competition.text,
        [*competition.numeric, *features],
        competition.categorical,
        competition.targets,
        seed,
        paths.cache,
        progress or (lambda done, total: None),
        competition.auxiliary_targets,
    )


def run_job(
    job: Job, stage: Any, competition: CompetitionConfig, paths: Paths, test_key: str, progress: Any = None
) -> None:
    """Fit one job, predict its held-out fold and the test rows, and publish its folder."""
    rows = read_rows(paths.train, competition, labelled=True)
    folds = read_folds(paths.folds, rows.ids)
    train, held_out = rows.take(training_rows(rows, folds, job.fold, stage.extra_rows)), rows.take(folds == job.fold)
    clear(job.folder)
    started = time.monotonic()
    fitted = build_stage(stage, context_of(competition, paths, job_seed(competition, job), rows, progress))
    sees_held_out = getattr(stage, "keep", "last") == "best_on_held_out"
    fitted.fit(train, held_out if sees_held_out else None, job.folder)
    valid = held_out.without_labels()
    write_predictions(job.folder / "oof.csv", valid.ids, competition.targets, fitted.predict(valid, job.folder))
    spread = getattr(fitted, "spread", None)
    if spread is not None:
        write_predictions(job.folder / "oof_spread.csv", valid.ids, competition.targets, spread)
    seconds = time.monotonic() - started
    predict_job(job, stage, competition, paths, read_rows(paths.test, competition, labelled=False), test_key)
    for checkpoint in job.folder.glob(CHECKPOINTS):
        checkpoint.unlink()
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
    fitted = build_stage(stage, context_of(competition, paths, job_seed(competition, job), test))
    y_pred = fitted.predict(test, job.folder)
    spread = getattr(fitted, "spread", None)
    if spread is not None:
        path = job.test_file(test_key)
        write_predictions(path.with_name(f"{path.stem}_spread.csv"), test.ids, competition.targets, spread)
    write_test_predictions(job, test_key, test.ids, competition.targets, y_pred)


def training_rows(rows: Rows, folds: NDArray[np.int64], fold: int, extra_rows: str) -> NDArray[np.bool_]:
    """Which rows (n_rows,) a job trains on: those of other folds, and extra rows with no input of the held-out fold.

    Args:
        extra_rows: the setting of the stage.
    """
    trains = folds != fold
    if rows.extra is not None:
        held_out = set(rows.inputs[INPUT_KEY][folds == fold])
        in_fold = rows.inputs[INPUT_KEY].isin(held_out).to_numpy()
        trains &= ~(rows.extra & (in_fold | (extra_rows == "ignore")))
    return trains


def clear(folder: Path) -> None:
    """An empty folder for a job, but for checkpoints of a killed run, from which it goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif not path.match(CHECKPOINTS):
            path.unlink()


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
                        tasks.append(
                            Task(
                                cache.name,
                                fill_cache,
                                (stage, competition, paths, cache.folder.name, part),
                                group=cache.folder.name,
                            )
                        )
    return tasks


def fill_cache(stage: Any, competition: CompetitionConfig, paths: Paths, folder: str, smiles: list[str]) -> None:
    """Compute one shard of one cache."""
    caches = shared_caches(stage, context_of(competition, paths, 0))
    next(cache for cache in caches if cache.folder.name == folder).compute_shard(smiles)


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
    tasks = _tasks(competition, used, paths, todo, waiting, unpredicted)
    with Executor(n_workers, len(waiting) + len(unpredicted)) as executor:
        if budget is None:
            for noun, part in tasks.items():
                executor.run(part, noun)
            return
        together = [task for part in tasks.values() for task in part]
        order = Budget(_groups(competition, used, paths, seconds), together, executor.n_workers, deadline)
        executor.run(together, "jobs", order)
    for name in used:
        _print_cut(name, todo, order, budget)


def _tasks(
    competition: CompetitionConfig,
    stages: dict[str, Any],
    paths: Paths,
    todo: Plan,
    waiting: list[Job],
    unpredicted: list[Job],
) -> dict[str, list[Task]]:
    """All tasks, in the order in which they are run without a budget: noun for the bar -> tasks."""
    rows = read_rows(paths.train, competition, labelled=True)
    test = read_rows(paths.test, competition, labelled=False)
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
                f"{job.stage} seed {job.seed} fold {job.fold} of {todo.n_folds}",
                run_job,
                (job, stages[job.stage], competition, paths, todo.test_key),
                takes_progress=True,
                done=partial(scorer.print_line, job),
                group=_jobs_of(job.stage),
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
        needs = frozenset(caches)
        for group in (Group(_predictions_of(name), needs), Group(_jobs_of(name), needs, seconds[name])):
            groups[group.name] = group
    return list(groups.values())


def _jobs_of(stage: str) -> str:
    return f"jobs of {stage}"


def _predictions_of(stage: str) -> str:
    return f"predictions of {stage}"


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
        train(competition, stages, paths, todo, args.workers, args.budget)


if __name__ == "__main__":
    command.run(main)
