"""What a network is trained on: labels with their weights, the loss of its outputs, and R-Drop's penalty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import huber_loss, l1_loss, mse_loss

from models.training.labels import target_scale


@dataclass(frozen=True)
class Labels:
    """Standardised labels of the training rows and the weight of each.

    y: (n_rows, n_outputs) in units of each target's spread around its mean, 0 where there is no label.
    weights: (n_rows, n_outputs), 0 where there is no label.
    """

    y: Tensor
    weights: Tensor

    def take(self, positions: NDArray[np.intp], device: torch.device) -> Labels:
        """Some rows, on the device."""
        return Labels(self.y[positions].to(device), self.weights[positions].to(device))


def as_labels(
    y: NDArray[np.float64],
    row_weights: NDArray[np.float64] | None,
    target_weights: NDArray[np.float64],
    mean: NDArray[np.float64],
    scale: NDArray[np.float64],
) -> Labels:
    """Labels (n_rows, n_outputs), NaN where missing, in units of `scale` around `mean`.

    Args:
        row_weights: (n_rows,); None where all are 1.
        target_weights, mean, scale: (n_outputs,).
    """
    weights = (~np.isnan(y)) * (1.0 if row_weights is None else row_weights[:, None]) * target_weights
    scaled = np.nan_to_num((y - mean) / scale)
    return Labels(torch.tensor(scaled, dtype=torch.float32), torch.tensor(weights, dtype=torch.float32))


def target_weights(kind: str, y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weight of each target in the loss of its standardised values, (n_targets,) with mean 1.

    weighted_mae: 1 / (range * sqrt(labels)) in the target's own units, so that the loss is proportional to the
    metric of NeurIPS Open Polymer Prediction 2025; all others 1.
    """
    if kind != "weighted_mae":
        return np.ones(y.shape[1])
    spread = np.nanmax(y, axis=0) - np.nanmin(y, axis=0)
    weights = target_scale(y)[1] / np.where(spread > 0, spread, 1.0) / np.sqrt((~np.isnan(y)).sum(axis=0))
    return np.asarray(weights / weights.mean())


def training_loss(kind: str, outputs: Tensor, labels: Labels) -> Tensor:
    """Weighted sum of the errors over the number of labels there are; 0 with a gradient of 0 where there is none.

    Args:
        kind: a value of the setting `loss`, a name in `LOSSES`.
        outputs: (n_rows, n_outputs), or twice as many columns for gaussian: means, then log variances.
    """
    errors = LOSSES[kind](outputs.float(), labels.y)
    return (labels.weights * errors).sum() / (labels.weights > 0).sum().clamp(min=1)


def split_gaussian(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Means and log variances (n_rows, n_targets) each; the latter softly bounded to +-7."""
    y_pred, raw = outputs.chunk(2, dim=1)
    return y_pred, 7 * torch.tanh(raw / 7)


def gaussian(outputs: Tensor, y: Tensor) -> Tensor:
    """Negative log likelihood of a normal distribution, without its constant. Source: Nix and Weigend, 1994.

    The log variance is bounded: one outlier must not make it infinite.
    """
    y_pred, log_variance = split_gaussian(outputs)
    return 0.5 * (log_variance + (y_pred - y).square() * (-log_variance).exp())


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": partial(mse_loss, reduction="none"),
    "mae": partial(l1_loss, reduction="none"),
    "weighted_mae": partial(l1_loss, reduction="none"),  # the weights are in the labels: see `target_weights`
    "huber": partial(huber_loss, reduction="none"),
    "gaussian": gaussian,
}
"""Value of the setting `loss` -> the error of each label (n_rows, n_targets), from outputs and standardised labels."""


def r_drop_penalty(kind: str, one: Tensor, other: Tensor, labels: Labels) -> Tensor:
    """How far two passes with other dropout masks are apart, mean over the labels there are.

    The squared difference, or for gaussian the symmetric KL divergence.
    Source: Liang et al., R-Drop, NeurIPS 2021. On a regression's single output their softmax KL would be 0.
    """
    one, other = one.float(), other.float()
    if kind == "gaussian":
        (m1, v1), (m2, v2) = split_gaussian(one), split_gaussian(other)
        # KL(p, q) = ((m1 - m2)^2 + s1^2) / (2 s2^2) - 1/2 + (log s2^2 - log s1^2) / 2; the logs cancel in the mean
        gap = (m1 - m2).square()
        apart = 0.25 * ((gap + v1.exp()) * (-v2).exp() + (gap + v2.exp()) * (-v1).exp() - 2)
    else:
        apart = (one - other).square()
    known = labels.weights > 0
    return (apart * known).sum() / known.sum().clamp(min=1)
