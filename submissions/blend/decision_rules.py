"""From predictions to labels: tuned thresholds, class offsets and cut points.

A decision has a few numbers (`cut_points`). They start at their defaults (0.5, argmax, rounding) and are
tuned on out-of-fold predictions by coordinate ascent: one cut after another is moved to the candidate
value with the best expected score while the others are fixed. Comparing a cut with one value per row
(`ThresholdSweep`) sorts the rows, so cumulative sums along the sorted rows are the counts of classes for all
candidate values at once.

They count calibrated probabilities instead of labels. A rare class has too few labels
to tune a cut on, and with calibrated probabilities the best cut follows from the probabilities. A tuned
decision is used without a further test, and it is used unchanged on the mean of several models.
docs/benchmarks.md has the measurements of all three.

Sources: Ye et al., "Optimizing F-measures: a tale of two approaches", ICML 2012 (the second approach);
one cut at a time as in Fan and Lin, "A study on threshold selection for multi-label classification",
2007; on log probabilities, Lachiche and Flach, "Improving accuracy and cost of two-class and
multi-class probabilistic classifiers", ICML 2003.
"""

from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.class_metrics import PROBABILITY_EPSILON, ClassCounts
from competition.metrics import Metric
from competition.task import Task
from core.types import Array, Integers, ProblemType
from submissions.blend.data import serializable

GRID_SIZE = 200
"""Candidate values of a cut, for metrics of `ClassCounts`."""
USER_METRIC_GRID_SIZE = 20
"""Candidate values of a cut for all other metrics, which are computed once per value."""
MAX_PASSES = 3
"""Passes over all cuts."""
MAX_NEWTON_STEPS = 20
MIN_CALIBRATION_PROBABILITY = 1e-3
"""The calibration clips probabilities here: a few overconfident predictions must not distort it."""


@dataclass(frozen=True)
class ThresholdSweep:
    """Effect of one cut on the labels of one target, with all other cuts fixed.

    Attributes:
        target: index of the target.
        values: (n_rows,), compared with the cut; -inf if the cut has no effect on the row.
        labels_below: (n_rows,), the class of each row if its value is below the cut.
        label_above: the class of all rows with a value above the cut.
    """

    target: int
    values: Array
    labels_below: Integers
    label_above: int


@serializable
@dataclass(frozen=True)
class Decision:
    """A fitted decision.

    Attributes:
        problem_type: binary and multilabel: a label is class 1 from the cut of its target on. Multiclass: the
            cuts are subtracted from the log probabilities before the argmax. Ordinal: increasing cuts between
            the levels.
        cut_points: (n_targets,), (n_classes,), or (n_classes - 1,).
    """

    problem_type: ProblemType
    cut_points: Array

    def predict(self, y_pred: Array) -> Array:
        """Return labels (n_rows, n_targets) of predictions (n_rows, n_outputs), row by row."""
        return self.labels(self.levels(y_pred)).astype(np.float64)

    def levels(self, y_pred: Array) -> Array:
        """Return predictions (n_rows, n_outputs) on the cut points' scale (log probabilities of classes)."""
        if self.problem_type == "multiclass":
            return np.log(np.clip(y_pred, PROBABILITY_EPSILON, None))
        return y_pred

    def labels(self, levels: Array) -> NDArray[Any]:
        """Return labels (n_rows, n_targets) of predictions on the scale of the cuts."""
        if self.problem_type == "multiclass":
            return (levels - self.cut_points).argmax(axis=1)[:, None]
        if self.problem_type == "ordinal":
            return np.searchsorted(self.cut_points, levels, side="right")
        return levels >= self.cut_points

    def sweep(self, levels: Array, cut: int) -> ThresholdSweep:
        """Return the effect of one cut, an index, on the labels, with all other cuts fixed."""
        if self.problem_type == "multiclass":  # of one class against the best of the others
            others = levels - self.cut_points
            others[:, cut] = -np.inf
            return ThresholdSweep(0, levels[:, cut] - others.max(axis=1), others.argmax(axis=1), cut)
        if self.problem_type == "ordinal":  # on the rows of the two levels next to it
            labels = self.labels(levels[:, 0])
            is_adjacent = (labels == cut) | (labels == cut + 1)
            values = np.where(is_adjacent, levels[:, 0], -np.inf)
            return ThresholdSweep(0, values, np.where(is_adjacent, cut, labels), cut + 1)
        return ThresholdSweep(cut, levels[:, cut], np.zeros(len(levels), dtype=np.int64), 1)


def apply_decision(decision: Decision | None, y_pred: Array) -> Array:
    """Return labels, or the predictions (n_rows, n_outputs) unchanged without a decision."""
    return y_pred if decision is None else decision.predict(y_pred)


def plain_decision(task: Task) -> Decision:
    """Return the untuned decision; its labels are `Task.default_labels`."""
    cut_points: Array = np.full(len(task.targets), 0.5)
    if task.problem_type == "multiclass":
        cut_points = np.zeros(len(task.classes))
    elif task.problem_type == "ordinal":
        cut_points = np.arange(len(task.classes) - 1, dtype=np.float64) + 0.5
    return Decision(task.problem_type, cut_points)


def fit_decision(
    metric: Metric, task: Task, y: Array, y_pred: Array, rows: pd.DataFrame | None = None
) -> Decision:
    """Tune the cuts for the best expected score.

    Args:
        y: (n_rows, n_targets), NaN for missing labels.
        y_pred: (n_rows, n_outputs), predicted without these labels.
        rows: n_rows rows of the raw table, for a metric that takes them.
    """
    decision = plain_decision(task)
    levels = decision.levels(y_pred)
    target_probabilities = [calibrate(labels, _logits(task, y_pred, t)) for t, labels in enumerate(y.T)]
    score_from_counts = metric.score_from_counts

    def expected_counts(sweep: ThresholdSweep, grid: Array) -> ClassCounts:
        return expected_class_counts(target_probabilities[sweep.target], sweep, grid)

    scores_of_labels: dict[bytes, float] = {}  # a later pass meets the same labels again

    def score_of(candidate: Decision) -> float:
        labels = candidate.labels(levels).astype(np.float64)
        key = labels.tobytes()
        if key not in scores_of_labels:
            scores_of_labels[key] = metric(y, labels, rows)
        return scores_of_labels[key]

    pooled_counts = {}  # cut -> expected counts of its target, for metrics that pool all targets
    if metric.pooled:
        for cut_index, cut in enumerate(decision.cut_points):
            sweep = decision.sweep(levels, cut_index)
            pooled_counts[cut_index] = _at(expected_counts(sweep, np.array([cut])), 0)
    # Thresholds of different targets do not influence each other, unless the metric pools the targets.
    are_independent = task.problem_type in ("binary", "multilabel") and not metric.pooled
    grid_size = GRID_SIZE if score_from_counts else USER_METRIC_GRID_SIZE
    for _ in range(1 if are_independent and score_from_counts else MAX_PASSES):
        previous = decision
        for cut_index, cut in enumerate(previous.cut_points):
            sweep = decision.sweep(levels, cut_index)
            grid = np.union1d(threshold_grid(sweep.values, grid_size), cut)
            if score_from_counts:
                counts = expected_counts(sweep, grid)
                others = [pooled_counts[i] for i in pooled_counts if i != cut_index]
                added = [reduce(np.add, each) for each in zip(counts, *others, strict=True)]
                scores = score_from_counts(ClassCounts(*added))
            else:
                scores = np.array([score_of(with_cut(decision, cut_index, value)) for value in grid])
            best = _best_index(scores if metric.greater_is_better else -scores)
            if best is not None:
                decision = with_cut(decision, cut_index, grid[best])
                if pooled_counts:
                    pooled_counts[cut_index] = _at(counts, best)
        if np.array_equal(previous.cut_points, decision.cut_points):
            break
    return decision


def _at(counts: ClassCounts, position: int) -> ClassCounts:
    """Return the counts of one of the values of a cut."""
    return counts._replace(
        correct=counts.correct[position],
        predicted=counts.predicted[position],
        distance=counts.distance[position],
    )


def _best_index(scores: Array) -> int | None:
    """Return the position of the largest score, of equal ones the middle one; None if none is defined."""
    best = np.flatnonzero(scores == np.nanmax(scores, initial=-np.inf))
    return int(best[len(best) // 2]) if len(best) else None


def with_cut(decision: Decision, cut_index: int, cut: float) -> Decision:
    """Return the decision with one cut replaced."""
    cut_points = decision.cut_points.copy()
    cut_points[cut_index] = cut
    return replace(decision, cut_points=cut_points)


def threshold_grid(values: Array, size: int) -> Array:
    """Return candidate values of a cut, at most `size`, halfway between quantiles.

    Half of these are equally spaced; the others are dense at both ends, for classes of few rows.
    """
    edges = np.sort(values[values > -np.inf])
    if len(edges):
        last = len(edges) - 1
        tail = np.geomspace(1, len(edges), size // 4) - 1
        ranks = np.concatenate([np.linspace(0, last, size - 2 * len(tail)), tail, last - tail])
        edges = edges[np.unique(ranks.astype(np.int64))]
    return np.unique((edges[1:] + edges[:-1]) / 2)


def expected_class_counts(probabilities: Array, sweep: ThresholdSweep, grid: Array) -> ClassCounts:
    """Return the expected counts for all candidate values of a cut, with the axes (n_values, n_classes).

    Args:
        probabilities: calibrated, (n_rows, n_classes); 0 for rows that do not count.
        grid: candidate values in increasing order.
    """
    n_rows, n_classes = probabilities.shape
    below, above = sweep.labels_below, sweep.label_above
    step = np.searchsorted(grid, sweep.values, side="right")  # the first value that the row is below

    def sums_below(of_rows: Array) -> Array:
        """Return the sum over the rows below each value, (n_values, n_classes) by the label below."""
        cells = np.bincount(step * n_classes + below, of_rows, (len(grid) + 1) * n_classes)
        return cells.reshape(-1, n_classes).cumsum(axis=0)[:-1]

    counted = probabilities.sum(axis=1)
    level = np.arange(n_classes)
    distances = [
        counted * label**2 - 2 * label * (probabilities @ level) + probabilities @ level**2
        for label in (below, above)
    ]
    correct_below = probabilities[np.arange(n_rows), below]
    correct, predicted = sums_below(correct_below), sums_below(counted)
    predicted[:, above] += counted.sum() - predicted.sum(axis=1)
    correct[:, above] += probabilities[:, above].sum() - sums_below(probabilities[:, above]).sum(axis=1)
    distance = distances[1].sum() + sums_below(distances[0] - distances[1]).sum(axis=1)
    return ClassCounts(correct, probabilities.sum(axis=0), predicted, distance)


def _logits(task: Task, y_pred: Array, target: int) -> Array:
    """Return uncalibrated logits of each class of a target, (n_classes, n_rows).

    An ordinal prediction x has the logits of a normal error around each level k: k x - k^2 / 2.
    """
    if task.problem_type == "ordinal":
        levels = np.arange(len(task.classes))[:, None]
        return levels * (y_pred[:, 0] - levels / 2)
    if task.problem_type == "multiclass":
        probabilities = y_pred.T
    else:
        probabilities = np.stack([1 - y_pred[:, target], y_pred[:, target]])
    return np.log(np.clip(probabilities, MIN_CALIBRATION_PROBABILITY, None, order="C"))


def calibrate(y: Array, logits: Array) -> Array:
    """Return calibrated class probabilities, softmax(scale * logits + bias).

    The scale and one bias per class maximize the likelihood of the labels, with a ridge penalty of 1
    towards a scale of 1 and biases of 0. A stronger penalty would not undo the distortion by class
    weights. The method is Newton's. Source: Platt scaling, with a bias for each class as in
    Guo et al., "On calibration of modern neural networks", ICML 2017.

    Args:
        y: class numbers (n_rows,), NaN for missing labels.
        logits: (n_classes, n_rows).

    Returns:
        (n_rows, n_classes), 0 for rows without a label.
    """
    from scipy.special import softmax

    is_labelled = ~np.isnan(y)
    prior = np.r_[1.0, np.zeros(len(logits))]  # scale, then biases
    parameters = prior
    z = np.compress(is_labelled, logits, axis=1)
    truth = (y[is_labelled] == np.arange(len(z))[:, None]).astype(np.float64)
    for _ in range(MAX_NEWTON_STEPS):
        p = softmax(parameters[0] * z + parameters[1:, None], axis=0)
        residual = truth - p
        d_scale = p * (z - (p * z).sum(axis=0))  # derivative of p by the scale
        gradient = np.r_[np.vdot(z, residual), residual.sum(axis=1)] + prior - parameters
        cross = d_scale.sum(axis=1)
        bias_curvature = np.diag(p.sum(axis=1)) - p @ p.T
        curvature = np.block([[np.vdot(d_scale, z), cross], [cross[:, None], bias_curvature]])
        step = np.linalg.solve(curvature + np.eye(len(parameters)), gradient)
        parameters = parameters + np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-3:
            break
    calibrated = softmax(parameters[0] * logits + parameters[1:, None], axis=0)
    return np.ascontiguousarray((calibrated * is_labelled).T)
