"""Charts of scores, weights and correlations for the report page, as SVG."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.plots import as_svg, as_text, new_figure
from core.text import shortened
from core.types import Array

ROW_HEIGHT = 0.27
"""Inches of a row in a chart with one row per stage or candidate."""
MAX_CELLS_WITH_NUMBERS = 400
"""Cells up to which a heat map shows the number in each."""
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#8a929b"
"""Colours that are distinguishable with colour blindness (Okabe and Ito)."""


@dataclass(frozen=True)
class ScoreRow:
    """One stage or candidate of a score chart.

    Attributes:
        name: shown at the left.
        score: cross-validated score.
        standard_error: of the score; None if unknown.
        test_score: score on the answers; None without answers.
        is_submitted: whether this is what was submitted.
    """

    name: str
    score: float
    standard_error: float | None = None
    test_score: float | None = None
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
        color = ORANGE if row.is_submitted else BLUE
        axis.errorbar(
            row.score, position, xerr=row.standard_error, fmt="o", color=color, markersize=5, capsize=2
        )
        if row.test_score is not None:
            axis.plot(row.test_score, position, marker="D", markersize=5, markerfacecolor="none", color=color)
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
    if any(isinstance(row, ScoreRow) and row.test_score is not None for row in rows):
        axis.plot([], [], "o", color=GREY, label="cross-validated, ± standard error")
        axis.plot([], [], "D", color=GREY, markerfacecolor="none", label="on the test answers")
        figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return as_svg(figure)


def heat_map(
    values: Array, row_names: Sequence[str], column_names: Sequence[str], limit: float, form: str
) -> str:
    """Return a heat map, (n_rows, n_columns), on a diverging scale from -limit to limit; NaN is blank.

    Args:
        form: format of the numbers in the cells, such as "{:.2f}".
    """
    n_rows, n_columns = values.shape
    width = 1.6 + 0.62 * n_columns
    height = 1.2 + ROW_HEIGHT * n_rows
    figure, ((axis,),) = new_figure(width=max(3.2, width), height=height)
    axis.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    axis.set_yticks(range(n_rows), [as_text(shortened(name)) for name in row_names])
    names = [as_text(shortened(name)) for name in column_names]
    axis.set_xticks(range(n_columns), names, rotation=45, ha="left", rotation_mode="anchor")
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    if values.size <= MAX_CELLS_WITH_NUMBERS:
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                color = "white" if abs(value) > 0.6 * limit else "black"
                number = form.format(value).replace("-0.00", "0.00")
                axis.text(column, row, number, ha="center", va="center", color=color, fontsize=8)
    return as_svg(figure)


def curve_grid(curves: dict[str, list[tuple[Any, Any]]], x_label: str) -> str:
    """Return small panels side by side.

    Args:
        curves: title of a panel -> (x, y) of each line.
    """
    n_columns = min(4, len(curves))
    n_rows = -(-len(curves) // n_columns)
    width, height = (2.5, 1.9) if n_columns > 1 else (4.5, 3.0)
    figure, axes = new_figure(n_rows, n_columns, width * n_columns, height * n_rows)
    for axis in axes.flat[len(curves) :]:
        axis.set_visible(False)
    for axis, (title, lines) in zip(axes.flat, curves.items(), strict=False):
        for x, y in lines:
            axis.plot(x, y, color=BLUE, alpha=0.5, linewidth=1)
        axis.set_title(as_text(shortened(title)))
    for axis in axes[-1]:
        axis.set_xlabel(x_label)
    return as_svg(figure)
