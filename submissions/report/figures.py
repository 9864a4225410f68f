"""Figures of the page, as SVG. To add one, write a function here and add a `Figure` to a section of the report."""

import math
from typing import Any

import numpy as np
import pandas as pd

from competition.molecules import is_large
from core.plots import as_svg, as_text, new_figure
from core.text import shortened
from core.types import Array
from models.training.loss_log import read_losses
from submissions.report.charts import curve_grid
from submissions.run import Run

MAX_POINTS = 2000
"""Number of rows in a scatter plot, which keeps the page small."""
MAX_PANELS = 30
"""Number of targets in a figure."""
MAX_CLASSES_WITH_NUMBERS = 12
"""Number of classes up to which a confusion matrix has numbers."""


def scatter(run: Run, y_pred: Array) -> str:
    """Return predictions (n_rows, n_outputs) against the labels, a panel per target."""
    columns = run.columns
    targets = run.task.targets[:MAX_PANELS]
    has_fold = np.flatnonzero(columns.folds >= 0)
    rows = has_fold[:: math.ceil(len(has_fold) / MAX_POINTS)]
    n_columns = min(6, len(targets))
    n_rows = -(-len(targets) // n_columns)
    side = 2.5 if n_columns > 1 else 4.5
    figure, axes = new_figure(n_rows, n_columns, side * n_columns, (side - 0.1) * n_rows)
    for axis in axes.flat[len(targets) :]:
        axis.set_visible(False)
    for t, (target, axis) in enumerate(zip(targets, axes.flat, strict=False)):
        y = columns.y[rows, t]
        mean = np.nanmean(y)
        axis.axline((mean, mean), slope=1, color="grey", linewidth=0.8)
        axis.plot(y_pred[rows, t], y, ".", markersize=3, alpha=0.5, rasterized=True)
        axis.set(title=as_text(shortened(target)), xlabel="prediction", ylabel="truth")
    return as_svg(figure)


def confusion_matrix(names: list[str], y: Array, predicted: Array) -> str:
    """Return the share of each predicted class per true class (rows).

    Args:
        y: class indices (n_rows,).
        predicted: class indices (n_rows,).
    """
    from sklearn.metrics import ConfusionMatrixDisplay

    has_numbers = len(names) <= MAX_CLASSES_WITH_NUMBERS
    side = 2.4 + 0.55 * len(names) if has_numbers else 8
    figure, ((axis,),) = new_figure(width=side, height=side)
    style: dict[str, Any] = {"xticks_rotation": "vertical", "cmap": "Blues", "colorbar": False, "ax": axis}
    ConfusionMatrixDisplay.from_predictions(
        y,
        predicted,
        labels=range(len(names)),
        normalize="true",
        display_labels=[as_text(shortened(name)) for name in names],
        include_values=has_numbers,
        values_format=".0%",
        **style,
    )
    axis.tick_params(labelsize=9 if has_numbers else 6)
    axis.grid(visible=False)
    return as_svg(figure)


def reliability(curves: dict[str, tuple[Array, Array]], class_name: str) -> str:
    """Return the observed frequency of a class against its predicted probability, a line per prediction."""
    figure, ((axis,),) = new_figure()
    for name, (probability, frequency) in curves.items():
        axis.plot(probability, frequency, label=as_text(shortened(name)), marker=".")
    axis.axline((0, 0), slope=1, color="grey", linewidth=0.8)
    axis.set(xlabel=f"probability of {as_text(class_name)}", ylabel="observed frequency")
    axis.set(xlim=(0, None), ylim=(0, None))
    figure.legend(loc="outside right upper", frameon=False)
    return as_svg(figure)


def learning_curves(run: Run, stages: list[str]) -> str | None:
    """Return losses and held-out scores of neural stages by epoch; None without any.

    A stage has a panel with the training loss of each job, and one with the mean score over folds and seeds.
    """
    curves: dict[str, list[tuple[Any, Any]]] = {}
    for stage in stages:
        scores = []
        for job in run.plan.jobs_of_stage(stage):
            records = [record for record in read_losses(job.folder) if record.phase == "train"]
            epochs = {record.epoch: record for record in records}  # the last row of each epoch
            if epochs:
                losses = [record.loss for record in epochs.values()]
                curves.setdefault(f"{stage}, loss", []).append((list(epochs), losses))
                scores.append({epoch: record.held_out_score for epoch, record in epochs.items()})
        mean = pd.DataFrame(scores, dtype=float).mean().dropna()
        if len(mean):
            curves[f"{stage}, held-out {run.metric.name}"] = [(mean.index, mean)]
    return curve_grid(curves, "epoch") if curves else None


def molecule(smiles: str) -> str:
    """Return RDKit's drawing of a molecule; of a large one it would take half a minute."""
    from rdkit import Chem
    from rdkit.Chem.Draw import rdMolDraw2D

    if is_large(smiles):
        return "not drawn"
    drawing = rdMolDraw2D.MolDraw2DSVG(240, 170)
    rdMolDraw2D.PrepareAndDrawMolecule(drawing, Chem.MolFromSmiles(smiles))
    drawing.FinishDrawing()
    return drawing.GetDrawingText()
