"""What a network is trained on: labels with their weights, the losses, and R-Drop's penalty.

A loss is an entry of `LOSSES` and its name in `LossName` of `models/settings.py`; one of the user's is a function
`errors(outputs, y)` that the YAML names as `loss: mine.py:errors`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import huber_loss, l1_loss, mse_loss

from competition.errors import ConfigError
from competition.user_code import load_user_code, users
from models.training.labels import Floats, target_scale

Errors = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Labels:
    """Standardised labels of rows and the weight of each, (n_rows, n_targets), 0 where there is none."""

    y: Tensor
    weights: Tensor

    def take(self, positions: NDArray[np.intp], device: torch.device | str) -> Labels:
        """Some rows, on the device."""
        return Labels(self.y[positions].to(device), self.weights[positions].to(device))


def target_weights(loss: str, y: Floats) -> Floats:
    """Weight of each target in the loss of its standardised values, (n_targets,) with mean 1.

    weighted_mae: 1 / (range * sqrt(labels)) in the target's own units, so that the loss is proportional to the
    metric of NeurIPS Open Polymer Prediction 2025; all others 1.
    """
    if loss != "weighted_mae":
        return np.ones(y.shape[1])
    width = np.nanmax(y, axis=0) - np.nanmin(y, axis=0)
    weights = target_scale(y)[1] / np.where(width > 0, width, 1.0) / np.sqrt((~np.isnan(y)).sum(axis=0))
    return np.asarray(weights / weights.mean())


def split_gaussian(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Means and log variances (n_rows, n_targets) each, the latter within +-7: no outlier makes them infinite."""
    y_pred, raw = outputs.chunk(2, dim=1)
    return y_pred, 7 * torch.tanh(raw / 7)


def gaussian(outputs: Tensor, y: Tensor) -> Tensor:
    """Negative log likelihood of a normal distribution, without its constant. Source: Nix and Weigend, 1994."""
    y_pred, log_variance = split_gaussian(outputs)
    return 0.5 * (log_variance + (y_pred - y).square() * (-log_variance).exp())


def gaussian_penalty(one: Tensor, other: Tensor) -> Tensor:
    """Mean of KL(p, q) and KL(q, p) of two normal distributions, in which the logarithms of their deviations cancel."""
    (m1, v1), (m2, v2) = split_gaussian(one), split_gaussian(other)
    gap = (m1 - m2).square()
    return 0.25 * ((gap + v1.exp()) * (-v2).exp() + (gap + v2.exp()) * (-v1).exp() - 2)


squared, absolute = partial(mse_loss, reduction="none"), partial(l1_loss, reduction="none")


@dataclass(frozen=True)
class Loss:
    """A loss of the setting `loss`.

    errors: outputs and standardised labels y to the error of each label, (n_rows, n_targets).
    penalty: of R-Drop, outputs of two passes to how far they are apart for each label, (n_rows, n_targets).
    outputs_per_target: columns of the outputs, which come as (n_rows, outputs_per_target * n_targets).
    """

    errors: Errors
    penalty: Errors = squared
    outputs_per_target: int = 1

    def mean_error(self, outputs: Tensor, labels: Labels) -> Tensor:
        """Weighted sum of the errors over the number of labels there are; 0 with a gradient of 0 for no label."""
        errors = self.errors(outputs.float(), labels.y)
        if errors.shape != labels.y.shape:
            raise ConfigError(
                f"loss: your function must return the error of each label, {tuple(labels.y.shape)}, and not their sum "
                f"or mean; it returns {tuple(errors.shape)}."
            )
        return (labels.weights * errors).sum() / (labels.weights > 0).sum().clamp(min=1)

    def mean_penalty(self, one: Tensor, other: Tensor, labels: Labels) -> Tensor:
        """How far two passes with other dropout masks are apart, as the mean over the labels there are.

        Source: Liang et al., R-Drop, NeurIPS 2021. On a regression's single output their softmax KL would be 0.
        """
        known = labels.weights > 0
        return (self.penalty(one.float(), other.float()) * known).sum() / known.sum().clamp(min=1)


LOSSES = {
    "mse": Loss(squared),
    "mae": Loss(absolute),
    "weighted_mae": Loss(absolute),  # the weights are in the labels: see `target_weights`
    "huber": Loss(partial(huber_loss, reduction="none")),
    "gaussian": Loss(gaussian, gaussian_penalty, outputs_per_target=2),
}


def load_loss(name: str) -> Loss:
    """The loss of a name in `LOSSES`, or the user's function that `file.py:name` names."""
    if name in LOSSES:
        return LOSSES[name]
    function = load_user_code("loss", name, "errors(outputs, y)")

    def errors(outputs: Tensor, y: Tensor) -> Tensor:
        with users(name, "return the error of each label"):
            return function(outputs, y)

    return Loss(errors)
