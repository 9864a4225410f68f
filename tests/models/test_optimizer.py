"""Rates by layer, layers computed again, and the moving average, on a backbone of three layers."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.networks.unimol import UnimolBackbone, read_vocabulary
from models.training import optimizer
from models.training.network import Network
from models.training.optimizer import make_optimizer, moving_average, recompute_layers
from models.training.settings import NeuralStage


class Deep(nn.Module):
    """Embeddings, three layers and a final norm, named as libraries do."""

    width = 4

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


def network() -> Network:
    torch.manual_seed(0)
    return Network(Deep(), 1, [0.0])


def in_optimizer(**changes: Any) -> dict[str, tuple[float, float]]:
    net = network()
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    groups = make_optimizer(net, NeuralStage(kind="test", learning_rate=1.0, **changes)).param_groups
    return {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


def test_layer_decay_lowers_the_rate_from_layer_to_layer_down_to_the_embeddings() -> None:
    group_settings = in_optimizer(layer_decay=0.5, head_learning_rate=3.0)
    names = ["embeddings", *(f"encoder.layer.{i}" for i in range(3)), "norm"]
    assert [group_settings[f"backbone.{name}.weight"][0] for name in names] == pytest.approx(
        [0.125, 0.25, 0.5, 1.0, 1.0]
    )
    assert group_settings["head.linear.weight"][0] == 3.0

    unimol = UnimolBackbone(read_vocabulary({}), "compact", layers=2, width=32, heads=4)
    rates = {
        name: optimizer._depth(name, ["encoder.layers.0", "encoder.layers.1"]) for name in unimol.state_dict()
    }
    at_the_start = (
        "embed_tokens",
        "gbf",
        "encoder.emb_layer_norm",
    )  # and what is behind the layers with the last
    assert all(
        depth == (0 if name.startswith(at_the_start) else 2)
        for name, depth in rates.items()
        if "layers." not in name
    )

    group_settings = in_optimizer(weight_decay=0.1)  # of which vectors have none
    without = {name for name, (_, decay) in group_settings.items() if decay == 0}
    assert without == {name for name in group_settings if name.endswith("bias") or "norm" in name}


def test_checkpointed_layers_give_the_same_gradients() -> None:
    plain, checkpointed = network(), network()
    recompute_layers(checkpointed.backbone)
    x = torch.randn(5, 2)
    for net in (plain, checkpointed):
        net({"x": x}).square().mean().backward()
    for one, other in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        assert torch.equal(one.grad, other.grad)


def test_the_moving_average_forgets_the_start_quickly_and_then_keeps_its_decay() -> None:
    net = network()
    average = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=partial(moving_average, decay=0.2))
    for value in (1.0, 2.0, 6.0):
        nn.init.constant_(net.head.linear.bias, value)
        average.update_parameters(net)
    # The first step copies; then decays min(.2, 2/11) and min(.2, 3/12).
    expected = 0.2 * (2 / 11 * 1 + 9 / 11 * 2) + 0.8 * 6
    assert average.module.head.linear.bias.item() == pytest.approx(expected)
