"""Heads: from pooled features (n_rows, width) to outputs (n_rows, n_outputs), and the loss they are trained
with.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from models.neural_config import MultiSampleHead, NeuralConfig


class Head(nn.Module):
    """Dropout and one linear layer; with several rates, multi-sample dropout: several masks share the layer.

    Dropout right before the last layer leaves the mean prediction unbiased.
    Source: Inoue, Multi-Sample Dropout for Accelerated Training and Better Generalization, arXiv 1905.09788.
    The losses are averaged, not the outputs: with outputs averaged the penalty on the weights shrinks by
    the number of samples. The backbone runs once.
    """

    def __init__(self, width: int, n_outputs: int, rates: list[float]) -> None:
        super().__init__()
        self.dropouts = nn.ModuleList(nn.Dropout(rate) for rate in rates)
        self.linear = nn.Linear(width, n_outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Outputs (n_rows, n_outputs) of one pass: plain at inference, the first mask for a pass of
        `mc_dropout`.
        """
        return self._outputs(self.dropouts[0], features)

    def loss(self, features: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """Mean over the masks of the loss of features (n_rows, width); `loss` maps outputs to a number."""
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
    """A backbone that maps a batch to pooled features (n_rows, width), what joins them, and a head.

    The features of several molecules, and the batch's tensor `columns` (n_rows, n_columns) where there is
    one, go
    through one hidden layer together: a linear head alone would add up what each says by itself.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, join: tuple[int, int] | None = None) -> None:
        """`join`: how many features come together, and the width of their hidden layer; None for no such
        layer.
        """
        super().__init__()
        self.backbone = backbone
        self.join = nn.Sequential(nn.Linear(*join), nn.GELU()) if join else nn.Identity()
        self.head: Any = head

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the outputs of a batch, (n_rows, n_outputs)."""
        return self.head(self.features(batch))

    def features(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the features that the head reads, (n_rows, width)."""
        pooled = self.backbone(**{name: tensor for name, tensor in batch.items() if name != "columns"})
        return self.join(torch.cat([pooled, batch["columns"]], dim=1) if "columns" in batch else pooled)
