"""Blends of probabilities in logits: sums of log odds or log probabilities, with weights of at least 0 and a free sum.

The sum of the weights is the inverse temperature: above 1 where columns that agree deserve more trust than each alone,
below 1 where they are too sure of themselves.
"""

from typing import Literal

import numpy as np
from scipy.special import expit, logit, softmax

from competition.types import Array

Link = Literal["identity", "logistic", "softmax"]
"""What a weighted sum is: a prediction; the log odds of class 1; the logarithm of a class's share."""
PROBABILITY_EPSILON = 1e-3
"""What a probability of 0 is read as: of a class that a fold has not seen, or of trees that all say no."""
PENALTIES = [0.001, 0.01, 0.1, 1.0, 10.0]
"""On the squared distance from the convex weights, from hardly any to these."""
PULL_TO_ONE = 30.0
"""Over n_rows, on the square of the sum less 1. Columns of test rows are means of the folds' models, and less sure than
one of them: a temperature that few rows ask for goes too far there. It also keeps the sum finite where columns tell the
classes apart without a mistake."""
FURTHEST = 500.0
"""Logits beyond which nothing changes, so that no power is too large for a number."""


def logits(P: Array, link: Link, least: float = PROBABILITY_EPSILON) -> Array:
    """Probabilities (n_rows, ..., n_outputs) on the scale on which they are summed."""
    if link == "identity":
        return P
    P = np.clip(P, least, 1 - least)
    return logit(P) if link == "logistic" else np.log(P)


def probabilities(sums: Array, link: Link) -> Array:
    """What `logits` undoes, of sums (n_rows, ..., n_outputs)."""
    if link == "identity":
        return sums
    return expit(sums) if link == "logistic" else softmax(sums, axis=-1)


def margins(P: Array, y: Array, link: Link) -> Array:
    """How far the logits of the other classes lie above those of the true one, (n_rows, n_others, n_columns).

    Args:
        P: (n_rows, n_outputs, n_columns).
        y: (n_rows, n_outputs), 1 for what is true.
    """
    of_columns = logits(P, link)
    if link == "logistic":
        return of_columns * (1 - 2 * y)[:, :, None]
    return (of_columns - of_columns[y == 1][:, None])[y == 0].reshape(len(y), -1, P.shape[2])


def log_loss_weights(of_targets: list[Array], start: Array) -> Array:
    """Weights w >= 0 of the least log loss for each of `PENALTIES`, (n_penalties, n_columns).

    They minimise the mean of log(1 + sum over the other classes of exp(z w)), which is the log loss, and the penalties.
    Solved by Newton's method, whose steps `nnls` finds exactly.

    Args:
        of_targets: the margins z of each target, which counts as much as any other.
        start: weights (n_columns,) that w is pulled to; equal columns have equal ones, and so share their weight.
    """
    from scipy.optimize import nnls

    n_columns, on_the_sum = len(start), PULL_TO_ONE / sum(map(len, of_targets))

    def loss(w: Array, penalty: float) -> tuple[float, Array, Array]:
        """The loss with its first and second derivatives."""
        curvature = 2 * (penalty * np.eye(n_columns) + on_the_sum)
        slope = curvature @ (w - start)  # the sum of `start` is 1
        value = float((w - start) @ slope) / 2
        for z in of_targets:
            flat, share = z.reshape(-1, n_columns), 1 / len(of_targets) / len(z)
            powers = np.exp(np.minimum(flat @ w, FURTHEST)).reshape(z.shape[:2])
            total = 1 + powers.sum(axis=1)
            weighed = flat * (powers / total[:, None]).reshape(-1, 1)  # by the probabilities of the other classes
            slopes = weighed.reshape(z.shape).sum(axis=1)
            value += share * np.log(total).sum()
            slope = slope + np.full(len(z), share) @ slopes
            curvature = curvature + share * (weighed.T @ flat - slopes.T @ slopes)
        return value, slope, curvature

    w, found = start, []
    for penalty in PENALTIES[::-1]:
        now, gain = loss(w, penalty), np.inf
        while gain > 1e-9:
            value, slope, curvature = now
            root = np.linalg.cholesky(curvature)
            step = nnls(root.T, np.linalg.solve(root, curvature @ w - slope))[0] - w
            gain = -slope @ step
            while gain > 1e-9 and (now := loss(w + step, penalty))[0] > value:
                step /= 2
            w = w + step
        found.append(w)
    return np.array(found[::-1])
