"""Paired bootstrap of scores over groups of rows that share a fold.

All candidates are scored on the same resamples, so the standard deviation of the difference of two
scores over the resamples is the standard error of that difference. Metrics that are functions of sums
over rows or of confusion matrices are computed for many resamples at once, all others once per
resample.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 6 and 16.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from competition.metrics import REGRESSION, Metric, take_rows
from competition.types import Array, Integers

MAX_CELLS = 4_000_000
"""Numbers in the largest array, which limits the resamples that are computed at once."""
MIN_RESAMPLES = 100


def _sum_about_mean(n: Array, x: Array, xx: Array) -> Array:
    """Return sums of squares about the mean; NaN for equal numbers, whose sum is a rounding error."""
    squares = xx - x**2 / n
    return np.where(squares > 1e-12 * xx, squares, np.nan)


def _r2(n: Array, y: Array, yy: Array, ee: Array) -> Array:
    return 1 - ee / _sum_about_mean(n, y, yy)


def _pearson(n: Array, y: Array, yy: Array, p: Array, pp: Array, yp: Array) -> Array:
    return (yp - y * p / n) / np.sqrt(_sum_about_mean(n, y, yy) * _sum_about_mean(n, p, pp))


RowTerms = Callable[[Array, Array], list[Array]]
SUMS: dict[str, tuple[RowTerms, Callable[..., Array]]] = {
    "mse": (lambda y, p: [(y - p) ** 2], lambda n, ee: ee / n),
    "rmse": (lambda y, p: [(y - p) ** 2], lambda n, ee: np.sqrt(ee / n)),
    "mae": (lambda y, p: [np.abs(y - p)], lambda n, e: e / n),
    "r2": (lambda y, p: [y, y**2, (y - p) ** 2], _r2),
    "pearson": (lambda y, p: [y, y**2, p, p**2, y * p], _pearson),
}
"""Metrics of sums over rows: the terms of each row, from labels and predictions minus the mean label;
and the score as a function of the number of rows and the sum of each term. A metric without a fast form
gets a tenth of the resamples."""
ScoresOfSums = Callable[[Array], Array]
"""Scores (n_resamples, n_predictions) of the sums of statistics, (n_resamples, n_statistics), over the
groups of each resample. Three functions return it with the statistics of each group, (n_groups,
n_statistics), dense or sparse.
"""


def bootstrap_scores(
    metric: Metric,
    y: Array,
    predictions: dict[str, Array],
    groups: Integers,
    n_resamples: int,
    seed: int,
    n_groups: int | None = None,
    rows: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Score several predictions on the same bootstrap resamples.

    Args:
        y: (n_rows, n_targets), NaN for missing labels.
        predictions: for each name, what the metric scores, (n_rows, n_outputs), finite.
        groups: (n_rows,), numbered from 0 without gaps; rows of one group are resampled together.
        n_resamples: number of resamples. A metric without a fast form gets a tenth of them, at least
            MIN_RESAMPLES.
        n_groups: groups in each resample; None for the number of groups in `groups`.
        rows: n_rows rows of the raw table, for a metric that takes them.

    Returns:
        (n_resamples, n_predictions), NaN where the metric is undefined.
    """
    arrays = list(predictions.values())
    statistics: Callable[..., tuple[Any, ScoresOfSums]]
    if metric.score_from_confusion:
        statistics = confusion_statistics
    elif metric.name in SUMS or metric.row_losses:
        statistics = sum_statistics
    else:
        statistics = partial(row_statistics, raw_rows=rows)
        n_resamples = max(MIN_RESAMPLES, n_resamples // 10)
    per_group, scores_of_sums = statistics(metric, y, arrays, groups)
    n_all_groups, n_statistics = per_group.shape
    if n_groups is None:
        n_groups = n_all_groups
    batch_size = max(1, MAX_CELLS // max(len(groups), n_statistics, n_groups))
    rng = np.random.default_rng(seed)
    batch_scores = []
    with np.errstate(divide="ignore", invalid="ignore"):
        for counts in _group_counts(rng, n_all_groups, n_groups, n_resamples, batch_size):
            batch_scores.append(scores_of_sums(counts @ per_group))
    scores = np.vstack(batch_scores)
    return pd.DataFrame(np.where(np.isfinite(scores), scores, np.nan), columns=list(predictions))


def _group_counts(
    rng: np.random.Generator, n_all_groups: int, n_groups: int, n_resamples: int, batch_size: int
) -> Iterator[Array]:
    """Yield how often each group is in each resample, (at most `batch_size`, n_all_groups) at a time.

    The counts do not depend on the batch size.
    """
    for start in range(0, n_resamples, batch_size):
        n = min(batch_size, n_resamples - start)
        resample_offsets = n_all_groups * np.arange(n)[:, None]
        drawn = rng.integers(n_all_groups, size=(n, n_groups)) + resample_offsets
        counts = np.bincount(drawn.ravel(), minlength=n * n_all_groups)
        yield counts.reshape(n, n_all_groups).astype(np.float64)


def sum_statistics(
    metric: Metric, y: Array, predictions: list[Array], groups: Integers
) -> tuple[Any, ScoresOfSums]:
    """Return the number of rows and the sums of the terms of a metric in each group."""
    columns = []
    for t, labels in enumerate(y.T):
        is_labelled = ~np.isnan(labels)
        labelled_groups = groups[is_labelled]
        center = labels[is_labelled].mean() if is_labelled.any() and not metric.row_losses else 0.0
        for y_pred in predictions:
            target_pred = y_pred[is_labelled, t] if y_pred.shape == y.shape else y_pred[is_labelled]
            terms = [np.ones(is_labelled.sum())]
            terms += _row_terms(metric, labels[is_labelled] - center, target_pred - center)
            columns += [np.bincount(labelled_groups, term, groups.max() + 1) for term in terms]

    def scores(sums: Array) -> Array:
        by_term = sums.reshape(len(sums), y.shape[1], len(predictions), -1)
        n_rows, *terms = np.moveaxis(by_term, 3, 0)
        target_scores = terms[0] / n_rows if metric.row_losses else SUMS[metric.name][1](n_rows, *terms)
        return _mean_over_targets(metric, target_scores, n_rows)

    return np.stack(columns, axis=1), scores


def _row_terms(metric: Metric, y: Array, y_pred: Array) -> list[Array]:
    return [metric.row_losses(y, y_pred)] if metric.row_losses else SUMS[metric.name][0](y, y_pred)


def confusion_statistics(
    metric: Metric, y: Array, predictions: list[Array], groups: Integers
) -> tuple[Any, ScoresOfSums]:
    """Return the confusion matrices of each group, (n_targets, n_predictions, n_classes, n_classes).

    Pooled targets count as one.
    """
    labels = np.stack(predictions, axis=2)  # (n_rows, n_targets, n_predictions)
    n_targets = 1 if metric.pooled else y.shape[1]
    n_classes = int(max(np.nanmax(y, initial=1), labels.max())) + 1
    shape = (n_targets, len(predictions), n_classes, n_classes)
    row, target, prediction = np.nonzero(np.broadcast_to(~np.isnan(y)[:, :, None], labels.shape))
    true_class = y[row, target].astype(int)
    predicted_class = labels[row, target, prediction].astype(int)
    cell = np.ravel_multi_index((target % n_targets, prediction, true_class, predicted_class), shape)
    entries = (np.ones(len(row)), (groups[row], cell))

    def scores(sums: Array) -> Array:
        assert metric.score_from_confusion is not None
        confusion = sums.reshape(-1, *shape)
        n_rows = confusion.sum(axis=(-2, -1))
        return _mean_over_targets(metric, metric.score_from_confusion(confusion), n_rows)

    return csr_array(entries, (groups.max() + 1, np.prod(shape))), scores


def row_statistics(
    metric: Metric,
    y: Array,
    predictions: list[Array],
    groups: Integers,
    raw_rows: pd.DataFrame | None = None,
) -> tuple[Any, ScoresOfSums]:
    """Return the rows of each group, for metrics without a fast form: sums say how often a resample has each row."""

    def scores(sums: Array) -> Array:
        resample_scores = []
        for row_counts in sums:
            rows = np.repeat(np.arange(len(y)), row_counts.astype(np.int64))
            drawn = take_rows(raw_rows, rows)
            resample_scores.append([metric(y[rows], y_pred[rows], drawn) for y_pred in predictions])
        return np.array(resample_scores)

    return csr_array((np.ones(len(y)), (groups, np.arange(len(y))))), scores


def _mean_over_targets(metric: Metric, scores: Array, n_rows: Array) -> Array:
    """Return the mean of scores (n_resamples, n_targets, n_predictions) over the targets.

    For classification, targets with an undefined score on a resample are excluded from its mean.
    """
    if metric.types == REGRESSION:
        return scores.mean(axis=1)
    is_defined = ~np.isnan(scores) & (n_rows > 1)
    return np.where(is_defined, scores, 0).sum(axis=1) / is_defined.sum(axis=1)
