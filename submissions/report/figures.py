"""Figures of the page, as SVG.

To add one, write a function here and add a `Figure` to a section of the report.
"""

import math
from typing import Any

import numpy as np
import pandas as pd

from competition.metrics import Metric
from competition.molecules import is_large
from core.plots import as_svg, as_text, new_figure
from core.text import shortened

MAX_PANELS = 30
"""Number of targets in a figure."""
MAX_COLUMNS_WITH_NUMBERS = 20
"""Columns up to which a heat map shows the number in each cell."""
ROW_HEIGHT = 0.27
"""Inches of a row in a chart with one row per stage or candidate."""
BLUE = "#0072b2"
ORANGE = "#d55e00"
GREEN = "#009e73"
"""Colours that are distinguishable with colour blindness (Okabe and Ito)."""
COLORS = {"stage": GREEN, "candidate": BLUE, "submission": ORANGE}


def score_chart(rows: pd.DataFrame, metric: Metric) -> str:
    """Return a dot plot of scores +- a standard error, and test scores.

    Stages come first, then candidates, both from best to worst.

    Args:
        rows: `name`, `kind` (a key of COLORS), `score`, `score_standard_error` and `test_score`, which may be
            NaN.
    """
    numbers = rows.astype({"score": float, "score_standard_error": float, "test_score": float})
    is_candidate = numbers["kind"] != "stage"
    losses = -numbers["score"] if metric.greater_is_better else numbers["score"]
    numbers = numbers.iloc[np.lexsort([losses, is_candidate])].reset_index()
    figure, ((axis,),) = new_figure(width=7.6, height=0.9 + ROW_HEIGHT * len(rows))
    for kind, color in COLORS.items():
        part = numbers[numbers["kind"] == kind]
        errors = part["score_standard_error"]
        axis.errorbar(part["score"], part.index, xerr=errors, fmt="o", capsize=2, color=color, label=kind)
        axis.plot(part["test_score"], part.index, "D", color=color, markerfacecolor="none")
    axis.set_yticks(numbers.index, [as_text(shortened(name)) for name in numbers["name"]])
    axis.invert_yaxis()
    axis.set_xlabel(f"{as_text(metric.name)} ({metric.direction})")
    figure.legend(loc="outside upper right", ncols=len(COLORS))
    return as_svg(figure)


def time_line_chart(bars: list[tuple[str, float, float]], end: float) -> str:
    """Return a row of bars per stage.

    Args:
        bars: stage, start and duration of each job, in minutes since the command started; `end` too.
    """
    names, starts, minutes = zip(*bars, strict=True)
    figure, ((axis,),) = new_figure(width=7.6, height=0.9 + ROW_HEIGHT * len({*names}))
    rows = [as_text(shortened(name)) for name in names]
    axis.barh(rows, minutes, left=starts, color=BLUE, edgecolor=BLUE, alpha=0.5)
    axis.invert_yaxis()
    axis.set_xlim(0, end)
    axis.set_xlabel("minutes since the command started")
    return as_svg(figure)


def heat_map(table: pd.DataFrame, lowest: float, colors: str, form: str) -> str:
    """Return a heat map of a table with values from `lowest` to 1; NaN is blank.

    Args:
        colors: name of a colour map with dark ends.
        form: format of the number in each cell.
    """
    n_rows, n_columns = table.shape
    figure, ((axis,),) = new_figure(width=max(3.2, 1.6 + 0.62 * n_columns), height=1.2 + ROW_HEIGHT * n_rows)
    # Without interpolation the image has a pixel per cell, and not one per pixel of the figure.
    axis.imshow(table, cmap=colors, vmin=lowest, vmax=1, aspect="auto", interpolation="none")
    axis.set_yticks(range(n_rows), [as_text(shortened(name)) for name in table.index])
    names = [as_text(shortened(name)) for name in table.columns]
    axis.set_xticks(range(n_columns), names, rotation=45, ha="left", rotation_mode="anchor")
    axis.xaxis.tick_top()
    axis.grid(visible=False)
    if n_columns <= MAX_COLUMNS_WITH_NUMBERS:
        for (row, column), value in np.ndenumerate(table):
            if np.isfinite(value):
                color = "white" if abs(value) > 0.6 else "black"
                axis.text(column, row, form.format(value), ha="center", va="center", color=color, fontsize=8)
    return as_svg(figure)


def panels(lines_of_panels: dict[str, list[tuple[Any, Any, str]]], x_label: str, y_label: str = "") -> str:
    """Return small panels side by side, at most MAX_PANELS; a single one is larger.

    Args:
        lines_of_panels: title of a panel -> x, y and style of each line: "-", or "." for points.
    """
    titles = list(lines_of_panels)[:MAX_PANELS]
    n_columns = min(4, len(titles))
    n_rows = math.ceil(len(titles) / n_columns)
    side = 2.5 if n_columns > 1 else 4.5
    figure, axes = new_figure(n_rows, n_columns, side * n_columns, side * n_rows)
    for axis in axes.flat[len(titles) :]:
        axis.set_visible(False)
    for axis, title in zip(axes.flat, titles, strict=False):
        axis.set(title=as_text(shortened(title)), xlabel=x_label, ylabel=y_label)
        axis.xaxis.get_major_locator().set_params(integer=x_label == "epoch")
        for x, y, given in lines_of_panels[title]:
            style = given if len(x) > 1 else "."  # a line of one point is invisible
            axis.plot(x, y, style, color=BLUE, alpha=0.5, linewidth=1, markersize=3, rasterized=style == ".")
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
