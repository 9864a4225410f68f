"""The best constant prediction for a metric, and the correction of a blend between itself and a constant.

The mean of a skewed label is far from its best prediction for a metric such as MAPE: its best constant is a
small label. A blend is the mean of stages with weights of least squares, so that `Fitted` moves it
(`Metric.far_from_mean`). docs/benchmarks.md has the gain.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition.metrics import REGRESSION, Metric
from competition.task import Task
from core.types import Array
from submissions.blend.scoring import Scorer, computed_once

N_LEVELS = 101
"""Number of quantiles of the labels that are tried as constants."""
FEW_LEVELS = 11
"""The same for a metric of the user, which may be slow."""
COARSE_LEVELS = np.linspace(0, 1, 21)
FINE_LEVELS = np.linspace(-0.05, 0.05, 9)
"""Quantiles of the labels that a correction tries as centers, and then steps around the best of them."""
COARSE_SLOPES = np.array([0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0])
FINE_SLOPES = np.array([0.7, 0.85, 1.0, 1.15, 1.3])
"""Slopes that a correction tries, and then factors of the best of them."""


@computed_once
def best_constant(scorer: Scorer) -> tuple[Array, float]:
    """Return the constant prediction with the best score on the labels, (n_scored,), and its score.

    For numbers the mean, the middle of the range and quantiles of the labels are tried, for each target if it
    has a score; for classes their shares and, where labels are scored, each class. A correlation with a
    constant counts as 0. The score of a metric of the user is NaN if it is undefined.
    """
    metric = scorer.metric
    y = scorer.y[scorer.has_fold]
    is_per_target = metric.column_score is not None
    options = _constants(scorer.task, y, N_LEVELS if is_per_target else FEW_LEVELS)
    if is_per_target and options.shape[1] == y.shape[1] > 1:
        columns = []
        for labels, constants in zip(y.T, options.T, strict=True):
            scores = [metric.score_column(labels, np.full(len(labels), constant)) for constant in constants]
            columns.append(constants[_best(metric, scores)])
        options = np.vstack([options, columns])
    scores = [scorer.score(np.tile(constant, (len(scorer.y), 1))) for constant in options]
    best = _best(metric, scores)
    score = float(scores[best])
    return options[best], 0.0 if np.isnan(score) and is_per_target else score


def _constants(task: Task, y: Array, n_levels: int) -> Array:
    """Return the constants to try, (n_constants, n_scored)."""
    if task.scores_labels:
        classes = np.arange(len(task.classes), dtype=np.float64)
        return np.repeat(classes[:, None], len(task.targets), axis=1)
    if task.has_probabilities:
        return np.nanmean(task.one_hot(y), axis=0, keepdims=True)
    levels = np.linspace(0, 1, n_levels)
    quantiles = np.nanquantile(y, levels, axis=0, method="inverted_cdf")  # labels: 0 is exactly 0
    middle = (np.nanmin(y, axis=0) + np.nanmax(y, axis=0)) / 2
    return np.vstack([np.nanmean(y, axis=0), np.nanmedian(y, axis=0), middle, quantiles])


def _best(metric: Metric, scores: list[float]) -> int:
    """Return the position of the best score; an undefined one is the worst."""
    gains = np.array(scores) if metric.greater_is_better else -np.array(scores)
    return int(np.argmax(np.where(np.isnan(gains), -np.inf, gains)))


def fit_correction(metric: Metric, y: Array, y_pred: Array) -> Array:
    """Return intercept and slope per target, (2, n_targets), with the best score of the corrected blend.

    A prediction p becomes c + slope * (p - m), with the median m of the predictions and a label c. It is
    unchanged with the slope 1 and c = m, and constant with the slope 0.

    Args:
        y: labels (n_rows, n_targets), NaN if missing.
        y_pred: predictions of the blend, (n_rows, n_targets).
    """
    assert metric.types == REGRESSION
    corrections = []
    for labels, predictions in zip(y.T, y_pred.T, strict=True):
        is_labelled = ~np.isnan(labels)
        corrections.append(_fit_target(metric, labels[is_labelled], predictions[is_labelled]))
    return np.column_stack(corrections)


def _fit_target(metric: Metric, y: Array, y_pred: Array) -> Array:
    """Return the intercept and the slope of a target, (2,); 0 and 1 without two labels."""
    if len(y) < 2:
        return np.array([0.0, 1.0])
    middle = float(np.median(y_pred))
    candidates = [(middle, 1.0)]
    scores = [metric.score_column(y, y_pred)]

    def try_all(levels: NDArray[Any], slopes: NDArray[Any]) -> tuple[float, float]:
        centers = np.quantile(y, np.clip(levels, 0, 1), method="inverted_cdf")
        for slope in slopes:
            for center in np.unique([*centers, middle]):
                candidates.append((float(center), float(slope)))
                scores.append(metric.score_column(y, center + slope * (y_pred - middle)))
        return candidates[_best(metric, scores)]

    center, slope = try_all(COARSE_LEVELS, COARSE_SLOPES)
    level = float(np.mean(y <= center))
    center, slope = try_all(level + FINE_LEVELS, slope * FINE_SLOPES)
    return np.array([center - slope * middle, slope])
