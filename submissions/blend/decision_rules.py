"""From predictions to labels: thresholds, offsets of classes and cut-points, tuned on out-of-fold predictions.

A decision is a few cuts. They start where no metric is asked (0.5, the likeliest class, rounding) and are moved in turn
to where the score to expect is best with the others as they are. What a cut is held against sorts the rows, so that
running sums along them are the confusion matrices of all its places, and those are scored at once. The sums are not of
labels but of calibrated probabilities: a rare class has too few labels to place a cut by, and where probabilities hold
the best cut follows from them. What so moves is used without a further test, and the cuts are used as they are for the
mean of several models. benchmarks/decisions.py has the measurements of all three.

Source: Ye et al., Optimizing F-measures: a tale of two approaches, ICML 2012, of which this is the second; one cut at a
time as in Fan and Lin, A study on threshold selection for multi-label classification, 2007, and, of log probabilities,
Lachiche and Flach, Improving accuracy and cost of two-class and multi-class probabilistic classifiers, ICML 2003.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import softmax

from competition.class_metrics import PROBABILITY_EPSILON
from competition.metrics import Metric
from competition.task import Task
from competition.types import Array, Integers
from submissions.blend.serialization import serializable

PLACES, COARSE = 200, 20
"""Places of a cut that are tried, at equal shares of the rows: of a metric of confusion matrices, and of another."""
PASSES, NEWTON_STEPS = 3, 20
SMALLEST = 1e-3
"""Probability that the calibration takes for 0: a few rows that a stage is too sure of must not bend it."""

Turn = tuple[int, Array, Integers, int]
"""What moving one cut does: the target, what rows are held against the cut, (n_rows,), -inf where it decides nothing,
the class of each row where that is below the cut, and the class of all rows above it."""


@dataclass(frozen=True)
class Decision:
    """Fitted cuts, (n_cuts,)."""

    cuts: Array

    def predict(self, y_pred: Array) -> Array:
        """Labels (n_rows, n_targets) of predictions (n_rows, n_outputs), each row by itself."""
        return self.labels(self.levels(y_pred)).astype(np.float64)

    def levels(self, y_pred: Array) -> Array:
        """Predictions on the scale of the cuts."""
        return y_pred

    def labels(self, levels: Array) -> NDArray[Any]:
        """Labels of levels."""
        raise NotImplementedError

    def sweep(self, levels: Array, j: int) -> Turn:
        """What the place of the j-th cut decides with the others as they are."""
        raise NotImplementedError


@serializable
class Thresholds(Decision):
    """Probabilities from which on a label is class 1, (n_targets,)."""

    def labels(self, levels: Array) -> NDArray[Any]:
        """See `Decision`."""
        return levels >= self.cuts

    def sweep(self, levels: Array, j: int) -> Turn:
        """See `Decision`."""
        return j, levels[:, j], np.zeros(len(levels), dtype=np.int64), 1


@serializable
class Offsets(Decision):
    """What is taken off the logarithms of the probabilities before the largest is taken, (n_classes,)."""

    def levels(self, y_pred: Array) -> Array:
        """See `Decision`."""
        return np.log(np.clip(y_pred, PROBABILITY_EPSILON, None))

    def labels(self, levels: Array) -> NDArray[Any]:
        """See `Decision`."""
        return (levels - self.cuts).argmax(axis=1)[:, None]

    def sweep(self, levels: Array, j: int) -> Turn:
        """See `Decision`."""
        others = levels - self.cuts
        others[:, j] = -np.inf
        return 0, levels[:, j] - others.max(axis=1), others.argmax(axis=1), j


@serializable
class CutPoints(Decision):
    """Mean grades from which on the next grade begins, rising, (n_classes - 1,)."""

    def labels(self, levels: Array) -> NDArray[Any]:
        """See `Decision`."""
        return np.searchsorted(self.cuts, levels, side="right")

    def sweep(self, levels: Array, j: int) -> Turn:
        """See `Decision`."""
        labels = self.labels(levels[:, 0])
        moves = (labels == j) | (labels == j + 1)
        return 0, np.where(moves, levels[:, 0], -np.inf), np.where(moves, j, labels), j + 1


def plain_decision(task: Task) -> Decision:
    """The decision that no metric is asked for: `Task.default_labels`."""
    if task.problem_type == "multiclass":
        return Offsets(np.zeros(len(task.classes)))
    if task.problem_type == "ordinal":
        return CutPoints(np.arange(len(task.classes) - 1, dtype=np.float64) + 0.5)
    return Thresholds(np.full(len(task.targets), 0.5))


def fit_decision(metric: Metric, task: Task, y: Array, y_pred: Array) -> Decision:
    """The cuts with the best score to expect on rows that were predicted without their labels.

    Args:
        y: (n_rows, n_targets), NaN where there is no label.
        y_pred: (n_rows, n_outputs).
    """
    decision = plain_decision(task)
    if not len(y):  # of two folds, both are left out
        return decision
    levels, cuts = decision.levels(y_pred), range(len(decision.cuts))
    chances = [calibrate(labels, _logits(task, y_pred, t)) for t, labels in enumerate(y.T)]
    pooled = dict[int, Array]()
    if metric.pooled:  # the counts of the other targets are added
        pooled = {j: _counts(chances, decision.sweep(levels, j), decision.cuts[[j]])[0] for j in cuts}
    alone = (
        isinstance(decision, Thresholds) and metric.score_from_confusion and not metric.pooled
    )  # no cut moves another
    for _ in range(1 if alone else PASSES):
        before = decision
        for j in cuts:
            turn = decision.sweep(levels, j)
            places = np.union1d(_places(turn, PLACES if metric.score_from_confusion else COARSE), decision.cuts[j])
            if metric.score_from_confusion:
                counts, others = _counts(chances, turn, places), sum(pooled[i] for i in pooled if i != j)
                scores = metric.score_from_confusion(counts + others if pooled else counts)
            else:
                scores = np.array([metric(y, _moved(decision, j, place).predict(y_pred)) for place in places])
            scores = scores if metric.greater_is_better else -scores
            best = np.flatnonzero(scores == np.nanmax(scores, initial=-np.inf))
            if len(best):
                middle = best[len(best) // 2]
                decision = _moved(decision, j, places[middle])
                pooled |= {j: counts[middle]} if pooled else {}
        if np.array_equal(before.cuts, decision.cuts):
            break
    return decision


def _moved(decision: Decision, j: int, place: float) -> Decision:
    """The decision with its j-th cut at another place."""
    cuts = decision.cuts.copy()
    cuts[j] = place
    return replace(decision, cuts=cuts)


def _places(turn: Turn, n: int) -> Array:
    """Places of a cut at equal shares of the rows that it turns, (n_places,), each halfway between two rows."""
    asked = np.sort(turn[1][turn[1] > -np.inf])
    edges = asked[np.linspace(0, len(asked) - 1, n).astype(np.int64)] if len(asked) else asked
    return np.unique((edges[1:] + edges[:-1]) / 2)


def _counts(chances: list[Array], turn: Turn, places: Array) -> Array:
    """Expected confusion matrices of all places of a cut, (n_places, n_classes, n_classes)."""
    t, at, below, above = turn
    n_rows, n_classes = chances[t].shape
    cells = np.searchsorted(places, at, side="right") * n_classes + below
    of_cells = csr_array((np.ones(n_rows), (cells, np.arange(n_rows))), ((len(places) + 1) * n_classes, n_rows))
    counts = (of_cells @ chances[t]).reshape(-1, n_classes, n_classes)  # place, predicted, true
    np.cumsum(counts, axis=0, out=counts)
    counts[:, above] += counts[-1].sum(axis=0) - counts.sum(axis=1)
    return counts[:-1].swapaxes(1, 2)


def _logits(task: Task, y_pred: Array, t: int) -> Array:
    """How far predictions of a target speak for each class, (n_classes, n_rows)."""
    if task.problem_type == "ordinal":
        grades = np.arange(len(task.classes))[:, None]
        return grades * (y_pred[:, 0] - grades / 2)
    p = y_pred.T if task.problem_type == "multiclass" else np.stack([1 - y_pred[:, t], y_pred[:, t]])
    return np.log(np.clip(p, SMALLEST, None, order="C"))


def calibrate(y: Array, logits: Array) -> Array:
    """Probability of each class, (n_rows, n_classes): the softmax of a * logits + b; 0 for rows without a label.

    The number a and the b of each class are the likeliest for the labels, (n_rows,), with a ridge of 1 towards 1 and 0;
    more of it would not mend what class weights bend. By Newton's method. Source: Platt scaling, with a bias for each
    class as in Guo et al., On calibration of modern neural networks, ICML 2017; for grades, a normal error about them
    gives the same form.
    """
    known, found = ~np.isnan(y), np.r_[1.0, np.zeros(len(logits))]
    plain, z = found, np.compress(known, logits, axis=1)
    truth = (y[known] == np.arange(len(z))[:, None]).astype(np.float64)
    for _ in range(NEWTON_STEPS):
        p = softmax(found[0] * z + found[1:, None], axis=0)
        rest, apart = truth - p, p * (z - (p * z).sum(axis=0))
        gradient = np.r_[np.vdot(z, rest), rest.sum(axis=1)] + plain - found
        slope = apart.sum(axis=1)
        curvature = np.block([[np.vdot(apart, z), slope], [slope[:, None], np.diag(p.sum(axis=1)) - p @ p.T]])
        step = np.linalg.solve(curvature + np.eye(len(found)), gradient)
        found = found + np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-3:
            break
    return np.ascontiguousarray((softmax(found[0] * logits + found[1:, None], axis=0) * known).T)
