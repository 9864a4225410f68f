"""Heads, the dropout audit and molecule columns of a network, against numbers computed by hand."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.errors import ConfigError
from models.networks.encoders import pooled
from models.training.batches import Batches
from models.training.network import Head, PerColumn, audit, join_columns, rates, set_rates
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


BATCH = {"x": torch.ones(4, 64)}


class Block(nn.Module):
    """Three ways to drop: a module, a float that F.dropout reads, and a number inside `forward`."""

    def __init__(self, module: float = 0.0, attribute: float = 0.0, hidden: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.act = nn.Sequential(nn.Tanh(), nn.Dropout(module))
        self.last = nn.Linear(64, 64)
        self.attention_dropout = attribute
        self._hidden = hidden

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(self.first(x), self.attention_dropout, self.training)
        x = F.dropout(self.act(x), self._hidden, self.training)
        return self.last(x)


@pytest.mark.parametrize(
    ("on", "expected_path"),
    [
        ({"module": 0.1}, r"act\.1\.p = 0\.1"),
        ({"attribute": 0.25}, r"attention_dropout = 0\.25"),
        ({"hidden": 0.1}, "all rates are 0, so a module drops"),
    ],
)
def test_the_audit_names_what_drops(on: dict[str, float], expected_path: str) -> None:
    with pytest.raises(ConfigError, match=expected_path):
        audit(Block(**on), BATCH)


def test_set_rates_finds_modules_and_floats_and_leaves_zeros() -> None:
    backbone = nn.Sequential(Block(module=0.1, attribute=0.2))
    set_rates(backbone, 0.05)
    assert rates(backbone) == {"0.act.1.p": 0.05, "0.attention_dropout": 0.05}
    set_rates(backbone.eval(), 0.0)
    audit(backbone, {"input": BATCH["x"]})
    assert not backbone.training  # the mode it came in
    set_rates(backbone, 0.3)  # what is 0 stays 0: it may have been set so by the authors
    assert set(rates(backbone).values()) == {0.0}


class Echo(nn.Module):
    """The numbers it is given; remembers how many."""

    width = 1

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return x[:, None]


@pytest.mark.parametrize("once", [True, False])
def test_features_of_columns_stand_side_by_side_and_a_molecule_is_encoded_once(once: bool) -> None:
    one, two = [float(1)], [float(2)]  # a list: the same object where it is the same molecule
    columns = [
        Batches(
            items, np.ones(3, dtype=np.int64), lambda part: {"x": torch.tensor([value for (value,) in part])}
        )
        for items in ([one, two, one], [two, two, two])
    ]
    joined = join_columns(columns, once=once)
    net = PerColumn(Echo())
    features = net(**joined.collate(joined.items))
    assert features.tolist() == [[1.0, 2.0], [2.0, 2.0], [1.0, 2.0]]
    assert net.backbone.seen == ([2, 1] if once else [3, 3])
