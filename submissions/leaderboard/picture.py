"""The picture of `./run.sh ledger`: leaderboard against cross-validation."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from competition.files import write_atomically
from submissions.leaderboard.choose import Pick
from submissions.leaderboard.trust import Trust

BLUE, ORANGE, GREY, BLACK = "#1f5fa8", "#c2410c", "#6b7280", "#111827"


def draw(trust: Trust, picks: list[Pick], metric: str, greater_is_better: bool, file: Path) -> None:
    """Scored submissions, the line with its band, and names of the outliers and of what to select.

    Args:
        trust: with at least one scored submission.
        picks: what to select at the end.
        metric: its name.
        greater_is_better: of the metric.
        file: a PNG.
    """
    x = np.array([one.cross_fitted_score for one in trust.scored], float)
    y = np.array([getattr(one, trust.board) for one in trust.scored], float)
    figure = Figure(figsize=(7.2, 5.4), layout="constrained")
    axis = figure.subplots()
    x_range, y_range = _range(x), _range(y)
    grid = np.linspace(*x_range, 200, dtype=np.float64)
    if trust.line is not None:
        middle, half = trust.line.at(grid), trust.line.band(grid)
        axis.fill_between(grid, middle - half, middle + half, color=BLUE, alpha=0.10, linewidth=0)
        label = f"line of {trust.line.n}, slope {trust.line.slope}; band: 95 % of new ones"
        axis.plot(grid, middle, color=BLUE, linewidth=1.5, label=label)
    if max(x_range[0], y_range[0]) < min(x_range[1], y_range[1]):
        axis.plot(grid, grid, color=GREY, linestyle=":", label="leaderboard = CV")
    odd = np.array([one.submission in trust.outliers for one in trust.scored])
    axis.scatter(x[~odd], y[~odd], color=BLUE, s=42, edgecolor="white", zorder=3)
    if odd.any():
        axis.scatter(x[odd], y[odd], color=ORANGE, s=60, marker="D", edgecolor="white", zorder=3, label="outlier")
    chosen = {pick.submission.submission for pick in picks}
    named = [i for i, one in enumerate(trust.scored) if odd[i] or one.submission in chosen]
    ring = [i for i in named if trust.scored[i].submission in chosen]
    if ring:
        axis.scatter(x[ring], y[ring], s=170, facecolor="none", edgecolor=BLACK, linewidth=1.4, label="to select")
    for i in named:
        above = trust.line is not None and y[i] > trust.line.at(x)[i]  # on the side that the line leaves free
        text = axis.annotate(
            trust.scored[i].submission, (x[i], y[i]), (-9, 9) if above else (9, -9), textcoords="offset points",
            ha="right" if above else "left", va="bottom" if above else "top", color=ORANGE if odd[i] else BLACK,
        )  # fmt: skip
        text.set_path_effects([withStroke(linewidth=3, foreground="white")])
    better = "greater is better" if greater_is_better else "less is better"
    axis.set(xlim=x_range, ylim=y_range, xlabel=f"cross_fitted_score ({metric}, {better})")
    axis.set(ylabel=f"{trust.board} leaderboard")
    files = f"{len(x)} submission{'' if len(x) == 1 else 's'}"
    axis.set_title(f"{files}, Spearman {trust.agreement}" if trust.agreement else f"{files}: too few", fontsize=10)
    if axis.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, facecolor="white")
    write_atomically(file, buffer.getvalue())


def _range(values: np.ndarray) -> tuple[float, float]:
    """Of an axis: the values with a margin, which the band may leave."""
    margin = 0.15 * float(np.ptp(values)) or 0.05 * abs(float(values[0])) or 1.0
    return float(values.min()) - margin, float(values.max()) + margin
