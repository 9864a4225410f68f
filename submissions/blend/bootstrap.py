"""How sure a difference between two scores is: a paired bootstrap over the groups of rows that share a fold.

Every candidate is scored on the same draws, so the spread of a difference is that of the difference itself. Metrics
that are functions of sums over rows or of confusion matrices are computed for many draws at once; others draw by draw.
Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 6 and 16.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from competition.metrics import REGRESSION, Metric
from competition.types import Array, Integers

CELLS_AT_ONCE, LEAST_DRAWS = 4_000_000, 100


def _pearson(n: Array, y: Array, yy: Array, p: Array, pp: Array, yp: Array) -> Array:
    return (yp - y * p / n) / np.sqrt((yy - y**2 / n) * (pp - p**2 / n))


Sums = tuple[Callable[[Array, Array], list[Array]], Callable[..., Array]]
SUMS: dict[str, Sums] = {
    "mse": (lambda y, p: [(y - p) ** 2], lambda n, ee: ee / n),
    "rmse": (lambda y, p: [(y - p) ** 2], lambda n, ee: np.sqrt(ee / n)),
    "mae": (lambda y, p: [np.abs(y - p)], lambda n, e: e / n),
    "r2": (lambda y, p: [y, y**2, (y - p) ** 2], lambda n, y, yy, ee: 1 - ee / (yy - y**2 / n)),
    "pearson": (lambda y, p: [y, y**2, p, p**2, y * p], _pearson),
}
"""Metric -> numbers of each row, from y and y_pred about the mean label; the score of their number and sums."""


def bootstrap_scores(
    metric: Metric,
    y: Array,
    predictions: dict[str, Array],
    groups: Integers,
    draws: int,
    seed: int,
    size: int | None = None,
) -> pd.DataFrame:
    """Scores of several predictions on the same resampled rows, a draw a row; NaN where the metric is not defined.

    Args:
        y: (n_rows, n_targets), NaN where there is no label.
        predictions: by name, (n_rows, n_outputs) each, finite.
        groups: (n_rows,), equal for rows that are drawn together, from 0 up without a gap.
        draws: how many; a tenth of them, but `LEAST_DRAWS`, where the metric is computed draw by draw.
        size: groups in each resample; None for as many as there are.
    """
    summed = _one_by_one
    if metric.score_from_confusion:
        summed = _by_confusion
    elif metric.name in SUMS or metric.row_losses:
        summed = _by_sums
    else:
        draws = max(LEAST_DRAWS, draws // 10)
    of_groups, scored = summed(metric, y, list(predictions.values()), groups)
    n_groups, n_sums = of_groups.shape
    drawn = _counts(n_groups, max(len(groups), n_sums), draws, seed, size)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = np.vstack([scored(counts @ of_groups) for counts in drawn])
    return pd.DataFrame(np.where(np.isfinite(scores), scores, np.nan), columns=list(predictions))


def _counts(n_groups: int, n_rows: int, draws: int, seed: int, size: int | None) -> Iterator[Array]:
    """How often each group is drawn, (a few draws, n_groups) at a time; the same for any size of the parts."""
    rng, size = np.random.default_rng(seed), size or n_groups
    at_once = max(1, CELLS_AT_ONCE // max(n_rows, size))
    for start in range(0, draws, at_once):
        n = min(at_once, draws - start)
        drawn = rng.integers(n_groups, size=(n, size)) + n_groups * np.arange(n)[:, None]
        yield np.bincount(drawn.ravel(), minlength=n * n_groups).reshape(n, n_groups).astype(np.float64)


Summed = tuple[Any, Callable[[Array], Array]]
"""Numbers of each group, (n_groups, n_sums), and what makes scores (n_draws, n_predictions) of their sums in draws."""


def _by_sums(metric: Metric, y: Array, predictions: list[Array], groups: Integers) -> Summed:
    of_row = metric.row_losses
    numbers, of_sums = (lambda y, p: [of_row(y, p)], lambda n, each: each / n) if of_row else SUMS[metric.name]
    sums = []
    for t, labels in enumerate(y.T):
        known = ~np.isnan(labels)
        centre = labels[known].mean() if known.any() and not of_row else 0.0
        for y_pred in predictions:
            own = y_pred[known, t] if y_pred.shape == y.shape else y_pred[known]
            parts = [np.ones(known.sum()), *numbers(labels[known] - centre, own - centre)]
            sums += [np.bincount(groups[known], part, groups.max() + 1) for part in parts]

    def scored(found: Array) -> Array:
        found = found.reshape(len(found), y.shape[1], len(predictions), -1)
        return _over_targets(metric, of_sums(*np.moveaxis(found, 3, 0)), found[..., 0])

    return np.stack(sums, axis=1), scored


def _over_targets(metric: Metric, scores: Array, n_rows: Array) -> Array:
    """Mean of (n_draws, n_targets, n_predictions); of classes without the targets that a draw leaves undefined."""
    if metric.types == REGRESSION:
        return scores.mean(axis=1)
    there = ~np.isnan(scores) & (n_rows > 1)
    return np.where(there, scores, 0).sum(axis=1) / there.sum(axis=1)


def _by_confusion(metric: Metric, y: Array, predictions: list[Array], groups: Integers) -> Summed:
    of_confusion, labels = (
        metric.score_from_confusion,
        np.stack(predictions, axis=2),
    )  # (n_rows, n_targets, n_predictions)
    assert of_confusion is not None
    n_targets, n = 1 if metric.pooled else y.shape[1], int(max(np.nanmax(y, initial=1), labels.max())) + 1
    shape = n_targets, len(predictions), n, n
    row, target, which = np.nonzero(np.broadcast_to(~np.isnan(y)[:, :, None], labels.shape))
    cells = target % n_targets, which, y[row, target].astype(int), labels[row, target, which].astype(int)
    place = np.ravel_multi_index(cells, shape)

    def scored(found: Array) -> Array:
        found = found.reshape(-1, *shape)
        return _over_targets(metric, of_confusion(found), found.sum(axis=(-2, -1)))

    return csr_array((np.ones(len(row)), (groups[row], place)), (groups.max() + 1, np.prod(shape))), scored


def _one_by_one(metric: Metric, y: Array, predictions: list[Array], groups: Integers) -> Summed:
    rows = np.arange(len(y))

    def scored(times: Array) -> Array:
        drawn = [np.repeat(rows, each.astype(np.int64)) for each in times]
        return np.array([[metric(y[each], y_pred[each]) for y_pred in predictions] for each in drawn])

    return csr_array((np.ones(len(y)), (groups, rows))), scored
