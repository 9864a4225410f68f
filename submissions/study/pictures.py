"""Plots of a study as SVG: gains with their intervals, scores along an axis of numbers, losses in both modes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from competition.files import write_atomically
from submissions.study.summary import Summary, by_stage

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#6b7280"
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#1b1f24"]
"""Okabe and Ito's (Color Universal Design, 2008); lines differ in their markers, too."""
MARKERS = "osD^vPX"
MOST_PANELS = 12
LOSSES: dict[str, dict[str, Any]] = {
    "train_training_mode": {"color": BLUE, "linestyle": "--", "label": "training rows, dropout on"},
    "train_evaluation_mode": {"color": BLUE, "label": "training rows, dropout off"},
    "held_out_training_mode": {"color": ORANGE, "linestyle": "--", "label": "held-out rows, dropout on"},
    "held_out_evaluation_mode": {"color": ORANGE, "label": "held-out rows, dropout off"},
}


def draw(made: list[Summary], by_epoch: pd.DataFrame, by_seeds: pd.DataFrame, folder: Path) -> dict[str, str]:
    """Write the plots into a folder as SVG; words about each -> its SVG."""
    pictures: dict[str, str] = {}
    for (data, stage), cells in by_stage(made).items():
        figures = {
            f"gains_{data}_{stage}": (
                f"{data}, {stage}: paired gain with its 95 % interval (right is better; filled leaves 0 out)",
                _gains(cells),
            ),
            **{
                f"score_{data}_{stage}_{axis}": (f"{data}, {stage}: score by {axis}", _by_axis(cells, axis))
                for axis in cells[0].cell.values
                if len(_numbers(cells, axis)) > 2
            },
        }
        if len(by_epoch):
            own = by_epoch[(by_epoch["data"] == data) & (by_epoch["stage"] == stage)]
            words = f"{data}, {stage}: loss by epoch, mean over jobs, with dropout on (dashed) and off"
            figures[f"losses_{data}_{stage}"] = (words, _losses(cells, own) if len(own) else None)
        if len(by_seeds):
            own = by_seeds[(by_seeds["data"] == data) & (by_seeds["stage"] == stage)]
            words = f"{data}, {stage}: score of the mean prediction of several seeds"
            figures[f"seeds_{data}_{stage}"] = (words, _averages(cells, own))
        for name, (words, figure) in figures.items():
            if figure is not None:
                pictures[words] = _svg(figure)
                write_atomically(folder / f"{name}.svg", pictures[words])
    return pictures


def _gains(cells: list[Summary]) -> Figure | None:
    compared = [(cell, cell.gain) for cell in reversed(cells) if cell.gain is not None]
    if not compared:
        return None
    figure = Figure(figsize=(7, 0.8 + 0.28 * len(compared)), layout="constrained")
    axis = figure.subplots()
    axis.axvline(0, color=GREY, linewidth=1)
    for place, (_, gain) in enumerate(compared):
        told = gain.low > 0 or gain.high < 0
        axis.plot([gain.low, gain.high], [place, place], color=BLUE, linewidth=1.5)
        axis.plot(gain.mean, place, "o", color=BLUE, markerfacecolor=BLUE if told else "white")
    axis.set_yticks(range(len(compared)), [cell.name for cell, _ in compared])
    axis.set_ylim(-0.6, len(compared) - 0.4)
    axis.set(xlabel="gain")
    return figure


def _numbers(cells: list[Summary], axis: str) -> list[float]:
    """The values of an axis, where all are numbers."""
    try:
        return sorted({float(cell.cell.values[axis]) for cell in cells})
    except ValueError:
        return []


def _by_axis(cells: list[Summary], axis: str) -> Figure:
    lines: dict[str, list[Summary]] = {}
    for cell in cells:
        others = ", ".join(f"{name} {value}" for name, value in cell.cell.values.items() if name != axis)
        lines.setdefault(others, []).append(cell)
    lines = {others: line for others, line in lines.items() if len(line) > 1}
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    plot = figure.subplots()
    for i, (others, line) in enumerate(lines.items()):
        line.sort(key=lambda cell: float(cell.cell.values[axis]))
        xs, ys = [float(cell.cell.values[axis]) for cell in line], [cell.mean for cell in line]
        errors = [np.nan_to_num(cell.standard_error) for cell in line]
        style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        plot.errorbar(xs, ys, errors, capsize=3, label=others, **style)
    plot.set(xlabel=axis, ylabel=f"{cells[0].metric}, mean ± standard error")
    if any(lines):
        plot.legend(frameon=False, fontsize=8)
    return figure


def _losses(cells: list[Summary], by_epoch: pd.DataFrame) -> Figure:
    shown = cells[:MOST_PANELS]
    columns = min(3, len(shown))
    figure = Figure(figsize=(3.1 * columns, 2.4 * -(-len(shown) // columns) + 0.5), layout="constrained")
    panels = list(figure.subplots(-(-len(shown) // columns), columns, squeeze=False, sharex=True, sharey=True).flat)
    for panel, cell in zip(panels, shown, strict=False):
        mean = _own(by_epoch, cell).groupby("epoch")[list(LOSSES)].mean()
        for name in mean:
            panel.plot(mean.index, mean[name], marker=".", **LOSSES[str(name)])
        panel.set_title(cell.name, fontsize=9)
        panel.set(xlabel="epoch", ylabel="loss")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.label_outer()
    for panel in panels[len(shown) :]:
        panel.remove()
    figure.legend(
        *panels[0].get_legend_handles_labels(), frameon=False, fontsize=8, ncols=2, loc="outside lower center"
    )
    return figure


def _averages(cells: list[Summary], by_seeds: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    plot = figure.subplots()
    for i, cell in enumerate(cells[: len(COLOURS)]):
        mean = _own(by_seeds, cell).groupby("seeds")["score"].mean()
        plot.plot(mean.index, mean, color=COLOURS[i], marker=MARKERS[i], label=cell.name)
    plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    plot.set(xlabel="seeds in the mean", ylabel=f"{cells[0].metric}, mean over folds")
    plot.legend(frameon=False, fontsize=8)
    return figure


def _own(table: pd.DataFrame, cell: Summary) -> pd.DataFrame:
    """The rows of a cell."""
    for axis, value in cell.cell.values.items():
        table = table[table[axis] == value]
    return table


def _svg(figure: Figure) -> str:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "study", "svg.fonttype": "path"}):  # equal numbers, equal bytes
        figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None})
    return buffer.getvalue()
