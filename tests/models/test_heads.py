"""Heads and pooling against numbers computed by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.networks.encoders import pooled
from models.training.network import Head
from models.training.settings import NeuralStage


class Mask(nn.Module):
    """A dropout layer with one constant mask."""

    def __init__(self, mask: list[float]) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, features: Tensor) -> Tensor:
        return features * torch.tensor(self.mask)


def test_multi_sample_averages_the_losses_and_not_the_outputs() -> None:
    head = Head(2, 1, [0.5] * 3)
    head.dropouts = nn.ModuleList(Mask(mask) for mask in ([1, 0], [0, 1], [1, 1]))
    nn.init.ones_(head.linear.weight)
    nn.init.zeros_(head.linear.bias)
    loss = head.loss(torch.tensor([[1.0, 2.0]]), lambda y_pred: y_pred.square().mean())
    # Outputs 1, 2 and 3: the mean of their squares is 14/3; the square of their mean would be 4.
    assert loss.item() == pytest.approx(14 / 3)
    loss.backward()
    # d/dw of (w1)^2, (2 w2)^2 and (w1 + 2 w2)^2, divided by 3.
    assert head.linear.weight.grad is not None
    assert head.linear.weight.grad[0].tolist() == pytest.approx([(2 + 6) / 3, (8 + 12) / 3])


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({"pooler_dropout": 0.25}, [0.25]),
        ({"head": {"kind": "multi_sample", "samples": 2, "dropout": 0.3}}, [0.3, 0.3]),
        ({"head": {"kind": "multi_sample", "samples": 2, "dropout": [0.1, 0.3]}}, [0.1, 0.3]),
    ],
)
def test_a_head_drops_by_its_rates_in_training_and_predicts_by_a_plain_pass(
    settings: Any, rates: list[float]
) -> None:
    head, x = (
        Head(64, 2, NeuralStage.model_validate({"kind": "test", **settings}).head_rates),
        torch.randn(3, 64),
    )
    assert [dropout.p for dropout in head.dropouts] == rates  # type: ignore[union-attr]
    assert not torch.equal(head(x), head(x))
    assert torch.equal(head.eval()(x), head.linear(x))


def test_pooling_leaves_padding_out() -> None:
    tokens, mask = torch.tensor([[[1.0, 10.0], [3.0, 30.0], [100.0, 100.0]]]), torch.tensor([[1, 1, 0]])
    assert pooled(tokens, mask, "mean").tolist() == [[2.0, 20.0]]
    assert pooled(tokens, mask, "cls").tolist() == [[1.0, 10.0]]


def test_a_head_computes_in_float32_also_under_autocast() -> None:
    head, features = Head(64, 2, [0.0]), torch.randn(3, 64, dtype=torch.bfloat16)
    expected = head(features.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head(features), expected)
        assert head.loss(features, torch.sum) == expected.sum()
