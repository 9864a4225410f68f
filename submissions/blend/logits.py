"""Blends of probabilities as weighted sums of logits, with weights of at least 0 and a free sum.

The sum of the weights is an inverse temperature. It is above 1 if the columns are underconfident when they
agree, and below 1 if they are overconfident.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from core.types import Array

Link = Literal["identity", "log1p", "asinh", "logistic", "softmax"]
"""Scale of a weighted sum: predictions, log1p, asinh, log odds of class 1, or log probabilities plus a constant."""
LABEL_LINKS = ("log1p", "asinh")
"""Links that labels are on, too. The first clips predictions; the second, a logarithm of large numbers of either sign,
keeps the order of all of them, such as external predictions on another scale."""
SMALLEST = -0.9
"""Predictions are clipped here before log1p, which has no value from -1 down."""
MIN_BASE_PROBABILITY = 1e-3
"""Base predictions are clipped here. A probability of 0 means a class without training rows in a fold,
or trees that all agree."""
SUM_PENALTY = 30.0
"""Factor, divided by the number of rows, of the squared difference between the sum of the weights and
1. Test rows are predicted by the mean of the folds' models, which is less confident than one model, so
a temperature that is supported by few rows goes too far. The penalty also keeps the sum finite if the
base models separate the classes perfectly."""
MAX_LOGIT = 500.0
"""Larger logits are clipped, so that their exponential is finite; they would not change the loss."""


def logits(preds: Array, link: Link, min_probability: float = MIN_BASE_PROBABILITY) -> Array:
    """Return predictions (n_rows, ..., n_outputs) on the scale of the link."""
    if link == "identity":
        return preds
    if link == "log1p":
        return np.log1p(np.maximum(preds, SMALLEST))
    if link == "asinh":
        return np.arcsinh(preds)
    from scipy.special import (
        logit,  # here, since `check` does without it and its import takes a tenth of a second
    )

    preds = np.clip(preds, min_probability, 1 - min_probability)
    return logit(preds) if link == "logistic" else np.log(preds)


def probabilities(sums: Array, link: Link) -> Array:
    """Return predictions of sums (n_rows, ..., n_outputs) on the scale of the link; inverts `logits`."""
    if link == "identity":
        return sums
    if link == "log1p":
        return np.expm1(sums)
    if link == "asinh":
        return np.sinh(sums)
    from scipy.special import expit, softmax

    return expit(sums) if link == "logistic" else softmax(sums, axis=-1)


def on_scale(values: Array, link: Link) -> Array:
    """Return labels or columns on the scale of the blend: unchanged unless labels are on it, too."""
    return logits(values, link) if link in LABEL_LINKS else values


def target_outputs(target: int, link: Link) -> slice:
    """Return the outputs that belong to a target: all classes, or its only one."""
    return slice(None) if link == "softmax" else slice(target, target + 1)


def margins(preds: Array, labels: Array, link: Link) -> Array:
    """Return the logits of the other classes minus the logit of the true class.

    Args:
        preds: (n_rows, n_models, n_outputs).
        labels: class numbers (n_rows,).

    Returns:
        (n_rows, n_other_classes, n_models).
    """
    model_logits = logits(preds, link).swapaxes(1, 2)
    if link == "logistic":
        return model_logits * (1 - 2 * labels)[:, None, None]
    is_true = labels[:, None] == np.arange(model_logits.shape[1])
    true_logits = model_logits[is_true][:, None]
    return (model_logits - true_logits)[~is_true].reshape(len(labels), -1, preds.shape[1])


def log_loss_weights(z: Array, prior: Array, penalties: Sequence[float]) -> Array:
    """Return weights w >= 0 with the smallest penalized log loss, a row per penalty: (n_penalties, n_models).

    The log loss of a row is log(1 + sum over the other classes of exp(z w)). To its mean over rows are added
    penalty * |w - prior|^2 and `SUM_PENALTY` / n_rows * (sum w - 1)^2.

    Args:
        z: margins, (n_rows, n_other_classes, n_models).
        prior: weights (n_models,) that sum to 1. Duplicate columns have equal prior weights and therefore get
            equal weights.
    """
    from scipy.optimize import minimize

    n_rows, n_other, n_models = z.shape
    flat = z.reshape(-1, n_models)
    sum_penalty = SUM_PENALTY / n_rows

    def loss(w: Array, penalty: float) -> tuple[float, Array]:
        odds = np.exp(np.minimum(flat @ w, MAX_LOGIT)).reshape(n_rows, n_other)
        total = 1 + odds.sum(axis=1)
        distance = w - prior
        value = np.log(total).mean() + penalty * distance @ distance + sum_penalty * distance.sum() ** 2
        gradient = (odds / total[:, None]).ravel() @ flat / n_rows
        return value, gradient + 2 * penalty * distance + 2 * sum_penalty * distance.sum()

    weights = prior
    solutions = []
    for penalty in sorted(penalties, reverse=True):  # each starts at the solution of a larger penalty
        bounds = [(0, None)] * n_models
        options = {"ftol": 1e-12, "gtol": 1e-8}
        result = minimize(loss, weights, (penalty,), "L-BFGS-B", jac=True, bounds=bounds, options=options)
        weights = result.x
        solutions.append(weights)
    return np.array(solutions[::-1])
