"""The message passing of the stage `gnn` is chemprop's."""

from types import SimpleNamespace

import torch
from chemprop.featurizers import SimpleMoleculeMolGraphFeaturizer
from chemprop.nn import BondMessagePassing
from rdkit.Chem import MolFromSmiles

from models.inputs.graphs import Messages, collate
from models.neural_config import GnnConfig
from models.stages.gnn import GnnBackbone

SMILES = ["CCO", "c1ccccc1C(=O)N", "[Na+].[Cl-]", "C", "CC(C)(C)C#N"]  # rings, branches, atoms without a bond


def graph(smiles: list[str]) -> SimpleNamespace:
    featurizer = SimpleMoleculeMolGraphFeaturizer()
    return SimpleNamespace(**collate([featurizer(MolFromSmiles(text)) for text in smiles]))


def test_atoms_are_those_of_chemprop() -> None:
    for settings in ({}, {"undirected": True, "depth": 5, "bias": True}):
        reference, messages = BondMessagePassing(**settings), Messages(**settings)
        messages.load_state_dict(reference.state_dict())
        torch.testing.assert_close(messages(graph(SMILES)), reference(graph(SMILES)))


def test_molecules_without_any_bond_have_features() -> None:
    assert Messages()(graph(["C", "[Na+].[Cl-]"])).shape == (3, 300)


def test_sums_over_bonds_and_atoms_are_in_float32_also_under_autocast() -> None:
    molecules = graph(SMILES)
    network = Messages()
    backbone = GnnBackbone(network, 300, GnnConfig(kind="gnn", aggregation=["sum"]))
    sums = []
    backbone.hidden.register_forward_pre_hook(lambda module, inputs: sums.append(inputs[0]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        bonds = torch.rand(len(molecules.E), 300, dtype=torch.bfloat16)
        assert torch.equal(network.message(bonds, molecules), network.message(bonds.float(), molecules))
        backbone(**vars(molecules))
    assert sums[0].dtype == torch.float32
