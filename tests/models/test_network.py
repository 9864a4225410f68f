"""Heads, pooling, molecule columns, and rates by layer, against numbers computed by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from models.networks.encoders import pooled
from models.networks.message_passing import GnnBackbone
from models.networks.unimol import UnimolBackbone, read_vocabulary
from models.stages.bert import Bert
from models.stages.gnn import Gnn
from models.training import optimizer
from models.training.batches import Batches, join_columns
from models.training.network import Head, Network, PerColumn


class Mask(nn.Module):
    """A dropout layer with one constant mask."""

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def forward(self, features):
        return features * torch.tensor(self.mask)


def test_multi_sample_averages_the_losses_and_not_the_outputs():
    """Outputs 1, 2 and 3: the mean of their squares is 14/3; the square of their mean would be 4."""
    settings = {"kind": "multi_sample", "samples": 3, "dropout": 0.5}
    head = Head(2, 1, Bert.model_validate({"kind": "bert", "head": settings}).head_rates)
    assert [dropout.p for dropout in head.dropouts] == [0.5] * 3
    head.dropouts = nn.ModuleList(Mask(mask) for mask in ([1, 0], [0, 1], [1, 1]))
    nn.init.ones_(head.linear.weight)
    nn.init.zeros_(head.linear.bias)
    loss = head.loss(torch.tensor([[1.0, 2.0]]), lambda y_pred: y_pred.square().mean())
    assert loss.item() == pytest.approx(14 / 3)


@pytest.mark.parametrize(
    ("how", "mask", "expected"),
    [
        ("mean", [1, 1, 0], [2.0, 20.0]),
        ("cls", [1, 1, 0], [1.0, 10.0]),
        ("last", [1, 1, 0], [3.0, 30.0]),
        ("last", [0, 1, 1], [100.0, 100.0]),  # padded on the left
    ],
)
def test_pooling_leaves_padding_out(how, mask, expected):
    states = torch.tensor([[[1.0, 10.0], [3.0, 30.0], [100.0, 100.0]]])
    assert pooled(states, torch.tensor([mask]), how).tolist() == [expected]


def test_a_head_computes_in_float32_also_under_autocast():
    head, features = Head(64, 2, [0.0]), torch.randn(3, 64, dtype=torch.bfloat16)
    expected = head(features.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head(features), expected)


class Echo(nn.Module):
    """The numbers it is given; remembers how many."""

    def __init__(self):
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x):
        self.seen.append(len(x))
        return x[:, None]


@pytest.mark.parametrize("once", [True, False])
def test_features_of_columns_stand_side_by_side_and_a_molecule_is_encoded_once(once):
    one, two = [1.0], [2.0]  # a list: the same object where it is the same molecule
    lengths = np.ones(3, dtype=np.int64)

    def collate(items):
        return {"x": torch.tensor(items)[:, 0]}

    columns = [Batches(items, lengths, collate) for items in ([one, two, one], [two, two, two])]
    joined, net = join_columns(columns, once=once), PerColumn(Echo())
    features = net(**joined.collate(joined.items))
    assert features.tolist() == [[1.0, 2.0], [2.0, 2.0], [1.0, 2.0]]
    assert net.backbone.seen == ([2, 1] if once else [3, 3])


class Deep(nn.Module):
    """Embeddings, three layers and a final norm, named as libraries do."""

    width = 4

    def __init__(self):
        super().__init__()
        self.embeddings = nn.Linear(2, 4)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(nn.Linear(4, 4) for _ in range(3))})
        self.norm = nn.LayerNorm(4)

    def forward(self, x):
        x = self.embeddings(x)
        for layer in self.encoder["layer"]:  # type: ignore[union-attr]
            x = torch.tanh(layer(x))
        return self.norm(x)


def test_layer_decay_lowers_the_rate_down_to_the_embeddings_and_vectors_have_no_weight_decay():
    net = Network(Deep(), 1, [0.0])
    rates = {"learning_rate": 1.0, "layer_decay": 0.5, "head_learning_rate": 3.0}
    groups = optimizer.make_optimizer(net, Bert(kind="bert", weight_decay=0.1, **rates)).param_groups
    found = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    expected = {
        "embeddings": (0.125, 0.1),
        **{f"encoder.layer.{i}": (0.5 ** (2 - i), 0.1) for i in range(3)},
        "norm": (1.0, 0.0),
    }
    for name, values in expected.items():
        assert found[id(net.backbone.get_submodule(name).weight)] == pytest.approx(values), name
        assert found[id(net.backbone.get_submodule(name).bias)][1] == 0
    assert found[id(net.head.linear.weight)] == (3.0, 0.1)


@pytest.mark.parametrize("n_columns", [1, 2])
def test_the_hidden_layer_of_a_gnn_has_the_rate_of_the_head(n_columns):
    backbone = GnnBackbone(nn.Linear(4, 4), 4, ["mean"], 3, 0.0)
    net = Network(backbone, 1, [0.0], n_molecules=n_columns)
    groups = optimizer.make_optimizer(
        net, Gnn(kind="gnn", learning_rate=1.0, head_learning_rate=3.0)
    ).param_groups
    found = {id(p): group["lr"] for group in groups for p in group["params"]}
    layers = (backbone.message_passing, backbone.hidden[0], net.head.linear)
    assert [found[id(layer.weight)] for layer in layers] == [1.0, 3.0, 3.0]


def test_features_of_atoms_and_pairs_are_before_all_layers_of_unimol():
    unimol = UnimolBackbone(read_vocabulary({}), "compact", layers=2, width=32, heads=4)
    layers = list(optimizer.layers_of(unimol))
    first = {name for name in unimol.state_dict() if optimizer._depth(name, layers) == 0}
    inputs = ("embed_tokens", "gbf", "encoder.emb_layer_norm")
    assert first == {name for name in unimol.state_dict() if name.startswith(inputs)}
