"""Heads and pooling against numbers computed by hand."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from models import settings as config
from models.training.heads import AttentionPooling, LinearHead, MultiSampleHead, Network, build_head, pool


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

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x


def head_with_masks(masks: list[list[float]]) -> MultiSampleHead:
    head = MultiSampleHead(2, 1, [0.5] * len(masks))
    head.dropouts = nn.ModuleList(Mask(mask) for mask in masks)
    nn.init.ones_(head.linear.weight)
    nn.init.zeros_(head.linear.bias)
    return head


def test_multi_sample_averages_the_losses_and_not_the_outputs() -> None:
    head = head_with_masks([[1, 0], [0, 1], [1, 1]])
    # Outputs 1, 2 and 3: the mean of their squares is 14/3; the square of their mean would be 4.
    assert head.loss(torch.tensor([[1.0, 2.0]]), square).item() == pytest.approx(14 / 3)


def test_multi_sample_has_the_gradient_of_the_mean_of_the_losses() -> None:
    head = head_with_masks([[1, 0], [0, 1]])
    head.loss(torch.tensor([[1.0, 2.0]]), square).backward()
    # d/dw of (w1)^2 and (2 w2)^2, halved.
    assert head.linear.weight.grad is not None
    assert head.linear.weight.grad.tolist() == [[1.0, 4.0]]


def test_multi_sample_expects_the_same_loss_as_the_linear_head_with_less_noise() -> None:
    torch.manual_seed(0)
    features = torch.randn(16, 32)
    linear, multi = LinearHead(32, 1, 0.2), MultiSampleHead(32, 1, [0.2] * 5)
    multi.load_state_dict(linear.state_dict())
    ones = torch.stack([linear.loss(features, square) for _ in range(4000)]).detach()
    fives = torch.stack([multi.loss(features, square) for _ in range(4000)]).detach()
    standard_error = (ones.var() / 4000 + fives.var() / 4000).sqrt().item()
    assert abs(float(ones.mean() - fives.mean())) < 4 * standard_error
    assert float(fives.var()) == pytest.approx(float(ones.var()) / 5, rel=0.2)


@pytest.mark.parametrize("settings", [config.LinearHead(), config.MultiSampleHead(kind="multi_sample", samples=7)])
def test_the_backbone_runs_once_whatever_the_head(settings: config.LinearHead | config.MultiSampleHead) -> None:
    network = Network(Counting(), build_head(settings, 2, 3))
    network.head.loss(network.features({"x": torch.randn(4, 2)}), square)
    assert network.backbone.calls == 1


def test_multi_sample_predicts_by_one_plain_pass() -> None:
    torch.manual_seed(0)
    head, features = build_head(config.MultiSampleHead(kind="multi_sample"), 64, 2), torch.randn(3, 64)
    head.eval()
    assert torch.equal(head(features), head.linear(features))


def test_each_sample_has_its_own_rate_where_a_list_names_them() -> None:
    settings = config.MultiSampleHead(kind="multi_sample", samples=3, dropout=[0.1, 0.2, 0.3])
    assert [dropout.p for dropout in build_head(settings, 4, 1).dropouts] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("dropout", [0, [0.1, 0.2], [0.1, 0.2, 0.0], 1])
def test_rates_that_do_not_fit_the_samples_are_a_mistake(dropout: object) -> None:
    with pytest.raises(ValidationError):
        config.MultiSampleHead(kind="multi_sample", samples=3, dropout=dropout)


def test_columns_join_the_pooled_features_in_one_hidden_layer() -> None:
    network = Network(Counting(), build_head(config.LinearHead(), 2, 1), join=(5, 2))
    batch = {"x": torch.randn(4, 2), "columns": torch.randn(4, 3)}
    assert network(batch).shape == (4, 1)
    moved = {**batch, "columns": batch["columns"] + 1}
    assert not torch.equal(network(moved), network(batch))


def test_the_linear_head_drops_in_training_and_not_at_inference() -> None:
    torch.manual_seed(0)
    head, features = LinearHead(64, 2, 0.5), torch.randn(3, 64)
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head.linear(features))


def test_both_heads_keep_the_same_weights_so_that_one_can_replace_the_other() -> None:
    linear = build_head(config.LinearHead(), 4, 2).state_dict()
    multi = build_head(config.MultiSampleHead(kind="multi_sample"), 4, 2).state_dict()
    assert {k: v.shape for k, v in linear.items()} == {k: v.shape for k, v in multi.items()}


TOKENS = torch.tensor([[[1.0, 10.0], [3.0, 30.0], [100.0, 100.0]]])
MASK = torch.tensor([[1, 1, 0]])


def test_mean_pooling_leaves_padding_out() -> None:
    assert pool("mean", TOKENS, MASK, None).tolist() == [[2.0, 20.0]]


def test_cls_pooling_takes_the_first_token() -> None:
    assert pool("cls", TOKENS, MASK, None).tolist() == [[1.0, 10.0]]


def test_attention_pooling_weighs_real_tokens_by_the_softmax_of_their_scores() -> None:
    attention = AttentionPooling(2)
    nn.init.zeros_(attention.score.weight)
    assert pool("attention", TOKENS, MASK, attention).tolist() == [[2.0, 20.0]]
    with torch.no_grad():
        attention.score.weight[0, 0] = 0.5 * torch.log(torch.tensor(3.0))  # scores differ by log 3: weights 1/4, 3/4
    assert pool("attention", TOKENS, MASK, attention)[0].tolist() == pytest.approx([2.5, 25.0])
