"""Figures of the page, as SVG. To add one, write a function here and add a `Figure` to a section of the report."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from competition.molecules import is_large
from core.plots import as_svg, as_text, new_figure
from core.text import shortened
from core.types import Array

MAX_POINTS = 2000
"""Number of rows in a scatter plot, which keeps the page small."""
MAX_PANELS = 30
"""Number of targets in a figure."""
MAX_CLASSES_WITH_NUMBERS = 12
"""Number of classes up to which a confusion matrix has numbers."""
MAX_CELLS_WITH_NUMBERS = 400
"""Cells up to which a heat map shows the number in each."""
ROW_HEIGHT = 0.27
"""Inches of a row in a chart with one row per stage or candidate."""
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#8a929b"
"""Colours that are distinguishable with colour blindness (Okabe and Ito)."""


class ScoreRow(NamedTuple):
    """One stage or candidate of a score chart, with the standard error of its score, and its score on the answers."""

    name: str
    score: float
    standard_error: float | None
    test_score: float | None
    is_submitted: bool = False


def score_chart(groups: Mapping[str, Sequence[ScoreRow]], metric: str, greater_is_better: bool) -> str:
    """Return a dot plot with one row per stage or candidate: its score, one standard error, and its test score.

    Args:
        groups: heading -> rows, such as stages and candidates; each group is sorted from best to worst.
    """
    rows: list[ScoreRow | str] = []
    for heading, members in groups.items():
        ordered = sorted(members, key=lambda row: row.score, reverse=greater_is_better)
        rows += [heading, *ordered] if ordered else []
    figure, ((axis,),) = new_figure(width=7.6, height=0.9 + ROW_HEIGHT * len(rows))
    labels = []
    for position, row in enumerate(rows):
        if isinstance(row, str):
            labels.append(row)
            continue
        labels.append(as_text(shortened(row.name)))
        style: dict[str, Any] = {"color": ORANGE if row.is_submitted else BLUE, "markersize": 5}
        axis.errorbar(row.score, position, xerr=row.standard_error, fmt="o", capsize=2, **style)
        if row.test_score is not None:
            axis.plot(row.test_score, position, marker="D", markerfacecolor="none", **style)
    axis.set_yticks(range(len(rows)), labels)
    for label, row in zip(axis.get_yticklabels(), rows, strict=True):
        if isinstance(row, str):
            label.set_fontweight("bold")
        elif row.is_submitted:
            label.set_color(ORANGE)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0)
    direction = "higher is better" if greater_is_better else "lower is better"
    axis.set_xlabel(f"{as_text(metric)} ({direction})")
    axis.plot([], [], "o", color=GREY, label="cross-validated, ± standard error")
    axis.plot([], [], "D", color=GREY, markerfacecolor="none", label="on the test answers, if there are any")
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return as_svg(figure)


def heat_map(values: Array, row_names: Sequence[str], column_names: Sequence[str], limit: float) -> str:
    """Return a heat map, (n_rows, n_columns), on a diverging scale from -limit to limit; NaN is blank."""
    n_rows, n_columns = values.shape
    width = max(3.2, 1.6 + 0.62 * n_columns)
    figure, ((axis,),) = new_figure(width=width, height=1.2 + ROW_HEIGHT * n_rows)
    axis.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    axis.set_yticks(range(n_rows), [as_text(shortened(name)) for name in row_names])
    names = [as_text(shortened(name)) for name in column_names]
    axis.set_xticks(range(n_columns), names, rotation=45, ha="left", rotation_mode="anchor")
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.grid(visible=False)
    if values.size <= MAX_CELLS_WITH_NUMBERS:
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                color = "white" if abs(value) > 0.6 * limit else "black"
                number = f"{value:.2f}".replace("-0.00", "0.00")
                axis.text(column, row, number, ha="center", va="center", color=color, fontsize=8)
    return as_svg(figure)


def curve_grid(curves: dict[str, list[tuple[Any, Any]]], x_label: str) -> str:
    """Return small panels side by side.

    Args:
        curves: title of a panel -> (x, y) of each line.
    """
    figure, axes = _panels(list(curves), n_columns=4, side=2.5)
    for axis, lines in zip(axes, curves.values(), strict=True):
        for x, y in lines:
            axis.plot(x, y, color=BLUE, alpha=0.5, linewidth=1)
        axis.set_xlabel(x_label)
    return as_svg(figure)


def scatter(targets: list[str], y: Array, y_pred: Array) -> str:
    """Return predictions (n_rows, n_outputs) against labels (n_rows, n_targets), a panel per target."""
    shown = slice(None, None, math.ceil(len(y) / MAX_POINTS))
    figure, axes = _panels(targets[:MAX_PANELS], n_columns=6, side=2.5)
    for t, axis in enumerate(axes):
        labels = y[shown, t]
        mean = np.nanmean(labels)
        axis.axline((mean, mean), slope=1, color="grey", linewidth=0.8)
        axis.plot(y_pred[shown, t], labels, ".", markersize=3, alpha=0.5, rasterized=True)
        axis.set(xlabel="prediction", ylabel="truth")
    return as_svg(figure)


def _panels(titles: list[str], n_columns: int, side: float) -> tuple[Any, list[Any]]:
    """Return a figure and the axes of its panels, one per title; a single panel is larger."""
    n_columns = min(n_columns, len(titles))
    n_rows = -(-len(titles) // n_columns)
    side = side if n_columns > 1 else 1.8 * side
    figure, axes = new_figure(n_rows, n_columns, side * n_columns, side * n_rows)
    used, unused = axes.flat[: len(titles)], axes.flat[len(titles) :]
    for axis, title in zip(used, titles, strict=True):
        axis.set_title(as_text(shortened(title)))
    for axis in unused:
        axis.set_visible(False)
    return figure, list(used)


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
