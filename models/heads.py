"""Heads: from pooled features (n_rows, width) to targets (n_rows, n_targets), and the loss they are trained with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from models import config

Loss = Callable[[Tensor], Tensor]


class LinearHead(nn.Module):
    """Dropout, then one linear layer. Dropout right before the last layer leaves the mean prediction unbiased."""

    def __init__(self, width: int, n_targets: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, n_targets)

    def forward(self, features: Tensor) -> Tensor:
        """Predictions (n_rows, n_targets)."""
        return self.linear(self.dropout(features))

    def loss(self, features: Tensor, loss: Loss) -> Tensor:
        """Training loss of features (n_rows, width); `loss` maps predictions to a number."""
        return loss(self.forward(features))


class MultiSampleHead(nn.Module):
    """Multi-sample dropout: several masks, one shared layer, the mean of their losses; no mask at inference.

    Source: Inoue, Multi-Sample Dropout for Accelerated Training and Better Generalization, arXiv 1905.09788.
    The losses are averaged, not the outputs: with outputs averaged the penalty on the weights shrinks by
    the number of samples. The backbone runs once.
    """

    def __init__(self, width: int, n_targets: int, samples: int, dropout: float) -> None:
        super().__init__()
        self.samples = samples
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, n_targets)

    def forward(self, features: Tensor) -> Tensor:
        """Predictions (n_rows, n_targets) of one plain pass."""
        return self.linear(features)

    def loss(self, features: Tensor, loss: Loss) -> Tensor:
        """Mean over the masks of the loss of features (n_rows, width)."""
        losses = [loss(self.linear(self.dropout(features))) for _ in range(self.samples)]
        return torch.stack(losses).mean()


def build_head(settings: config.LinearHead | config.MultiSampleHead, width: int, n_targets: int) -> nn.Module:
    """The head of a settings block."""
    if isinstance(settings, config.MultiSampleHead):
        return MultiSampleHead(width, n_targets, settings.samples, settings.dropout)
    return LinearHead(width, n_targets, settings.dropout)


class Network(nn.Module):
    """A backbone that maps a batch to pooled features (n_rows, width), and a head."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head: Any = head

    def forward(self, batch: dict[str, Tensor], loss: Loss | None = None) -> Any:
        """Predictions (n_rows, n_targets); with `loss`, the head's training loss instead."""
        features = self.backbone(**batch)
        return self.head(features) if loss is None else self.head.loss(features, loss)


class AttentionPooling(nn.Module):
    """Mean of token vectors weighted by a learned score per token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(n_rows, n_tokens, width) and a mask (n_rows, n_tokens) of real tokens to (n_rows, width)."""
        score = self.score(tokens).squeeze(-1).masked_fill(mask == 0, float("-inf"))
        return (score.softmax(-1).unsqueeze(-1) * tokens).sum(1)


def pool(kind: str, tokens: Tensor, mask: Tensor, attention: AttentionPooling | None) -> Tensor:
    """Token vectors (n_rows, n_tokens, width) to one vector (n_rows, width): their mean, the first, or by attention."""
    if kind == "cls":
        return tokens[:, 0]
    if kind == "attention":
        assert attention is not None
        return attention(tokens, mask)
    weights = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * weights).sum(1) / weights.sum(1)
