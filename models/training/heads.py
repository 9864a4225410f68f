"""Heads map pooled features (n_rows, width) to outputs (n_rows, n_outputs), and compute their loss."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, Self

import torch
from torch import Tensor, nn

from models.neural_config import MultiSampleHead, NeuralConfig


class Head(nn.Module):
    """Dropout and one linear layer; with several rates, multi-sample dropout.

    In multi-sample dropout several masks share the linear layer, and the backbone runs once. Their losses are
    averaged and not their outputs: with averaged outputs, the implicit penalty on the weights would shrink by
    the number of masks. Dropout right before the last layer leaves the mean prediction unbiased.

    Source: Inoue, Multi-Sample Dropout for Accelerated Training and Better Generalization, arXiv 1905.09788.
    """

    def __init__(self, width: int, n_outputs: int, rates: list[float]) -> None:
        super().__init__()
        self.dropouts = nn.ModuleList(nn.Dropout(rate) for rate in rates)
        self.linear = nn.Linear(width, n_outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Return outputs (n_rows, n_outputs), with the first mask in training mode (R-Drop)."""
        return self._outputs(self.dropouts[0], features)

    def loss(self, features: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the loss of features (n_rows, width), the mean over all masks.

        Args:
            loss: maps outputs (n_rows, n_outputs) to a number.
        """
        return torch.stack([loss(self._outputs(dropout, features)) for dropout in self.dropouts]).mean()

    def _outputs(self, dropout: nn.Module, features: Tensor) -> Tensor:
        """Compute outputs in float32, also under autocast: bf16 has two to three digits."""
        with torch.autocast(features.device.type, enabled=False):
            return self.linear(dropout(features.float()))


def build_head(settings: NeuralConfig, width: int, n_outputs: int) -> Head:
    """Return the head of a stage."""
    head = settings.head
    return Head(
        width, n_outputs, head.rates if isinstance(head, MultiSampleHead) else [settings.pooler_dropout]
    )


class Network(nn.Module):
    """A backbone that maps a batch to pooled features (n_rows, width), a hidden layer, and a head.

    The features of several molecules, and the tensor `columns` (n_rows, n_columns) of a batch, go through one
    hidden layer, so that they can interact. With one molecule and no columns there is no such layer.

    Args:
        join: number of inputs and outputs of the hidden layer; None for no such layer.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, join: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.join = nn.Sequential(nn.Linear(*join), nn.GELU()) if join else nn.Identity()
        self.head: Any = head

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a copy that shares the frozen parameters, so that an average of adapters has no second base model."""
        for parameter in self.parameters():
            if not parameter.requires_grad:
                memo[id(parameter)] = parameter
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(deepcopy(self.__dict__, memo))
        return copied

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the outputs of a batch, (n_rows, n_outputs)."""
        return self.head(self.features(batch))

    def features(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the features that the head reads, (n_rows, width)."""
        pooled = self.backbone(**{name: tensor for name, tensor in batch.items() if name != "columns"})
        return self.join(torch.cat([pooled, batch["columns"]], dim=1) if "columns" in batch else pooled)
