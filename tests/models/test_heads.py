"""Heads and pooling against numbers computed by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from models.settings import MultiSampleHead, NeuralStage
from models.training.heads import Head, Network, Pooling, build_head


def square(y_pred: Tensor) -> Tensor:
    return y_pred.square().mean()


class Mask(nn.Module):
    """Dropout with one mask."""

    def __init__(self, mask: list[float]) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, features: Tensor) -> Tensor:
        return features * torch.tensor(self.mask)


class Counting(nn.Module):
    """Backbone that gives its input back and counts its calls."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x


def head_with_masks(*masks: list[float]) -> Head:
    head = Head(2, 1, [0.5] * len(masks))
    head.dropouts = nn.ModuleList(Mask(mask) for mask in masks)
    nn.init.ones_(head.linear.weight)
    nn.init.zeros_(head.linear.bias)
    return head


def head_of(width: int = 64, n_outputs: int = 2, **settings: Any) -> Head:
    torch.manual_seed(0)
    return build_head(NeuralStage.model_validate(settings), width, n_outputs)


MULTI_SAMPLE = {"kind": "multi_sample"}


def test_multi_sample_averages_the_losses_and_not_the_outputs() -> None:
    head = head_with_masks([1, 0], [0, 1], [1, 1])
    loss = head.loss(torch.tensor([[1.0, 2.0]]), square)
    # Outputs 1, 2 and 3: the mean of their squares is 14/3; the square of their mean would be 4.
    assert loss.item() == pytest.approx(14 / 3)
    loss.backward()
    # d/dw of (w1)^2, (2 w2)^2 and (w1 + 2 w2)^2, divided by 3.
    assert head.linear.weight.grad is not None
    assert head.linear.weight.grad[0].tolist() == pytest.approx([(2 + 6) / 3, (8 + 12) / 3])


@pytest.mark.parametrize("settings", [{"pooler_dropout": 0.5}, {"head": MULTI_SAMPLE}])
def test_a_head_drops_in_training_and_predicts_by_one_plain_pass_of_the_backbone(settings: Any) -> None:
    network = Network(Counting(), head_of(**settings))
    batch = {"x": torch.randn(3, 64)}
    network.head.loss(network.features(batch), square)
    assert network.backbone.calls == 1
    assert not torch.equal(network(batch), network(batch))
    network.eval()
    assert torch.equal(network(batch), network.head.linear(batch["x"]))


def test_each_sample_has_its_own_rate_where_a_list_names_them() -> None:
    for head, rates in (({"dropout": [0.1, 0.3]}, [0.1, 0.3]), ({"dropout": 0.3}, [0.3, 0.3])):
        assert [dropout.p for dropout in head_of(head={**MULTI_SAMPLE, "samples": 2, **head}).dropouts] == rates
    assert [dropout.p for dropout in head_of(pooler_dropout=0.25).dropouts] == [0.25]


@pytest.mark.parametrize("dropout", [0, [0.1, 0.2], [0.1, 0.2, 0.0], 1])
def test_rates_that_do_not_fit_the_samples_are_a_mistake(dropout: object) -> None:
    with pytest.raises(ValidationError):
        MultiSampleHead(kind="multi_sample", samples=3, dropout=dropout)


def test_what_a_feature_does_may_depend_on_the_columns_beside_it() -> None:
    network = Network(Counting(), head_of(4, 1), join=(2, 4))
    x, y = torch.tensor([[0.0], [0.0], [1.0], [1.0]]), torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    neither, second, first, both = network({"x": x, "columns": y}).flatten().tolist()
    assert abs((both - second) - (first - neither)) > 1e-3  # a sum of two effects would be 0


TOKENS = torch.tensor([[[1.0, 10.0], [3.0, 30.0], [100.0, 100.0]]])
MASK = torch.tensor([[1, 1, 0]])


def test_pooling_leaves_padding_out() -> None:
    assert Pooling("mean", 2)(TOKENS, MASK).tolist() == [[2.0, 20.0]]
    assert Pooling("cls", 2)(TOKENS, MASK).tolist() == [[1.0, 10.0]]
    attention: Any = Pooling("attention", 2)
    nn.init.zeros_(attention.score.weight)
    assert attention(TOKENS, MASK).tolist() == [[2.0, 20.0]]
    with torch.no_grad():
        attention.score.weight[0, 0] = 0.5 * torch.log(torch.tensor(3.0))  # scores differ by log 3: weights 1/4, 3/4
    assert attention(TOKENS, MASK)[0].tolist() == pytest.approx([2.5, 25.0])
