"""Pictures of `./run.sh folds`: targets in each fold, similarity to the nearest training row, shift."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from competition.files import write_atomically
from folds.shift import Shift
from folds.similarity import Similarity

BLUE, ORANGE, GREY = "#1f5fa8", "#c2410c", "#6b7280"
STYLES: dict[str, dict[str, Any]] = {
    "now": {"color": BLUE, "linestyle": "-", "linewidth": 2.0},
    "kfold": {"color": "#0f766e", "linestyle": "--"},
    "stratified": {"color": "#0f766e", "linestyle": "--"},
    "scaffold": {"color": "#7c3aed", "linestyle": "-."},
    "cluster": {"color": GREY, "linestyle": ":", "linewidth": 2.0},
    "group": {"color": "#92400e", "linestyle": (0, (8, 2))},
}
N_HISTOGRAMS = 3


def draw_targets(y: pd.DataFrame, folds: NDArray[np.int64], file: Path) -> None:
    """A histogram of each target in each fold, against that of all rows.

    Args:
        y: (n_rows, n_targets), NaN for a missing label.
        folds: (n_rows,).
    """
    numbers = sorted(set(folds.tolist()))
    figure = Figure(figsize=(max(5.0, 2.5 * y.shape[1]), 1.0 + 0.75 * len(numbers)), layout="constrained")
    axes = figure.subplots(len(numbers), y.shape[1], sharex="col", squeeze=False)
    for t, name in enumerate(y.columns):
        labels = y[name].to_numpy()
        known = ~np.isnan(labels)
        edges = np.histogram_bin_edges(labels[known], bins=30)
        for row, fold in enumerate(numbers):
            axis, here = axes[row, t], labels[known & (folds == fold)]
            axis.stairs(*np.histogram(here, edges, density=len(here) > 0), fill=True, color=BLUE, alpha=0.75)
            axis.stairs(*np.histogram(labels[known], edges, density=True), color=GREY, linewidth=1.2)
            if len(here):
                axis.axvline(here.mean(), color=ORANGE, linewidth=1.5)
            axis.set_yticks([])
            axis.spines[["top", "right", "left"]].set_visible(False)
            axis.text(0.99, 0.9, f"{len(here)} labels", transform=axis.transAxes, ha="right", va="top", fontsize=8)
            if t == 0:
                what = f"fold {fold}" if fold >= 0 else "trains in\nevery fold"
                axis.set_ylabel(what, rotation=0, ha="right", va="center")
        axes[-1, t].set_xlabel(name)
    figure.suptitle("targets in each fold (blue; orange: their mean)\nagainst all rows (grey)", fontsize=10)
    _save(figure, file)


def draw_similarity(similarities: list[Similarity], configured: str, file: Path) -> None:
    """Share of rows whose nearest training row is at most so similar: test rows, and held-out rows of each scheme."""
    figure = Figure(figsize=(6.4 * len(similarities), 4.2), layout="constrained")
    for axis, similarity in zip(figure.subplots(1, len(similarities), squeeze=False)[0], similarities, strict=True):
        for kind, values in similarity.held_out.items():
            style = STYLES["now"] if kind == configured else STYLES.get(kind, STYLES["kfold"])
            label = f"held out, {kind}{' (as configured)' if kind == configured else ''}"
            axis.ecdf(values, label=label, **style)
        axis.ecdf(similarity.test, label="test rows", color=ORANGE, linewidth=2.8)
        axis.set(xlabel=f"similarity to the nearest training row\n({similarity.measure})", ylabel="share of rows below")
        axis.set(
            xlim=(0, 1),
            ylim=(0, 1),
            title="folds imitate the competition where their curve meets the test rows'",
        )
        axis.title.set_fontsize(10)
        axis.legend(frameon=False, loc="upper left", fontsize=9)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    _save(figure, file)


def draw_shift(shift: Shift, file: Path) -> None:
    """The features that tell train and test apart, and the distributions of the first ones in both tables."""
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    left, *others = figure.subplots(1, 1 + N_HISTOGRAMS, width_ratios=[1.5, *[1] * N_HISTOGRAMS])
    gains = shift.features.iloc[::-1]
    left.barh(gains["feature"].map(_short), 100 * gains["gain"], color=BLUE)
    left.set(xlabel="share of the classifier's gain (%)")
    left.set_title(
        f"train against test: AUC {shift.auc:.3f} ± {shift.spread:.3f}\n(0.5: cannot be told apart)", fontsize=10
    )
    left.spines[["top", "right"]].set_visible(False)
    for axis, name in zip(others, shift.features["feature"], strict=False):
        _two_tables(axis, shift.train[name].dropna().to_numpy(), shift.test[name].dropna().to_numpy())
        axis.set_xlabel(_short(name))
        axis.spines[["top", "right"]].set_visible(False)
    for axis in others[len(shift.features) :]:
        axis.remove()
    others[0].legend(frameon=False, fontsize=9, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    _save(figure, file)


def _two_tables(axis: Axes, train: NDArray[np.float64], test: NDArray[np.float64]) -> None:
    """Distributions of a feature in both tables: shares of rows for one that is there or not, else histograms."""
    both = np.concatenate([train, test])
    if not len(train) or not len(test):
        axis.text(0.5, 0.5, f"no value in the {'test' if len(train) else 'training'} table", ha="center", va="center")
        axis.set(xticks=[], yticks=[])
        return
    if set(np.unique(both)) <= {0.0, 1.0}:
        for place, (name, values, color) in enumerate((("train", train, BLUE), ("test", test, ORANGE))):
            axis.bar(place, 100 * values.mean(), color=color, label=name)
        axis.set(ylabel="rows that have it (%)", xticks=[0, 1], xticklabels=["train", "test"])
        return
    low, high = np.percentile(both, 0.5), np.percentile(both, 99.5)
    edges = np.linspace(low, high, 31)
    if (both % 1 == 0).all():  # each bin holds the same number of whole numbers
        width = int((high - low) // 30) + 1
        edges = np.arange(np.floor(low), high + width + 1, width) - 0.5
    weights = [np.full(len(part), 100 / len(part)) for part in (train, test)]
    axis.hist(np.clip(train, edges[0], edges[-1]), edges, weights=weights[0], color=BLUE, alpha=0.45, label="train")
    axis.hist(
        np.clip(test, edges[0], edges[-1]), edges, weights=weights[1], histtype="step", color=ORANGE, linewidth=2,
        label="test",
    )  # fmt: skip
    axis.set(ylabel="rows (%)")


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:27]}…"


def _save(figure: Figure, file: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, facecolor="white")
    write_atomically(file, buffer.getvalue())
