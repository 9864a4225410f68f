"""Figures of the page, as SVG. To add one, write a function here and name it in a section of `sections.py`."""

import math
from typing import Any

import numpy as np
import pandas as pd

from competition.files import read_json
from competition.plots import as_svg, as_text, new_figure
from competition.types import Array
from submissions.formatting import shortened
from submissions.run import Run

MOST_POINTS, MOST_PANELS = 2000, 60
"""Rows in a plot and plots in a figure: the page stays small with any number of rows and columns."""
MOST_NUMBERS = 12
"""Classes up to which a confusion matrix has numbers in its cells."""
TRAINING = "training.json"  # of a module that imports torch


def predictions(run: Run, cross_fitted: Array) -> str:
    """Truth against out-of-fold predictions, a row of panels for each target: the submission and the stages.

    Args:
        cross_fitted: (n_rows, n_outputs), of the submission.
    """
    columns, targets = run.columns, run.task.targets[:MOST_PANELS]
    shown = {"submission": cross_fitted} | {stage: columns.stage_oof(stage) for stage in run.config.stages}
    shown = dict(list(shown.items())[: max(1, MOST_PANELS // len(targets))])
    scored = np.flatnonzero(columns.folds >= 0)
    rows = scored[:: math.ceil(len(scored) / MOST_POINTS)]
    figure, axes = new_figure(len(targets), len(shown), 2.6 * len(shown), 2.5 * len(targets))
    for t, target in enumerate(targets):
        y = columns.y[rows, t]
        for axis, (name, y_pred) in zip(axes[t], shown.items(), strict=True):
            axis.axline((np.nanmean(y),) * 2, slope=1, color="grey", linewidth=0.8)
            axis.plot(y_pred[rows, t], y, ".", markersize=3, alpha=0.5, rasterized=True)
            axis.set(title=as_text(f"{target}, {name}"), xlabel="prediction", ylabel="truth")
    return as_svg(figure)


def confusion_matrix(names: list[str], y: Array, predicted: Array) -> str:
    """Shares of each true class (down) that were taken for each class, of numbers of classes, (n_rows,) each."""
    from sklearn.metrics import ConfusionMatrixDisplay

    has_numbers = len(names) <= MOST_NUMBERS
    side = 2.4 + 0.55 * len(names) if has_numbers else 8
    figure, ((axis,),) = new_figure(width=side, height=side)
    shown: Any = {
        "display_labels": [as_text(shortened(name)) for name in names],
        "xticks_rotation": "vertical",
    }
    shown |= {
        "include_values": has_numbers,
        "values_format": ".0%",
        "cmap": "Blues",
        "colorbar": False,
        "ax": axis,
    }
    ConfusionMatrixDisplay.from_predictions(y, predicted, labels=range(len(names)), normalize="true", **shown)
    axis.tick_params(labelsize=9 if has_numbers else 6)
    axis.grid(visible=False)
    return as_svg(figure)


def reliability(curves: dict[str, tuple[Array, Array]], of: str) -> str:
    """How often something is true over its probability, a line with its name beside it for each prediction."""
    figure, ((axis,),) = new_figure()
    for name, (probability, share) in curves.items():
        axis.plot(probability, share, label=as_text(shortened(name)), marker=".")
    axis.axline((0, 0), slope=1, color="grey", linewidth=0.8)
    axis.set(
        xlabel=f"probability of {as_text(of)}", ylabel="how often it is true", xlim=(0, None), ylim=(0, None)
    )
    figure.legend(loc="outside right upper", frameon=False)
    return as_svg(figure)


def learning_curves(run: Run, stage: str) -> str | None:
    """Loss by epoch of each job of a neural stage (in both modes where it is monitored), and its learning
    rates.
    """
    files = [job.folder / TRAINING for job in run.plan.jobs_of_stage(stage)]
    histories = [pd.DataFrame(read_json(file)["history"]) for file in files if file.exists()]
    if not histories:
        return None
    figure, ((left, right),) = new_figure(1, 2, width=9, height=3.2)
    for history in histories:
        epochs = history.index + 1
        for color, name in enumerate(history.filter(regex="_(loss|mode)$")):
            label = name if history is histories[0] else None
            left.plot(epochs, history[name], color=f"C{color}", alpha=0.5, label=label)
        right.plot(epochs, history["learning_rate"], color="C0")
    left.set(xlabel="epoch", ylabel="loss (a line: a job)")
    left.legend()
    right.set(xlabel="epoch", ylabel="learning rate at its end")
    return as_svg(figure)


def molecule(smiles: str) -> str:
    """RDKit's drawing of a molecule."""
    from rdkit import Chem
    from rdkit.Chem.Draw import rdMolDraw2D

    drawing = rdMolDraw2D.MolDraw2DSVG(240, 170)
    rdMolDraw2D.PrepareAndDrawMolecule(drawing, Chem.MolFromSmiles(smiles))
    drawing.FinishDrawing()
    return drawing.GetDrawingText()
