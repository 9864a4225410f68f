"""The message passing of the stage `gnn` is chemprop's."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from chemprop.data import BatchMolGraph
from chemprop.nn import BondMessagePassing, MeanAggregation, NormAggregation, SumAggregation

from models.networks.message_passing import GnnBackbone, Messages, collate, graph_of, pool_atoms
from models.stages.gnn import Gnn
from tests.models import made

SMILES = ["CCO", "c1ccccc1C(=O)N", "[Na+].[Cl-]", "C", "CC(C)(C)C#N"]  # rings, branches, atoms without a bond
CHEMPROP = [MeanAggregation(), SumAggregation(), NormAggregation(norm=10.0)]


def batch(smiles, shared=True, depth=3):
    return collate([graph_of(text, depth) for text in smiles], shared)


@pytest.mark.parametrize(
    "settings", [{}, {"depth": 1}, {"depth": 6}, {"undirected": True, "depth": 5, "bias": True}]
)
@pytest.mark.parametrize("shared", [True, False])
def test_atoms_and_gradients_are_those_of_chemprop(settings, shared):
    reference, messages = BondMessagePassing(**settings), Messages(**settings)
    messages.load_state_dict(reference.state_dict())
    graphs = [graph_of(text, messages.depth) for text in [*SMILES, *SMILES[:2]]]
    graph = collate(graphs, shared and not messages.undirected)
    atoms = messages(graph)[graph["atom"]]
    expected = reference(BatchMolGraph([each.graph for each in graphs]))
    torch.testing.assert_close(atoms, expected)
    direction = torch.rand_like(atoms)
    gradients, expected_gradients = (
        torch.autograd.grad((y * direction).sum(), list(network.parameters()), allow_unused=True)
        for y, network in ((atoms, messages), (expected, reference))
    )
    torch.testing.assert_close(gradients, expected_gradients)


def test_aggregations_are_those_of_chemprop():
    graph, graphs = batch(SMILES), [graph_of(text, 3).graph for text in SMILES]
    vectors, molecule = Messages()(graph), BatchMolGraph(graphs).batch
    expected = [module(vectors[graph["atom"]], molecule) for module in CHEMPROP]
    torch.testing.assert_close(
        pool_atoms(vectors, graph, ["mean", "sum", "norm"]), torch.cat(expected, dim=1)
    )


def test_molecules_without_any_bond_have_features():
    graph = batch(["C", "[Na+].[Cl-]"])
    assert pool_atoms(Messages()(graph), graph, ["mean", "norm"]).shape == (2, 600)


def test_what_is_shared_differs_between_stereo_centres_and_charges():
    for one, other in pairwise(["C[C@H](F)Cl", "C[C@@H](F)Cl", "CC(F)Cl", "C[C-](F)Cl"]):
        assert len(batch([one, other])["atoms"]) > len(batch([one])["atoms"])


@pytest.mark.parametrize(("rate", "n_distinct"), [(0.0, 1), (0.5, 10)])
def test_nothing_is_shared_with_dropout_in_the_backbone(rate, n_distinct, tmp_path):
    """And encoding draws no random numbers, or new graphs would change the dropout of the head."""
    config = Gnn(kind="gnn", width=32, hidden_width=8, backbone_dropout=rate)
    stage = made.build_stage(config, made.context(tmp_path / "cache", smiles=["s"]))
    rows = made.rows(s=["CC"] * 5)
    network = stage.initial_backbone(rows, tmp_path).message_passing
    before = torch.get_rng_state()
    inputs = stage.encode(rows, tmp_path).batch(np.arange(5), torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)
    assert len(torch.unique(network.train()(inputs)[inputs["atom"]], dim=0)) == n_distinct


def test_sums_over_bonds_and_atoms_are_in_float32_also_under_autocast():
    backbone = GnnBackbone(Messages(), 300, ["sum"], 300, 0.0)
    inputs: list[torch.Tensor] = []
    for layer in (backbone.message_passing.W_h, backbone.hidden):
        layer.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        backbone(**batch(SMILES))
    assert [tensor.dtype for tensor in inputs] == [torch.float32] * 3
