"""Blends of probabilities as weighted sums of logits, with weights of at least 0 and a free sum.

The sum of the weights is an inverse temperature. It is above 1 if the base models are underconfident
when they agree, and below 1 if they are overconfident.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np
from scipy.special import expit, logit, softmax

from competition.types import Array

Link = Literal["identity", "logistic", "softmax"]
"""Scale of a weighted sum: predictions, log odds of class 1, or log probabilities plus a constant."""
MIN_BASE_PROBABILITY = 1e-3
"""Base predictions are clipped here. A probability of 0 means a class without training rows in a fold,
or trees that all agree."""
PENALTIES = [0.001, 0.01, 0.1, 1.0, 10.0]
"""Factors of the squared distance between the weights and the convex weights."""
SUM_PENALTY = 30.0
"""Factor, divided by the number of rows, of the squared difference between the sum of the weights and
1. Test rows are predicted by the mean of the folds' models, which is less confident than one model, so
a temperature that is supported by few rows goes too far. The penalty also keeps the sum finite if the
base models separate the classes perfectly."""
MAX_LOGIT = 500.0
"""Larger logits are clipped, so that their exponential is finite; they would not change the loss."""
MIN_DECREASE = 1e-9
"""Newton's method stops if its step promises a smaller decrease of the loss."""


def logits(preds: Array, link: Link, min_probability: float = MIN_BASE_PROBABILITY) -> Array:
    """Return predictions (n_rows, ..., n_outputs) on the scale of the link."""
    if link == "identity":
        return preds
    preds = np.clip(preds, min_probability, 1 - min_probability)
    return logit(preds) if link == "logistic" else np.log(preds)


def probabilities(sums: Array, link: Link) -> Array:
    """Return predictions of sums (n_rows, ..., n_outputs) on the scale of the link; inverts `logits`."""
    if link == "identity":
        return sums
    return expit(sums) if link == "logistic" else softmax(sums, axis=-1)


def margins(preds: Array, y: Array, link: Link) -> Array:
    """Return the logits of the other classes minus the logit of the true class.

    Args:
        preds: (n_rows, n_outputs, n_models).
        y: (n_rows, n_outputs), 1 for the true class.

    Returns:
        (n_rows, n_other_classes, n_models).
    """
    model_logits = logits(preds, link)
    if link == "logistic":
        return model_logits * (1 - 2 * y)[:, :, None]
    true_logits = model_logits[y == 1][:, None]
    return (model_logits - true_logits)[y == 0].reshape(len(y), -1, preds.shape[2])


def log_loss_weights(target_margins: list[Array], prior: Array) -> Array:
    """Return the weights w >= 0 with the smallest log loss for each of `PENALTIES`, (n_penalties,
    n_models).

    The log loss of a row is log(1 + sum over the other classes of exp(z w)) with its margins z. The
    mean over the rows and two penalties (`PENALTIES`, `SUM_PENALTY`) are minimized by Newton's method;
    `nnls` solves each step exactly.

    Args:
        target_margins: margins of each target, (n_rows, n_other_classes, n_models); each target has the
            same weight.
        prior: weights (n_models,) that sum to 1, towards which w is shrunk. Duplicate models have equal
            prior weights and therefore get equal weights.
    """
    sum_penalty = SUM_PENALTY / sum(map(len, target_margins))
    weights = prior
    solutions = []
    for penalty in PENALTIES[::-1]:
        penalty_curvature = 2 * (penalty * np.eye(len(prior)) + sum_penalty)
        weights = _minimize(partial(_penalized_log_loss, target_margins, prior, penalty_curvature), weights)
        solutions.append(weights)
    return np.array(solutions[::-1])


def _penalized_log_loss(
    target_margins: list[Array], prior: Array, penalty_curvature: Array, w: Array
) -> tuple[float, Array, Array]:
    """Return the mean log loss plus penalties, its gradient (n_models,) and its Hessian (n_models, n_models)."""
    hessian = penalty_curvature
    gradient = hessian @ (w - prior)
    value = float((w - prior) @ gradient) / 2
    for z in target_margins:
        flat = z.reshape(-1, len(w))
        row_weight = 1 / len(target_margins) / len(z)
        odds = np.exp(np.minimum(flat @ w, MAX_LOGIT)).reshape(z.shape[:2])
        total = 1 + odds.sum(axis=1)
        weighted = flat * (odds / total[:, None]).reshape(-1, 1)  # by class probabilities
        row_gradients = weighted.reshape(z.shape).sum(axis=1)
        value += row_weight * np.log(total).sum()
        gradient = gradient + np.full(len(z), row_weight) @ row_gradients
        hessian = hessian + row_weight * (weighted.T @ flat - row_gradients.T @ row_gradients)
    return value, gradient, hessian


def _minimize(loss: Callable[[Array], tuple[float, Array, Array]], w: Array) -> Array:
    """Return the w >= 0 with the smallest loss, by Newton's method with step halving from a start `w`."""
    from scipy.optimize import nnls

    value, gradient, hessian = loss(w)
    while True:
        root = np.linalg.cholesky(hessian)
        step = nnls(root.T, np.linalg.solve(root, hessian @ w - gradient))[0] - w
        expected_decrease = -gradient @ step
        if not expected_decrease > MIN_DECREASE:
            return w + step
        new_value, gradient, hessian = loss(w + step)
        while new_value > value:
            step /= 2
            new_value, gradient, hessian = loss(w + step)
        w = w + step
        value = new_value
