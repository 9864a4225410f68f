"""Classification metrics: scores of probabilities, and scores of labels from the numbers of rows of each class.

A label is the index of its class in `competition.classes`. Probabilities are (n_rows,) for class 1 of two
classes, or (n_rows, n_classes). Many predictions are scored at once by their `ClassCounts`. Sources:
scikit-learn's user guide, "Classification metrics"; Gorodkin, Comparing two K-category assignments by a
K-category correlation coefficient, 2004, for the MCC of several classes.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from core.types import Array

PROBABILITY_EPSILON = 1e-15
"""Lower bound of the probabilities in a log loss, as on leaderboards."""


class ClassCounts(NamedTuple):
    """What scores of labels depend on; numbers may be expected ones.

    Attributes:
        correct: rows of each class that are predicted as such, (..., n_classes).
        true: rows of each class, (..., n_classes).
        predicted: rows that are predicted as each class, (..., n_classes).
        distance: sum over rows of the squared difference between true and predicted class, (...).
    """

    correct: Array
    true: Array
    predicted: Array
    distance: Array


def class_counts(y_true: Array, labels: Array) -> ClassCounts:
    """Return the counts of labels (n_rows,) without missing values."""
    n = int(max(y_true.max(initial=0), labels.max(initial=0), 1)) + 1
    correct, true, predicted = (
        np.bincount(classes.astype(np.int64), minlength=n).astype(np.float64)
        for classes in (y_true[y_true == labels], y_true, labels)
    )
    return ClassCounts(correct, true, predicted, np.array(((y_true - labels) ** 2).sum()))


def _ratio(numerator: Array, denominator: Array) -> Array:
    """Return the ratio; 0 where the denominator is 0."""
    zeros = np.zeros(np.broadcast(numerator, denominator).shape)
    return np.divide(numerator, denominator, out=zeros, where=denominator != 0)


def accuracy(counts: ClassCounts) -> Array:
    """Return the share of correct rows."""
    return _ratio(counts.correct.sum(axis=-1), counts.true.sum(axis=-1))


def balanced_accuracy(counts: ClassCounts) -> Array:
    """Return the mean recall of the classes that occur."""
    correct, true = counts.correct, counts.true
    return _ratio(_ratio(correct, true).sum(axis=-1), (true > 0).sum(axis=-1).astype(np.float64))


def _class_f1(counts: ClassCounts) -> tuple[Array, Array]:
    """Return the F1 of each class, and 1 for each class that is true or predicted in some row."""
    n_rows = counts.true + counts.predicted
    return _ratio(2 * counts.correct, n_rows), (n_rows > 0).astype(np.float64)


def f1(counts: ClassCounts) -> Array:
    """Return the F1 of class 1; 0 if it is neither true nor predicted."""
    return _class_f1(counts)[0][..., 1]


def f1_macro(counts: ClassCounts) -> Array:
    """Return the mean F1 of the classes that are true or predicted in some row."""
    scores, is_present = _class_f1(counts)
    return _ratio(scores.sum(axis=-1), is_present.sum(axis=-1))


def f1_weighted(counts: ClassCounts) -> Array:
    """Return the mean F1 of the classes, weighted by their rows."""
    scores, _ = _class_f1(counts)
    return _ratio((scores * counts.true).sum(axis=-1), counts.true.sum(axis=-1))


def mcc(counts: ClassCounts) -> Array:
    """Return the correlation of true and predicted classes; 0 if one of the two is constant."""
    true, predicted = counts.true, counts.predicted
    n = true.sum(axis=-1)
    covariance = counts.correct.sum(axis=-1) * n - (true * predicted).sum(axis=-1)
    variances = (n**2 - (true**2).sum(axis=-1)) * (n**2 - (predicted**2).sum(axis=-1))
    return _ratio(covariance, np.sqrt(np.maximum(variances, 0.0)))


def quadratic_kappa(counts: ClassCounts) -> Array:
    """Return Cohen's kappa with quadratic weights; NaN if true and predicted classes are constant and equal.

    Source: Cohen, Weighted kappa, Psychological Bulletin 1968.
    """
    level = np.arange(counts.true.shape[-1])
    observed = counts.distance * counts.true.sum(axis=-1)
    by_chance = (counts.true @ (level[:, None] - level) ** 2 * counts.predicted).sum(axis=-1)
    return np.where(by_chance > 0, 1 - _ratio(observed, by_chance), np.nan)


def log_losses(y_true: Array, y_pred: Array) -> Array:
    """Return minus the logarithm of the probability of the true class per row, (n_rows,)."""
    probabilities = np.column_stack([1 - y_pred, y_pred]) if y_pred.ndim == 1 else y_pred
    true_class = probabilities[np.arange(len(y_true)), y_true.astype(int)]
    return -np.log(np.clip(true_class, PROBABILITY_EPSILON, None))


def squared_errors(y_true: Array, y_pred: Array) -> Array:
    """Return the Brier score per row, (n_rows,).

    As in scikit-learn, two classes in one column have half of the score of two columns.
    Source: Brier, Verification of forecasts expressed in terms of probability, 1950.
    """
    if y_pred.ndim == 1:
        return (y_true - y_pred) ** 2
    return ((y_pred - np.eye(y_pred.shape[1])[y_true.astype(int)]) ** 2).sum(axis=1)


def _one_vs_rest(score: Callable[[Array, Array], float], y_true: Array, y_pred: Array) -> float:
    """Return the score of class 1 of two classes, or the macro average; NaN if there is only one class."""
    class_probabilities = {1: y_pred} if y_pred.ndim == 1 else dict(enumerate(y_pred.T))
    class_scores = []
    for class_index, probabilities in class_probabilities.items():
        is_positive = y_true == class_index
        if 0 < is_positive.sum() < len(y_true):  # undefined without both classes
            class_scores.append(score(is_positive, probabilities))
    return float(np.mean(class_scores)) if class_scores else float("nan")


def _roc_auc(is_positive: Array, probabilities: Array) -> float:
    _, position, counts = np.unique(probabilities, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[position]
    n = float(is_positive.sum())
    return float((ranks[is_positive].sum() - n * (n + 1) / 2) / (n * (len(is_positive) - n)))


def _average_precision(is_positive: Array, probabilities: Array) -> float:
    position = np.unique(-probabilities, return_inverse=True)[1]  # the most probable first, ties together
    positives = np.bincount(position, is_positive)
    precision = np.cumsum(positives) / np.cumsum(np.bincount(position))
    return float(positives @ precision / positives.sum())


roc_auc = partial(_one_vs_rest, _roc_auc)
average_precision = partial(_one_vs_rest, _average_precision)


def map_at(k: int, y_true: Array, y_pred: Array) -> float:
    """Return the mean of 1 / rank of the true class among the k most probable classes; 0 if it is not there.

    Ties are broken by the order of the classes.
    """
    is_hit = np.argsort(-y_pred, axis=1, kind="stable")[:, :k] == y_true[:, None]
    return float((is_hit / np.arange(1, is_hit.shape[1] + 1)).sum(axis=1).mean())
