"""Losses of networks, batches of labels with weights, and the penalty of R-Drop.

To add a loss, add an entry of `LOSSES` and its name to `LossName` of `models/training/settings.py`. A
user-defined loss is a function `errors(outputs, y)`, in the YAML `loss: mine.py:errors`. Outputs are
standardised numbers, or logits of classes, which the `link` of the loss maps to probabilities.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, huber_loss, l1_loss, mse_loss
from torch.nn.functional import cross_entropy as torch_cross_entropy

from competition.task import Task
from core.errors import ConfigError
from core.types import ProblemType
from core.user_code import load_user_code, user_code_errors
from models.training.batches import LabelBatch
from models.training.settings import CLASS_LOSSES

squared = partial(mse_loss, reduction="none")


bce = partial(binary_cross_entropy_with_logits, reduction="none")


def cross_entropy(outputs: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy per row, (n_rows, 1)."""
    return torch_cross_entropy(outputs, y[:, 0].long(), reduction="none")[:, None]


def exclude_absent_classes(logits: Tensor, classes: list[list[int]]) -> Tensor:
    """Return logits that give a class without training rows the probability 0, and a single class 1.

    Args:
        logits: (..., n_outputs), a column per target, or per class of a single target.
        classes: for each target, the classes with training rows.
    """
    logits = logits.clone()
    if len(classes) < logits.shape[-1]:
        absent = set(range(logits.shape[-1])).difference(classes[0])
        logits[..., sorted(absent)] = -torch.inf
        return logits
    for target, present in enumerate(classes):
        if len(present) == 1:
            logits[..., target] = torch.inf if present == [1] else -torch.inf
    return logits


def clip_to_bounds(outputs: Tensor, y: Tensor, sides: Tensor) -> Tensor:
    """Return outputs, clipped to the bounds of censored labels.

    An output beyond a bound, where the value may be, has no error. Source: chemprop's BoundedMSE and
    BoundedMAE.
    """
    return torch.where(sides * (outputs - y) > 0, y, outputs)


@dataclass(frozen=True)
class Loss:
    """A value of the setting `loss`.

    Attributes:
        errors: maps outputs and labels y to the error per label, (n_rows, n_targets).
        link: maps logits to probabilities of the same shape; None if outputs are standardised numbers.
    """

    errors: Callable[..., Tensor]
    link: Callable[[Tensor], Tensor] | None = None

    @property
    def is_classification(self) -> bool:
        """Whether outputs are logits of classes."""
        return self.link is not None

    def mean_error(self, outputs: Tensor, labels: LabelBatch) -> Tensor:
        """Return the weighted sum of the errors divided by the number of labels; 0 without labels."""
        outputs = clip_to_bounds(outputs.float(), labels.y, labels.sides)
        errors = self.errors(outputs, labels.y)
        if errors.shape != labels.y.shape:
            raise ConfigError(
                f"loss: your function must return the error per label, {tuple(labels.y.shape)}, "
                f"not their sum or mean; got {tuple(errors.shape)}."
            )
        return (labels.weights * errors).sum() / (labels.weights > 0).sum().clamp(min=1)

    def of_constant(self, labels: LabelBatch, n_outputs: int) -> Tensor:
        """Return the outputs of a constant prediction, (n_outputs,): 0, the mean of standardised numbers, or the
        logits of the shares of the classes.
        """
        if self.link is None:
            return torch.zeros(n_outputs)
        if n_outputs > labels.y.shape[1]:  # one target with an output for each class
            counts = torch.bincount(labels.y[:, 0].long(), labels.weights[:, 0], n_outputs)
            return torch.log((counts + 0.5) / (counts + 0.5).sum())
        positive = (labels.weights * labels.y).sum(dim=0)
        return torch.logit((positive + 0.5) / (labels.weights.sum(dim=0) + 1))

    def mean_penalty(self, one: Tensor, other: Tensor, labels: LabelBatch) -> Tensor:
        """Return the mean penalty of two passes with different dropout masks.

        For numbers it is the squared difference, since the KL divergence of R-Drop, over a softmax, would
        be 0 for a single output. For classes it is half of KL(p, q) + KL(q, p), summed over the targets
        of a row: hence the factor n_targets on the mean over labels. Source: Liang et al., R-Drop,
        NeurIPS 2021.
        """
        one = one.float()
        other = other.float()
        is_labelled = labels.weights > 0
        if self.link is None:
            penalty = squared(one, other)
        else:  # the normalization of the logits cancels in the sum of both KLs
            penalty = (self.link(one) - self.link(other)) * (one - other) / 2 * is_labelled.shape[1]
        return (penalty * is_labelled).sum() / is_labelled.sum().clamp(min=1)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "mse": squared,
    "mae": partial(l1_loss, reduction="none"),
    "huber": partial(huber_loss, reduction="none"),
    "bce": bce,
    "cross_entropy": cross_entropy,
}
"""Name -> error per label of outputs and labels, (n_rows, n_targets)."""
LINKS: dict[str, Callable[[Tensor], Tensor]] = {
    "binary": torch.sigmoid,
    "multilabel": torch.sigmoid,
    "multiclass": partial(torch.softmax, dim=-1),
}
"""Problem type -> map from logits to probabilities; the outputs of others are standardised numbers."""


def try_loss(name: str, task: Task, n_labels: int) -> None:
    """Call a user-defined loss with zeros; a ConfigError if it does not return the error of each label.

    Args:
        n_labels: number of targets and auxiliary targets.
    """
    y = torch.zeros(2, n_labels)
    outputs = torch.zeros(2, len(task.outputs) + n_labels - len(task.targets))
    labels = LabelBatch(y, torch.ones_like(y), torch.zeros_like(y))
    load_loss(name, task.problem_type).mean_error(outputs, labels)


def load_loss(name: str | None, problem_type: ProblemType = "regression") -> Loss:
    """Return a loss of `LOSSES`, or of a user-defined function `file.py:name`.

    Args:
        name: None for the default of the problem type.
        problem_type: what is learned.
    """
    name = name or CLASS_LOSSES.get(problem_type, "mse")
    link = LINKS.get(problem_type)
    if name in LOSSES:
        return Loss(LOSSES[name], link)
    function = load_user_code("loss", name, "errors(outputs, y)")

    def checked_errors(outputs: Tensor, y: Tensor) -> Tensor:
        with user_code_errors(name, "return the error of each label"):
            return function(outputs, y)

    return Loss(checked_errors, link)
