"""Figures of the page, as SVG. To add one, write a function here and name it in a section of `findings.py`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition.files import derive_seed, read_json
from competition.metrics import Array
from competition.plots import as_svg, new_figure
from models.settings import NeuralStage
from models.training.schedules import with_warmup
from submissions.run import Run

MOST_POINTS, MOST_PANELS = 2000, 60
"""Rows in a plot and plots in a figure: the page stays small with any number of rows and columns."""
TRAINING, PRETRAINING = "training.json", "pretraining.json"  # of modules that import torch


def weights(run: Run) -> str:
    """The weight of each column in the blend, a panel for each target."""
    of_target = run.weights
    figure, axes = new_figure(
        1, len(of_target), width=max(4.0, 2.6 * len(of_target)), height=0.8 + 0.3 * len(run.columns.names)
    )
    for axis, (target, found) in zip(axes[0], of_target.items(), strict=True):
        axis.barh(list(found)[::-1], list(found.values())[::-1])
        axis.set(title=target, xlabel="weight")
    return as_svg(figure)


def fold_scores(run: Run, scores: dict[str, list[float]]) -> str:
    """The score of each stage in each fold."""
    figure, axes = new_figure(width=6.4, height=1.0 + 0.3 * len(scores))
    for place, values in enumerate(reversed(scores.values())):
        axes[0, 0].plot(values, [place] * len(values), "o", alpha=0.6, color="C0")
        axes[0, 0].plot(np.nanmean(values), place, "|", color="black", markersize=14)
    axes[0, 0].set_yticks(range(len(scores)), list(scores)[::-1])
    axes[0, 0].set(xlabel=f"{run.metric.name} in each fold (line: mean)")
    return as_svg(figure)


def predictions(run: Run, cross_fitted: Array) -> str:
    """Truth against out-of-fold predictions, a row of panels for each target: the submission, then each stage.

    Args:
        cross_fitted: (n_rows, n_outputs), of the submission.
    """
    columns, targets = run.columns, run.task.targets
    shown = {"submission": cross_fitted} | {stage: columns.oof_of(stage) for stage in sorted(run.config.stages)}
    shown = dict(list(shown.items())[: max(1, MOST_PANELS // len(targets))])
    rng = np.random.default_rng(derive_seed(run.config.competition.seed, "points"))
    scored = np.flatnonzero(columns.folds >= 0)
    rows = np.sort(rng.choice(scored, min(MOST_POINTS, len(scored)), replace=False))
    n_targets = min(len(targets), MOST_PANELS)
    figure, axes = new_figure(n_targets, len(shown), width=2.6 * len(shown), height=2.5 * n_targets)
    for t, of_target in enumerate(axes):
        y = columns.y[rows, t]
        ends = [np.nanmin(y), np.nanmax(y)] if np.isfinite(y).any() else [0, 1]
        for axis, (name, y_pred) in zip(of_target, shown.items(), strict=True):
            axis.plot(ends, ends, color="grey", linewidth=0.8)
            axis.plot(y_pred[rows, t], y, ".", markersize=3, alpha=0.5, rasterized=True)
            axis.set(title=f"{targets[t]}, {name}", xlabel="prediction", ylabel="truth")
    return as_svg(figure)


def residuals(run: Run, cross_fitted: Array) -> str:
    """A histogram of what the submission's out-of-fold predictions leave, a panel for each target."""
    columns, targets = run.columns, run.task.targets[:MOST_PANELS]
    figure, axes = new_figure(1, len(targets), width=max(4.0, 2.8 * len(targets)), height=2.6)
    for t, axis in enumerate(axes[0]):
        left = columns.y[:, t] - cross_fitted[:, t]
        axis.hist(left[np.isfinite(left)], bins=40)
        axis.set(title=targets[t], xlabel="truth minus prediction", ylabel="rows")
    return as_svg(figure)


def error_correlation(y: Array, oof: Array, folds: NDArray[np.int64]) -> Array:
    """Pearson's correlation between the out-of-fold errors of columns on one target, (n_columns, n_columns).

    Args:
        y: (n_rows,), NaN where there is no label.
        oof: (n_rows, n_columns).
        folds: (n_rows,).
    """
    known = (folds >= 0) & ~np.isnan(y)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.atleast_2d(np.corrcoef(oof[known] - y[known, None], rowvar=False))


def correlations(run: Run) -> str:
    """How much the errors of columns have in common, a panel for each target."""
    columns, targets = run.columns, run.task.targets[:MOST_PANELS]
    n = len(columns.names)
    figure, axes = new_figure(1, len(targets), width=(1.6 + 0.5 * n) * len(targets), height=1.3 + 0.45 * n)
    for t, axis in enumerate(axes[0]):
        values = error_correlation(columns.y[:, t], columns.oof[:, :, t], columns.folds)
        axis.imshow(values, vmin=-1, vmax=1, cmap="RdBu_r")
        for (i, j), value in np.ndenumerate(values):
            axis.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if abs(value) > 0.6 else "black")
        axis.set_xticks(range(n), columns.names, rotation=45, ha="right")
        axis.set_yticks(range(n), columns.names)
        axis.grid(False)
        axis.set_title(targets[t])
    return as_svg(figure)


def learning_curves(run: Run, stage: str) -> str | None:
    """Loss by epoch of each job of a neural stage (in both modes where it is monitored), and its learning rates."""
    settings = run.config.stages[stage]
    if not isinstance(settings, NeuralStage):
        return None
    files = [job.folder / TRAINING for job in run.plan.of(stage)]
    histories = [read_json(file)["history"] for file in files if file.exists()]
    if not histories:
        return None
    names = [name for name in histories[0][0] if name.endswith(("_loss", "_mode"))]
    figure, axes = new_figure(1, 2, width=9, height=3.2)
    left, right = axes[0]
    for color, name in enumerate(names):
        losses = [[epoch.get(name, math.nan) for epoch in history] for history in histories]
        for each in losses:
            left.plot(range(1, len(each) + 1), each, color=f"C{color}", alpha=0.3)
        n_epochs = min(map(len, losses))
        mean = np.mean([each[:n_epochs] for each in losses], axis=0)
        left.plot(range(1, n_epochs + 1), mean, color=f"C{color}", linewidth=2.2, label=name.replace("_", " "))
    left.set(xlabel="epoch", ylabel="loss (thin: a job)")
    left.legend()
    right.plot(*zip(*schedule_of(settings, run.columns.folds), strict=True))
    right.set(xlabel="epoch", ylabel="learning rate", title=f"{settings.schedule}, warm-up {settings.warmup:g}")
    return as_svg(figure)


def schedule_of(stage: NeuralStage, folds: Any, n_points: int = 240) -> list[tuple[float, float]]:
    """Learning rate of the top layer over the epochs, from the settings and the rows that a fold trains on."""
    n_rows = float(np.mean([(folds != fold).sum() for fold in range(int(folds.max()) + 1)]))
    n_steps = stage.epochs * math.ceil(n_rows / (stage.batch_size * stage.accumulate))
    n_steps = max(n_steps, math.floor(stage.warmup) + 1)
    rate = with_warmup(stage.schedule, stage.warmup, n_steps, stage.cycles, stage.decay)
    steps = np.unique(np.linspace(0, n_steps - 1, n_points).round().astype(int)).tolist()
    return [(stage.epochs * (step + 1) / n_steps, stage.learning_rate * rate(step)) for step in steps]


def molecule(smiles: str) -> str:
    """RDKit's drawing of a molecule."""
    from rdkit import Chem
    from rdkit.Chem.Draw import rdMolDraw2D

    drawing = rdMolDraw2D.MolDraw2DSVG(240, 170)
    rdMolDraw2D.PrepareAndDrawMolecule(drawing, Chem.MolFromSmiles(smiles))
    drawing.FinishDrawing()
    return str(drawing.GetDrawingText())
