"""Layers, rates and averages on a backbone of three layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from competition.errors import ConfigError
from models.settings import NeuralStage
from models.training.heads import LinearHead, Network
from models.training.optimizer import layers_of, make_average, make_optimizer, moving_average, prepare_layers


class Deep(nn.Module):
    """Embeddings, three layers and a final norm, named as libraries do."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Linear(2, 4)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(nn.Linear(4, 4) for _ in range(3))})
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embeddings(x)
        for layer in self.encoder["layer"]:  # type: ignore[union-attr]
            x = torch.tanh(layer(x))
        return self.norm(x)


class Flat(nn.Module):
    """No layers."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.hidden(x)


def settings(**changes: Any) -> NeuralStage:
    return NeuralStage.model_validate({"learning_rate": 1.0, **changes})


def network(backbone: nn.Module | None = None) -> Network:
    torch.manual_seed(0)
    return Network(backbone or Deep(), LinearHead(4, 1, 0.0))


def test_layers_are_found_by_their_numbers() -> None:
    assert list(layers_of(Deep())) == ["encoder.layer.0", "encoder.layer.1", "encoder.layer.2"]
    assert layers_of(Flat()) == {}


def test_layer_decay_lowers_the_rate_from_layer_to_layer_down_to_the_embeddings() -> None:
    net = network()
    groups = make_optimizer(net, settings(layer_decay=0.5, head_learning_rate=3.0)).param_groups
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    rate = {names[id(p)]: group["lr"] for group in groups for p in group["params"]}
    assert rate["backbone.embeddings.weight"] == pytest.approx(0.125)
    assert [rate[f"backbone.encoder.layer.{i}.weight"] for i in range(3)] == pytest.approx([0.25, 0.5, 1.0])
    assert rate["backbone.norm.weight"] == 1.0
    assert rate["head.linear.weight"] == 3.0


def test_layer_decay_on_a_backbone_without_layers_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="layer_decay needs a backbone with layers"):
        make_optimizer(network(Flat()), settings(layer_decay=0.9))


def test_top_layers_start_anew_and_the_others_do_not() -> None:
    net = network()
    before = {name: tensor.clone() for name, tensor in net.backbone.state_dict().items()}
    prepare_layers(net.backbone, settings(reinitialise_layers=1))
    changed = {name for name, tensor in net.backbone.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"encoder.layer.2.weight", "encoder.layer.2.bias"}
    with pytest.raises(ConfigError, match="found 4, and it has 3"):
        prepare_layers(net.backbone, settings(reinitialise_layers=4))


def test_frozen_parts_are_not_trained_and_an_unknown_one_is_named() -> None:
    net = network()
    prepare_layers(net.backbone, settings(freeze=["embeddings", "encoder.layer.0."]))
    assert [name for name, p in net.backbone.named_parameters() if not p.requires_grad] == [
        "embeddings.weight", "embeddings.bias", "encoder.layer.0.weight", "encoder.layer.0.bias",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"'encoder\.layer\.7' is none of embeddings\.bias"):
        prepare_layers(net.backbone, settings(freeze=["encoder.layer.7"]))


def test_checkpointed_layers_give_the_same_gradients() -> None:
    plain, checkpointed = network(), network()
    prepare_layers(checkpointed.backbone, settings(checkpoint_layers=True))
    x = torch.randn(5, 2)
    for net in (plain, checkpointed):
        net({"x": x}).square().mean().backward()
    for (name, one), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        assert torch.equal(one.grad, other.grad), name


def test_the_moving_average_forgets_the_start_quickly_and_then_keeps_its_decay() -> None:
    old, new = torch.tensor(0.0), torch.tensor(1.0)
    assert moving_average(old, new, 1, decay=0.9).item() == pytest.approx(1 - 2 / 11)
    assert moving_average(old, new, 1000, decay=0.9).item() == pytest.approx(0.1)


def test_ema_over_three_steps_is_what_a_hand_computes() -> None:
    net = network()
    average = make_average(net, settings(average="ema", ema_decay=0.15))
    assert average is not None
    for value in (1.0, 2.0, 4.0):
        nn.init.constant_(net.head.linear.bias, value)
        average.update_parameters(net)
    # The first step copies; then decays min(.15, 2/11) and min(.15, 3/12): .15 both times.
    assert average.module.head.linear.bias.item() == pytest.approx(0.15 * (0.15 * 1 + 0.85 * 2) + 0.85 * 4)


def test_the_mean_of_epochs_is_their_mean() -> None:
    net = network()
    average = make_average(net, settings(average="last_epochs"))
    assert average is not None
    for value in (1.0, 2.0, 6.0):
        nn.init.constant_(net.head.linear.bias, value)
        average.update_parameters(net)
    assert average.module.head.linear.bias.item() == pytest.approx(3.0)
    assert make_average(net, settings()) is None
