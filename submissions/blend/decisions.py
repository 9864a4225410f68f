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

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit, softmax

from competition.class_metrics import LEAST
from competition.metrics import Array, Metric
from competition.task import Task
from submissions.blend.stored import storable

PLACES, COARSE = 200, 20
"""Places of a cut that are tried, at equal shares of the rows: of a metric of confusion matrices, and of another."""
PASSES, NEWTON_STEPS = 3, 20
SMALLEST = 1e-3
"""Probability that the calibration takes for 0: a few rows that a stage is too sure of must not bend it."""

Turn = tuple[int, Array, NDArray[np.int64], NDArray[np.int64]]
"""What moving one cut does: the target, what rows are held against the cut, (n_rows,), and the class of each row where
that is below the cut, and above it."""


class Decision(Protocol):
    """Fitted cuts."""

    @property
    def cuts(self) -> Array:
        """Where they are."""

    def predict(self, y_pred: Array) -> Array:
        """Labels (n_rows, n_targets) of predictions (n_rows, n_outputs), each row by itself."""

    def turn(self, y_pred: Array, j: int) -> Turn:
        """What the place of the j-th cut decides with the others as they are."""


@storable
@dataclass(frozen=True)
class Thresholds:
    """Probabilities from which on a label is class 1, (n_targets,)."""

    cuts: Array

    def predict(self, y_pred: Array) -> Array:
        """See `Decision`."""
        return (y_pred >= self.cuts).astype(np.float64)

    def turn(self, y_pred: Array, j: int) -> Turn:
        """See `Decision`."""
        none = np.zeros(len(y_pred), dtype=np.int64)
        return j, y_pred[:, j], none, none + 1


@storable
@dataclass(frozen=True)
class Offsets:
    """What is taken off the logarithms of the probabilities before the largest is taken, (n_classes,)."""

    cuts: Array

    def predict(self, y_pred: Array) -> Array:
        """See `Decision`."""
        return self._scores(y_pred).argmax(axis=1)[:, None].astype(np.float64)

    def turn(self, y_pred: Array, j: int) -> Turn:
        """See `Decision`."""
        scores = self._scores(y_pred)
        own = scores[:, j] + self.cuts[j]
        scores[:, j] = -np.inf
        return 0, own - scores.max(axis=1), scores.argmax(axis=1), np.full(len(scores), j)

    def _scores(self, y_pred: Array) -> Array:
        return np.log(np.clip(y_pred, LEAST, None)) - self.cuts


@storable
@dataclass(frozen=True)
class CutPoints:
    """Mean grades from which on the next grade begins, rising, (n_classes - 1,)."""

    cuts: Array

    def predict(self, y_pred: Array) -> Array:
        """See `Decision`."""
        return np.searchsorted(self.cuts, y_pred, side="right").astype(np.float64)

    def turn(self, y_pred: Array, j: int) -> Turn:
        """See `Decision`."""
        labels = self.predict(y_pred)[:, 0].astype(np.int64)
        moves = (labels == j) | (labels == j + 1)
        return 0, y_pred[:, 0], np.where(moves, j, labels), np.where(moves, j + 1, labels)


def plain_decision(task: Task) -> Decision:
    """The decision that no metric is asked for: `Task.likeliest`."""
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
    decision: Any = plain_decision(task)
    chances = [calibrated(labels, _logits(task, y_pred, t)) for t, labels in enumerate(y.T)]
    cuts, pooled = range(len(decision.cuts)), {}
    if metric.pooled:  # the counts of the other targets are added
        pooled = {j: _counts(chances, decision.turn(y_pred, j), decision.cuts[[j]])[0] for j in cuts}
    each_alone = isinstance(decision, Thresholds) and metric.of_confusion and not metric.pooled
    for _ in range(1 if each_alone else PASSES):
        before = decision
        for j in cuts:
            turn = decision.turn(y_pred, j)
            places = np.union1d(_places(turn, PLACES if metric.of_confusion else COARSE), decision.cuts[j])
            if metric.of_confusion:
                counts = _counts(chances, turn, places)
                scores = metric.of_confusion(counts + sum(pooled.values()) - pooled[j] if pooled else counts)
            else:
                scores = np.array([metric(y, _moved(decision, j, place).predict(y_pred)) for place in places])
            scores = scores if metric.greater_is_better else -scores
            best = np.flatnonzero(scores == np.nanmax(scores, initial=-np.inf))
            if len(best):  # of equally good places the middle one
                decision = _moved(decision, j, places[best[len(best) // 2]])
                pooled |= {j: counts[best[len(best) // 2]]} if pooled else {}
        if np.array_equal(before.cuts, decision.cuts):
            break
    return decision


def _moved(decision: Any, j: int, place: float) -> Any:
    """The decision with its j-th cut at another place."""
    cuts = decision.cuts.copy()
    cuts[j] = place
    return replace(decision, cuts=cuts)


def _places(turn: Turn, n: int) -> Array:
    """Places of a cut at equal shares of the rows that it turns, (n_places,), each halfway between two rows."""
    _, at, below, above = turn
    asked = np.sort(at[below != above])
    edges = asked[np.linspace(0, len(asked) - 1, n).astype(np.int64)] if len(asked) else asked
    return np.unique((edges[1:] + edges[:-1]) / 2)


def _counts(chances: list[Array], turn: Turn, places: Array) -> Array:
    """Expected confusion matrices of all places of a cut, (n_places, n_classes, n_classes)."""
    t, at, below, above = turn
    n_classes = chances[t].shape[1]
    passed, n_cells = np.searchsorted(places, at, side="right") * n_classes, (len(places) + 1) * n_classes
    counts = np.empty((len(places), n_classes, n_classes))
    for c, chance in enumerate(chances[t].T):
        turned = np.bincount(passed + above, chance, n_cells) - np.bincount(passed + below, chance, n_cells)
        from_above = np.cumsum(turned.reshape(-1, n_classes)[::-1], axis=0)[::-1]
        counts[:, c] = from_above[1:] + np.bincount(below, chance, n_classes)
    return counts


def _logits(task: Task, y_pred: Array, t: int) -> Array:
    """How far predictions speak for each class but the first, against the first one, (n_rows, n_classes - 1)."""
    if task.problem_type == "ordinal":
        grades = np.arange(1, len(task.classes))
        return grades * (y_pred - grades / 2)
    if task.problem_type == "multiclass":
        known = np.log(np.clip(y_pred, SMALLEST, None))
        return known[:, 1:] - known[:, :1]
    return logit(np.clip(y_pred[:, [t]], SMALLEST, 1 - SMALLEST))


def calibrated(y: Array, logits: Array) -> Array:
    """Probability of each class, (n_rows, n_classes): the softmax of a * logits + b; 0 for rows without a label.

    The number a and the b of each class but the first are the likeliest for the labels, (n_rows,), with a ridge of 1
    towards 1 and 0; more of it would not mend what class weights bend. By Newton's method. Source: Platt scaling, with
    a bias for each class as in Guo et al., On calibration of modern neural networks, ICML 2017; for grades, a normal
    error about them gives the same form.
    """
    known = ~np.isnan(y)
    z, truth = logits[known], (y[known, None] == np.arange(1, logits.shape[1] + 1)).astype(np.float64)
    plain = np.r_[1.0, np.zeros(z.shape[1])]
    found = plain

    for _ in range(NEWTON_STEPS):
        p = _scaled(z, found)[:, 1:]
        rest, apart = truth - p, p * (z - (p * z).sum(axis=1, keepdims=True))
        gradient = np.r_[np.vdot(z, rest), rest.sum(axis=0)] + plain - found
        slope = apart.sum(axis=0)
        curvature = np.block([[np.vdot(apart, z), slope], [slope[:, None], np.diag(p.sum(axis=0)) - p.T @ p]])
        step = np.linalg.solve(curvature + np.eye(len(found)), gradient)
        found = found + np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-3:
            break
    return _scaled(logits, found) * known[:, None]


def _scaled(logits: Array, found: Array) -> Array:
    return np.asarray(softmax(np.pad(found[0] * logits + found[1:], ((0, 0), (1, 0))), axis=1))
