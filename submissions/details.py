"""What the page shows beyond the summary: single rows, errors of stages against each other, learning curves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from competition.files import derive_seed, read_json, read_table
from competition.metrics import Array
from models.settings import NeuralStage
from models.training.schedules import with_warmup
from submissions.columns import Columns
from submissions.findings import Findings
from submissions.run import SUBMISSION_FILE, Run
from submissions.spread import SPREAD_FILE

TRAINING, PRETRAINING = (
    "training.json",
    "pretraining.json",
)  # of modules that import torch
WORST = 20
MOST_POINTS, MOST_NUMBERS = 2000, 150_000
"""Rows in a plot, and numbers in all plots together: the page stays below 5 MB with any number of columns."""


def points(found: Findings) -> dict[str, Any]:
    """Some rows, drawn at random, for the plots: ids, folds, truth and predictions as lists of one per target.

    Numbers have five significant digits; null where there is no label.
    """
    columns, targets = found.columns, found.run.config.competition.targets
    predictions = {"submission": found.cross_fitted}
    predictions |= {stage: columns.oof_of(stage) for stage in found.run.config.stages}
    scored = np.flatnonzero((columns.folds >= 0) & ~np.isnan(columns.y).all(axis=1))
    most = min(MOST_POINTS, MOST_NUMBERS // (len(targets) * (len(predictions) + 1)))
    rng = np.random.default_rng(derive_seed(found.run.config.competition.seed, "points"))
    rows = np.sort(rng.choice(scored, min(most, len(scored)), replace=False))
    return {
        "of": len(scored),
        "ids": [columns.ids[i] for i in rows],
        "folds": columns.folds[rows].tolist(),
        "targets": targets,
        "truth": _numbers(columns.y[rows]),
        "predictions": {name: _numbers(y_pred[rows]) for name, y_pred in predictions.items()},
    }


def _numbers(values: Array) -> list[list[float | None]]:
    return [[float(f"{v:.5g}") if np.isfinite(v) else None for v in column] for column in values.T]


def error_correlation(columns: Columns, target: int) -> Array:
    """Pearson's correlation between the out-of-fold errors of stages on one target, (n_stages, n_stages)."""
    known = (columns.folds >= 0) & ~np.isnan(columns.y[:, target])
    errors = columns.oof[known, :, target] - columns.y[known, target][:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.atleast_2d(np.corrcoef(errors, rowvar=False))


@dataclass(frozen=True)
class WorstRow:
    """A training row with its inputs; `values`: truth, prediction, residual in standard deviations per target."""

    id: str
    fold: int
    inputs: dict[str, Any]
    values: dict[str, tuple[float, float, float]]


def worst_rows(found: Findings) -> list[WorstRow]:
    """The rows with the largest residual of the whole procedure, in standard deviations of the target's labels."""
    columns, competition = found.columns, found.run.config.competition
    with np.errstate(divide="ignore", invalid="ignore"):
        residuals = (columns.y - found.cross_fitted) / np.nanstd(columns.y[columns.folds >= 0], axis=0)
    largest = np.where(np.isfinite(residuals), np.abs(residuals), -1.0).max(axis=1)
    order = np.argsort(-largest, kind="stable")[:WORST]
    table = read_table(found.run.paths.train)
    return [
        WorstRow(
            columns.ids[i],
            int(columns.folds[i]),
            {name: table[name].iloc[i] for name in competition.inputs},
            {
                target: (float(columns.y[i, t]), float(found.cross_fitted[i, t]), float(residuals[i, t]))
                for t, target in enumerate(competition.targets)
            },
        )
        for i in order
        if largest[i] >= 0
    ]


def uncertain_rows(found: Findings) -> list[tuple[str, list[tuple[float, float]]]]:
    """Test rows on which seeds and folds disagree most: id, and prediction and standard deviation per target.

    Ordered by the largest deviation in standard deviations of the target's labels; empty without spread.csv.
    """
    path = found.run.folder / SPREAD_FILE
    if not path.exists():
        return []
    id_column, task = found.run.config.competition.id, found.run.task
    spread = read_table(path, ["id"]).set_index("id")[task.outputs]
    predicted = read_table(found.run.folder / SUBMISSION_FILE, [id_column]).set_index(id_column)
    predicted = predicted.loc[spread.index, task.columns_in_sample]
    labels = np.nanstd(found.columns.y[found.columns.folds >= 0], axis=0)
    largest = np.nan_to_num(spread.to_numpy() / labels).max(axis=1)  # a row that was dropped has none
    order = np.argsort(-largest, kind="stable")[:WORST]
    return [
        (str(spread.index[i]), list(zip(predicted.iloc[i].tolist(), spread.iloc[i].tolist(), strict=True)))
        for i in order
    ]


@dataclass(frozen=True)
class Curves:
    """Training of a neural stage.

    phase: what was learned: "masked tokens", "extra rows" or "labels".
    losses: of each job by epoch; held_out: as well, where the stage looks at its held-out fold.
    rates: (epoch, learning rate), the schedule of the YAML; empty where the phase has one of its own.
    schedule: that schedule in words.
    """

    stage: str
    phase: str
    losses: list[list[float]]
    held_out: list[list[float]]
    rates: list[tuple[float, float]]
    schedule: str


def learning_curves(found: Findings) -> list[Curves]:
    """Curves of all neural stages, in the order of training."""
    curves = []
    for name, stage in found.run.config.stages.items():
        if not isinstance(stage, NeuralStage):
            continue
        folders = [job.folder for job in found.run.plan.of(name)]
        for phase, file, key in (
            ("masked tokens", PRETRAINING, "history"),
            ("extra rows", TRAINING, "pretrain_history"),
            ("labels", TRAINING, "history"),
        ):
            histories = [read_json(f / file).get(key, []) for f in folders if (f / file).exists()]
            histories = [history for history in histories if history]
            if histories:
                losses, held_out = (
                    [[epoch[which] for epoch in history] for history in histories if which in history[0]]
                    for which in ("train_loss", "valid_loss")
                )
                rates = [] if phase == "masked tokens" else schedule_of(stage, found.columns.folds)
                words = f"{stage.schedule}, warm-up {stage.warmup:g}, peak {stage.learning_rate:g}"
                curves.append(Curves(name, phase, losses, held_out, rates, words))
    return curves


def schedule_of(stage: NeuralStage, folds: Any, n_points: int = 240) -> list[tuple[float, float]]:
    """Learning rate of the top layer over the epochs, from the settings and the rows that a fold trains on."""
    n_rows = float(np.mean([(folds != fold).sum() for fold in range(int(folds.max()) + 1)]))
    n_steps = stage.epochs * math.ceil(n_rows / (stage.batch_size * stage.accumulate))
    n_steps = max(n_steps, math.floor(stage.warmup) + 1)
    rate = with_warmup(stage.schedule, stage.warmup, n_steps, stage.cycles, stage.decay)
    steps = np.unique(np.linspace(0, n_steps - 1, n_points).round().astype(int)).tolist()
    return [(stage.epochs * (step + 1) / n_steps, stage.learning_rate * rate(step)) for step in steps]


def fold_rows(found: Findings) -> list[tuple[int, int, list[tuple[float, float]]]]:
    """Of each fold: its number, how many rows it has, and mean and standard deviation of each target's labels."""
    columns = found.columns
    return [
        (int(fold), len(y), [(float(np.nanmean(part)), float(np.nanstd(part))) for part in y.T])
        for fold in np.unique(columns.folds)
        for y in [columns.y[columns.folds == fold]]
    ]


def dropped_ids(run: Run) -> dict[str, list[str]]:
    """Ids of the rows that were left out as unparsable, by table."""
    report = read_json(run.paths.prepare_report)
    return {"training": report["dropped_train_ids"], "test": report["dropped_test_ids"]}
