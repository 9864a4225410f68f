"""The message passing of the stage `gnn` is chemprop's."""

from types import SimpleNamespace

import torch
from chemprop.featurizers import SimpleMoleculeMolGraphFeaturizer
from chemprop.nn import BondMessagePassing
from rdkit.Chem import MolFromSmiles

from models.inputs.graphs import Messages, collate

SMILES = ["CCO", "c1ccccc1C(=O)N", "[Na+].[Cl-]", "C", "CC(C)(C)C#N"]  # rings, branches, atoms without a bond


def graph(smiles: list[str]) -> SimpleNamespace:
    featurizer = SimpleMoleculeMolGraphFeaturizer()
    return SimpleNamespace(**collate([featurizer(MolFromSmiles(text)) for text in smiles]))


def test_atoms_are_those_of_chemprop() -> None:
    for settings in ({}, {"undirected": True, "depth": 5, "bias": True}):
        theirs, ours = BondMessagePassing(**settings), Messages(**settings)
        ours.load_state_dict(theirs.state_dict())
        torch.testing.assert_close(ours(graph(SMILES)), theirs(graph(SMILES)))


def test_molecules_without_any_bond_have_features() -> None:
    assert Messages()(graph(["C", "[Na+].[Cl-]"])).shape == (3, 300)
