"""What a network is trained on: labels with their weights, the losses, and R-Drop's penalty.

A loss is an entry of `LOSSES` and its name in `LossName` of `models/neural_config.py`; one of the user's is a
function `errors(outputs, y)` that the YAML names as `loss: mine.py:errors`. Outputs are standardised numbers,
or logits of classes; probabilities are made of these by the loss's `link` alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, huber_loss, l1_loss, mse_loss
from torch.nn.functional import cross_entropy as torch_cross_entropy

from competition.errors import ConfigError
from competition.types import ProblemType
from competition.user_code import load_user_code, user_code_errors
from models.neural_config import CLASS_LOSSES

Errors = Callable[..., Tensor]


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to the device; to a GPU from pinned memory, so that nothing waits for the copy."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


@dataclass(frozen=True)
class LabelBatch:
    """Labels of rows, standardised numbers or those of classes, and the weight of each, (n_rows, n_targets),
    0 where there is none.
    """

    y: Tensor
    weights: Tensor

    def take(self, positions: NDArray[np.intp], device: torch.device) -> "LabelBatch":
        """Some rows, on the device."""
        return LabelBatch(to_device(self.y[positions], device), to_device(self.weights[positions], device))


squared = partial(mse_loss, reduction="none")


def bce(outputs: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each label, 0 or 1, which smoothing moves towards .5 by half of it."""
    return binary_cross_entropy_with_logits(outputs, y * (1 - smoothing) + smoothing / 2, reduction="none")


def cross_entropy(outputs: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the class of each row, (n_rows, 1), of which smoothing spreads a share over all
    classes.
    """
    return torch_cross_entropy(outputs, y[:, 0].long(), reduction="none", label_smoothing=smoothing)[:, None]


def sigmoid(logits: Tensor, classes: list[list[int]] | None = None) -> Tensor:
    """Probability of class 1 for each target; 0 or 1 where `classes`, which there are of each, is one alone."""
    if classes is None:
        return logits.sigmoid()
    lowest, highest = torch.tensor([[min(known), max(known)] for known in classes], dtype=logits.dtype).T
    return logits.sigmoid().clamp(lowest, highest)


def softmax(logits: Tensor, classes: list[list[int]] | None = None) -> Tensor:
    """Probability of each class of a single target; 0 for one that is not in `classes`."""
    if classes is not None:
        absent = torch.ones(logits.shape[-1], dtype=torch.bool)
        absent[classes[0]] = False
        logits = logits.masked_fill(absent, float("-inf"))
    return logits.softmax(dim=-1)


@dataclass(frozen=True)
class Loss:
    """A loss of the setting `loss`.

    errors: outputs and labels y to the error of each label, (n_rows, n_targets).
    link: logits of classes to probabilities, of the same shape; None: outputs are standardised numbers.
    """

    errors: Errors
    link: Callable[..., Tensor] | None = None

    def mean_error(self, outputs: Tensor, labels: LabelBatch) -> Tensor:
        """Weighted sum of the errors over the number of labels there are; 0 with a gradient of 0 for no
        label.
        """
        errors = self.errors(outputs.float(), labels.y)
        if errors.shape != labels.y.shape:
            raise ConfigError(
                f"loss: your function must return the error of each label, {tuple(labels.y.shape)}, and "
                f"not their sum "
                f"or mean; it returns {tuple(errors.shape)}."
            )
        return (labels.weights * errors).sum() / (labels.weights > 0).sum().clamp(min=1)

    def mean_penalty(self, one: Tensor, other: Tensor, labels: LabelBatch) -> Tensor:
        """How far two passes with other dropout masks are apart, as the mean over the labels there are: of
        numbers the square; of classes half of KL(p, q) + KL(q, p), times the number of targets.

        Source: Liang et al., R-Drop, NeurIPS 2021. On a regression's single output their softmax KL would be
        0.
        """
        one, other, known = one.float(), other.float(), labels.weights > 0
        if self.link is None:
            apart = squared(one, other)
        else:  # in the sum of both KLs what makes logits a distribution cancels out
            apart = (self.link(one) - self.link(other)) * (one - other) / 2 * known.shape[1]
        return (apart * known).sum() / known.sum().clamp(min=1)


LOSSES = {
    "mse": Loss(squared),
    "mae": Loss(partial(l1_loss, reduction="none")),
    "huber": Loss(partial(huber_loss, reduction="none")),
    "bce": Loss(bce, link=sigmoid),
    "cross_entropy": Loss(cross_entropy, link=softmax),
}


def loss_of(name: str | None, problem_type: ProblemType) -> Loss:
    """The loss of a name in `LOSSES`, the problem type's own for None; a user's function has all of that but
    errors.
    """
    own = CLASS_LOSSES.get(problem_type, "mse")
    return LOSSES.get(name or own, LOSSES[own])


def load_loss(
    name: str | None, problem_type: ProblemType = "regression", label_smoothing: float = 0.0
) -> Loss:
    """The loss to train with: as `loss_of`, or with the errors of the user's function that `file.py:name`
    names.
    """
    loss = loss_of(name, problem_type)
    if name is None or name in LOSSES:
        return (
            replace(loss, errors=partial(loss.errors, smoothing=label_smoothing)) if label_smoothing else loss
        )
    function = load_user_code("loss", name, "errors(outputs, y)")

    def errors(outputs: Tensor, y: Tensor) -> Tensor:
        with user_code_errors(name, "return the error of each label"):
            return function(outputs, y)

    return replace(loss, errors=errors)
