"""How sure a difference between two scores is: a paired bootstrap over the units that share a fold.

Every candidate is scored on the same draws, so the spread of a difference is that of the difference itself. Metrics
that are functions of sums over rows, wmae and Spearman's are computed for all draws at once; others draw by draw.
Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 6 and 16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from competition.metrics import Array, Metric, polymer_weights

Counts = NDArray[np.float64]
CELLS_AT_ONCE = 4_000_000


def bootstrap_scores(
    metric: Metric,
    y: Array,
    predictions: dict[str, Array],
    units: NDArray[np.int64],
    draws: int,
    seed: int,
    size: int | None = None,
) -> dict[str, Array]:
    """Scores of several predictions on the same resampled rows.

    Args:
        metric: of which the scores are.
        y: (n_rows, n_targets), NaN where there is no label.
        predictions: by name, (n_rows, n_targets) each, finite.
        units: (n_rows,), equal for rows that are drawn together, from 0 up without a gap.
        draws: number of resamples.
        seed: of the resamples.
        size: units in each resample; None for as many as there are.

    Returns:
        By name, (draws,); NaN where a draw leaves the metric undefined.
    """
    score = _score_of_draws(metric, y, predictions, units)
    parts = [score(counts) for counts in _counts(int(units.max()) + 1, len(units), draws, seed, size)]
    return {name: np.concatenate([part[name] for part in parts]) for name in predictions}


def fast(metric: Metric) -> bool:
    """Whether all draws are scored at once."""
    return metric.name in SUMS or metric.name in ("spearman", "wmae")


def _counts(n_units: int, n_rows: int, draws: int, seed: int, size: int | None = None) -> Iterator[Counts]:
    """How often each unit is drawn, (a few draws, n_units) at a time; the same for any size of the parts."""
    rng, size = np.random.default_rng(seed), size or n_units
    at_once = max(1, CELLS_AT_ONCE // max(n_rows, size))
    for start in range(0, draws, at_once):
        n = min(at_once, draws - start)
        drawn = rng.integers(n_units, size=(n, size)) + n_units * np.arange(n)[:, None]
        yield np.bincount(drawn.ravel(), minlength=n * n_units).reshape(n, n_units).astype(np.float64)


Score = Callable[[Counts], dict[str, Array]]


def _score_of_draws(metric: Metric, y: Array, predictions: dict[str, Array], units: NDArray[np.int64]) -> Score:
    if metric.name in SUMS:
        return _by_sums(metric, y, predictions, units)
    if metric.name == "spearman":
        return _by_ranks(y, predictions, units)
    if metric.name == "wmae":
        return _by_ranges(y, predictions, units)
    return _one_by_one(metric, y, predictions, units)


def _by_sums(metric: Metric, y: Array, predictions: dict[str, Array], units: NDArray[np.int64]) -> Score:
    statistics, of_sums = SUMS[metric.name]
    n_units, n_targets = int(units.max()) + 1, y.shape[1]
    columns = []
    for t in range(n_targets):
        known = ~np.isnan(y[:, t])
        centre = y[known, t].mean() if known.any() else 0.0
        for y_pred in predictions.values():
            known_y, known_pred = y[known, t], y_pred[known, t]
            columns += [
                np.bincount(units[known], column, n_units)
                for column in statistics(known_y, known_y - centre, known_pred - centre)
            ]
    per_unit = np.stack(columns, axis=1)  # (n_units, n_targets * n_predictions * n_sums)

    def score(counts: Counts) -> dict[str, Array]:
        sums = (counts @ per_unit).reshape(len(counts), n_targets, len(predictions), -1)
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = of_sums(*np.moveaxis(sums, 3, 0)).mean(axis=1)
        return {name: scores[:, i] for i, name in enumerate(predictions)}

    return score


def _squares(raw: Array, y: Array, y_pred: Array) -> tuple[Array, ...]:
    return np.ones_like(y), (y - y_pred) ** 2


def _with_labels(raw: Array, y: Array, y_pred: Array) -> tuple[Array, ...]:
    return np.ones_like(y), y, y**2, y - y_pred, (y - y_pred) ** 2


def _absolute(raw: Array, y: Array, y_pred: Array) -> tuple[Array, ...]:
    return np.ones_like(y), np.abs(y - y_pred)


def _relative(raw: Array, y: Array, y_pred: Array) -> tuple[Array, ...]:
    return np.ones_like(y), np.abs(y - y_pred) / np.maximum(np.abs(raw), np.finfo(np.float64).eps)


def _products(raw: Array, y: Array, y_pred: Array) -> tuple[Array, ...]:
    return np.ones_like(y), y, y**2, y_pred, y_pred**2, y * y_pred


def _mean(n: Array, total: Array) -> Array:
    return total / n


def _log_squares(raw: Array, y: Array, y_pred: Array) -> tuple[Array, ...]:
    with np.errstate(divide="ignore", invalid="ignore"):  # at or below -1 the score is not defined
        error = np.log1p(raw) - np.log1p(raw + (y_pred - y))
    return np.ones_like(y), np.where(np.isfinite(error), error**2, np.nan)


def _pearson(n: Array, y: Array, yy: Array, p: Array, pp: Array, yp: Array) -> Array:
    return (yp - y * p / n) / np.sqrt((yy - y**2 / n) * (pp - p**2 / n))


SUMS: dict[str, tuple[Callable[[Array, Array, Array], tuple[Array, ...]], Callable[..., Array]]] = {
    "mse": (_squares, _mean),
    "rmse": (_squares, lambda n, ee: np.sqrt(ee / n)),
    "mcrmse": (_squares, lambda n, ee: np.sqrt(ee / n)),
    "rmsle": (_log_squares, lambda n, ee: np.sqrt(ee / n)),
    "r2": (_with_labels, lambda n, y, yy, e, ee: 1 - ee / (yy - y**2 / n)),
    "explained_variance": (_with_labels, lambda n, y, yy, e, ee: 1 - (ee - e**2 / n) / (yy - y**2 / n)),
    "mae": (_absolute, _mean),
    "mape": (_relative, _mean),
    "pearson": (_products, _pearson),
}
"""Metric -> numbers of each row, from y as it is and y and y_pred about the mean label; the score of their sums."""


def _by_ranks(y: Array, predictions: dict[str, Array], units: NDArray[np.int64]) -> Score:
    """Spearman's correlation: Pearson's of the ranks, which are taken anew in every draw."""

    def score(counts: Counts) -> dict[str, Array]:
        scores: dict[str, Array] = {name: np.zeros(len(counts)) for name in predictions}
        for t in range(y.shape[1]):
            known = ~np.isnan(y[:, t])
            times = counts[:, units[known]]
            ranks = _ranks(y[known, t], times)
            for name, y_pred in predictions.items():
                others = _ranks(y_pred[known, t], times)
                sums = (np.einsum("bi,bi->b", times, part) for part in _products(ranks, ranks, others)[1:])
                with np.errstate(divide="ignore", invalid="ignore"):
                    scores[name] += _pearson(times.sum(axis=1), *sums) / y.shape[1]
        return scores

    return score


def _ranks(values: Array, times: Counts) -> Array:
    """Middle ranks of `values` (n,) about their mean, in samples that hold value i `times[:, i]` times, (draws, n)."""
    _, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    equal = np.add.reduceat(times[:, order], starts, axis=1)  # (draws, n_distinct)
    return (np.cumsum(equal, axis=1) - (equal - 1) / 2 - times.sum(axis=1, keepdims=True) / 2)[:, place]


def _by_ranges(y: Array, predictions: dict[str, Array], units: NDArray[np.int64]) -> Score:
    """wmae: the range and the number of labels of each target are those of the draw."""
    known = ~np.isnan(y)
    errors = {name: np.where(known, np.abs(y_pred - y), 0) for name, y_pred in predictions.items()}
    ascending = [np.flatnonzero(known[:, t])[np.argsort(y[known[:, t], t])] for t in range(y.shape[1])]

    def score(counts: Counts) -> dict[str, Array]:
        times = counts[:, units]
        n = times @ known
        spread = np.zeros_like(n)
        for t, rows in enumerate(ascending):
            if len(rows):
                drawn = times[:, rows] > 0
                spread[:, t] = y[rows[-1 - drawn[:, ::-1].argmax(axis=1)], t] - y[rows[drawn.argmax(axis=1)], t]
        spread[spread == 0] = np.nan
        weights = polymer_weights(n, times @ known.any(axis=1))
        with np.errstate(divide="ignore", invalid="ignore"):
            return {name: (weights * (times @ error) / n / spread).sum(axis=1) for name, error in errors.items()}

    return score


def _one_by_one(metric: Metric, y: Array, predictions: dict[str, Array], units: NDArray[np.int64]) -> Score:
    def score(counts: Counts) -> dict[str, Array]:
        found: dict[str, list[float]] = {name: [] for name in predictions}
        for times in counts:
            rows = np.repeat(np.arange(len(y)), times[units].astype(np.int64))
            for name, y_pred in predictions.items():
                found[name].append(metric(y[rows], y_pred[rows]))
        return {name: np.array(values) for name, values in found.items()}

    return score
