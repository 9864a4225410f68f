"""What a worker does: one job from prepared tables to a published folder, predictions of one, a shard of a cache."""

from __future__ import annotations

import platform
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition.config import CompetitionConfig
from competition.files import derive_seed
from competition.metrics import made_of_absolute_errors
from competition.paths import Paths
from competition.tables import FEATURE, INPUT_KEY, Rows, read_rows
from competition.task import task_of
from folds.table import read_folds, time_ordered
from models.jobs import attempts
from models.jobs.attempts import CHECKPOINTS
from models.jobs.plan import ALL, Job, publish
from models.jobs.predictions import write_predictions, write_test_predictions
from models.jobs.pseudo_labels import pseudo_labels, with_pseudo_labels
from models.registry import build_stage, shared_caches
from models.stage import Context
from models.training.machine import machine

PIECE = 10_000
"""Test rows that are predicted at a time: features and batches of a hidden test of any length stay in memory."""
PACKAGES = (
    "torch", "transformers", "unimol_tools", "chemprop", "rdkit", "lightgbm", "catboost", "scikit-learn", "numpy",
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
        task_of(competition),
        seed,
        paths.cache,
        progress or (lambda done, total: None),
        competition.auxiliary_targets,
        id=competition.id,
        absolute_errors=made_of_absolute_errors(competition.metric),
    )


def run_job(
    job: Job, stage: Any, competition: CompetitionConfig, paths: Paths, test_key: str, progress: Any = None
) -> None:
    """Fit one job, predict its held-out fold, if it has one, and the test rows, and publish its folder."""
    if job.finished:  # by a worker that was lost before it could say so
        return
    attempt = attempts.begin(job.folder)
    try:
        _fit_and_predict(replace(job, folder=attempt), stage, competition, paths, test_key, progress)
    except Exception:
        # Where another process took the folder over, files vanish under this attempt; the job is theirs then.
        if attempts.is_whole(attempt):
            attempts.require_room(attempt)
            raise
    attempts.finish(attempt, job.folder)


def _fit_and_predict(
    job: Job, stage: Any, competition: CompetitionConfig, paths: Paths, test_key: str, progress: Any
) -> None:
    """All that the folder of a job holds, and its report last."""
    rows = read_rows(paths.train, competition, labelled=True)
    folds = read_folds(paths.folds, rows.ids)
    train = rows.take(training_rows(rows, folds, job.fold, stage.extra_rows, time_ordered(paths.folds_report)))
    held_out = rows.take(folds == job.fold)
    started = time.monotonic() - seconds_in_checkpoints(job.folder)
    test = read_rows(paths.test, competition, labelled=False)
    if stage.pseudo_labels is not None:
        labels = pseudo_labels(job, test_key, test.ids, competition.targets)
        train = with_pseudo_labels(train, test, labels, stage.pseudo_labels.weight)
    context = replace(
        context_of(competition, paths, job_seed(competition, job), rows, progress),
        predicts_held_out=True,
        folds=[need.folder for need in job.needs if need.stage == job.stage],
        unlabelled=held_out.followed_by(test) if getattr(stage, "pretrain_on", "train") == "all_inputs" else None,
    )
    fitted = build_stage(stage, context)
    fitted.fit(train, held_out if getattr(stage, "reads_held_out", False) else None, job.folder)
    if job.fold != ALL:
        valid = held_out.without_labels()
        write_predictions(job.oof_file, valid.ids, competition.targets, fitted.predict(valid, job.folder))
        spread = getattr(fitted, "spread", None)
        if spread is not None:
            write_predictions(job.folder / "oof_spread.parquet", valid.ids, competition.targets, spread)
    seconds = time.monotonic() - started
    predict_job(job, stage, competition, paths, test, test_key)
    for checkpoint in job.folder.glob(CHECKPOINTS):
        checkpoint.unlink()
    publish(
        job,
        {
            "seconds": seconds,
            "machine": machine(),
            "stage": stage.model_dump(mode="json"),
            "python": platform.python_version(),
            "packages": {name: metadata.version(name) for name in PACKAGES},
        },
    )


def predict_job(job: Job, stage: Any, competition: CompetitionConfig, paths: Paths, test: Rows, test_key: str) -> None:
    """Predict test rows with the weights of a job, PIECE rows at a time."""
    fitted = build_stage(stage, context_of(competition, paths, job_seed(competition, job), test))
    parts, spreads = [], []
    for start in range(0, len(test), PIECE):
        parts.append(fitted.predict(test.take(np.arange(start, min(start + PIECE, len(test)))), job.folder))
        if getattr(fitted, "spread", None) is not None:
            spreads.append(fitted.spread)  # type: ignore[attr-defined]  # of a neural stage with mc_dropout
    if spreads:
        path = job.test_file(test_key)
        spread = np.concatenate(spreads)
        write_predictions(path.with_name(f"{path.stem}_spread.parquet"), test.ids, competition.targets, spread)
    write_test_predictions(job, test_key, test.ids, competition.targets, np.concatenate(parts))


def training_rows(
    rows: Rows, folds: NDArray[np.int64], fold: int, extra_rows: str, earlier_alone: bool
) -> NDArray[np.bool_]:
    """Which rows (n_rows,) a job trains on: those of other folds, and extra rows with no input of the held-out fold.

    Args:
        extra_rows: the setting of the stage.
        earlier_alone: whether folds are blocks in time, of which later ones are left out.
    """
    trains = folds < fold if earlier_alone and fold != ALL else folds != fold
    if rows.extra is not None:
        held_out = set(rows.inputs[INPUT_KEY][folds == fold])
        in_fold = rows.inputs[INPUT_KEY].isin(held_out).to_numpy()
        trains &= ~(rows.extra & (in_fold | (extra_rows == "ignore")))
    return trains


def seconds_in_checkpoints(folder: Path) -> float:
    """Seconds that a killed run spent on what this one goes on with."""
    found = list(folder.glob(CHECKPOINTS))
    if not found:
        return 0.0
    from models.training.checkpoint import seconds_in  # here, since it imports torch, which trees do without

    return sum(seconds_in(path) for path in found)


def job_seed(competition: CompetitionConfig, job: Job) -> int:
    """Seed of a job, from the top-level seed and the job's seed and fold. The stage's name is not in it: two settings
    share their first weights and their batches, so that they can be compared in pairs."""
    return derive_seed(competition.seed, job.seed, job.fold)


def fill_cache(stage: Any, competition: CompetitionConfig, paths: Paths, folder: str, keys: list[str]) -> None:
    """Compute one shard of one cache."""
    caches = [shared.cache for shared in shared_caches(stage, context_of(competition, paths, 0))]
    next(cache for cache in caches if cache.folder.name == folder).compute_shard(keys)
