"""Scores of classes: of probabilities, and of labels by their confusion matrix.

A label is the number of its class in `competition.classes`. Probabilities are (n_rows,), those of class 1 of
two, or (n_rows, n_classes). A confusion matrix counts rows by true and by predicted class, (..., n_classes,
n_classes); many of them are scored at once. Sources: scikit-learn's user guide, "Classification metrics";
Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient, 2004, for the MCC of
several classes.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from competition.types import Array

PROBABILITY_EPSILON = 1e-15
"""Probability that a log loss takes for 0, as leaderboards do."""


def confusion(y_true: Array, labels: Array) -> Array:
    """How often each true class is taken for each, (n_classes, n_classes), of labels (n_rows,) without a gap."""
    n = int(max(y_true.max(initial=0), labels.max(initial=0), 1)) + 1
    cells = (y_true * n + labels).astype(np.int64)
    return np.bincount(cells, minlength=n * n).reshape(n, n).astype(np.float64)


def _ratio(above: Array, below: Array) -> Array:
    """`above` over `below`; 0 where both are 0."""
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below != 0)


def _parts(counts: Array) -> tuple[Array, Array, Array]:
    """Rows that are right, of each true class, and of each predicted one, (..., n_classes) each."""
    return np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(axis=-1), counts.sum(axis=-2)


def accuracy(counts: Array) -> Array:
    """Share of the rows that are right."""
    right, true, _ = _parts(counts)
    return _ratio(right.sum(axis=-1), true.sum(axis=-1))


def balanced_accuracy(counts: Array) -> Array:
    """Mean recall of the classes that there are."""
    right, true, _ = _parts(counts)
    return _ratio(_ratio(right, true).sum(axis=-1), (true > 0).sum(axis=-1).astype(np.float64))


def _f1_of_classes(counts: Array) -> tuple[Array, Array]:
    right, true, predicted = _parts(counts)
    return _ratio(2 * right, true + predicted), (true + predicted > 0).astype(np.float64)


def f1(counts: Array) -> Array:
    """F1 of class 1; 0 where it is neither true nor predicted."""
    return _f1_of_classes(counts)[0][..., 1]


def f1_macro(counts: Array) -> Array:
    """Mean F1 of the classes that are true or predicted somewhere."""
    each, there = _f1_of_classes(counts)
    return _ratio(each.sum(axis=-1), there.sum(axis=-1))


def mcc(counts: Array) -> Array:
    """Correlation of true and predicted classes; 0 where one of the two is constant."""
    right, true, predicted = _parts(counts)
    n = true.sum(axis=-1)
    above = right.sum(axis=-1) * n - (true * predicted).sum(axis=-1)
    below = (n**2 - (true**2).sum(axis=-1)) * (n**2 - (predicted**2).sum(axis=-1))
    return _ratio(above, np.sqrt(np.maximum(below, 0.0)))


def quadratic_kappa(counts: Array) -> Array:
    """1 minus the squared distance of true and predicted classes over that of a prediction by chance.

    Source: Cohen, Weighted kappa, Psychological Bulletin 1968.
    """
    _, true, predicted = _parts(counts)
    place = np.arange(counts.shape[-1])
    distance = (place[:, None] - place) ** 2
    found = (counts * distance).sum(axis=(-2, -1)) * true.sum(axis=-1)
    by_chance = (true[..., :, None] * predicted[..., None, :] * distance).sum(axis=(-2, -1))
    return np.where(by_chance > 0, 1 - _ratio(found, by_chance), np.nan)


def log_losses(y_true: Array, y_pred: Array) -> Array:
    """Minus the logarithm of the probability of each row's class, (n_rows,)."""
    both = np.column_stack([1 - y_pred, y_pred]) if y_pred.ndim == 1 else y_pred
    return -np.log(np.clip(both[np.arange(len(y_true)), y_true.astype(int)], PROBABILITY_EPSILON, None))


def squared_errors(y_true: Array, y_pred: Array) -> Array:
    """Brier score of each row, (n_rows,): of two classes half of what it is of several, as scikit-learn's.

    Source: Brier, Verification of forecasts expressed in terms of probability, 1950.
    """
    if y_pred.ndim == 1:
        return (y_true - y_pred) ** 2
    return ((y_pred - np.eye(y_pred.shape[1])[y_true.astype(int)]) ** 2).sum(axis=1)


def _one_against_rest(score: Callable[[Array, Array], float], y_true: Array, y_pred: Array) -> float:
    """Score of class 1 of two, or mean over several, each against all others; NaN where there is one class
    alone.
    """
    columns = [(1, y_pred)] if y_pred.ndim == 1 else enumerate(y_pred.T)
    truths = [(y_true == number, column) for number, column in columns]
    return float(np.mean([score(*pair) for pair in truths if 0 < pair[0].sum() < len(y_true)] or [np.nan]))


def _area(positive: Array, y_pred: Array) -> float:
    _, place, counts = np.unique(y_pred, return_inverse=True, return_counts=True)
    ranks, n = (np.cumsum(counts) - (counts - 1) / 2)[place], float(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(positive) - n)))


def _precision(positive: Array, y_pred: Array) -> float:
    place = np.unique(-y_pred, return_inverse=True)[1]  # the likeliest first, equal ones together
    found = np.bincount(place, positive)
    return float(found @ (np.cumsum(found) / np.cumsum(np.bincount(place))) / found.sum())


roc_auc = partial(_one_against_rest, _area)
average_precision = partial(_one_against_rest, _precision)


def map_at(k: int, y_true: Array, y_pred: Array) -> float:
    """Mean of 1 over the place of the true class among the k likeliest of (n_rows, n_classes); 0 if it is not
    there.

    Of equal probabilities the class that stands first is the likelier one.
    """
    places = np.argsort(-y_pred, axis=1, kind="stable")[:, :k] == y_true[:, None]
    return float((places / np.arange(1, places.shape[1] + 1)).sum(axis=1).mean())
