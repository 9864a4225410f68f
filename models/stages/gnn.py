"""Stage `gnn`: directed message passing over the bonds of the molecular graph, by chemprop, under our trainer.

Source: Yang et al., Analyzing Learned Molecular Representations for Property Prediction, JCIM 2019.
"""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Chem import AllChem, EState, rdMolDescriptors
from torch import Tensor, nn

from competition.errors import ConfigError
from competition.files import read_json, write_json
from competition.tables import Rows
from models.config import GnnStage
from models.inputs.weights import find_weights
from models.stage import Context, molecule_columns
from models.training.batches import Batches
from models.training.neural import Neural, PerColumn, side_by_side

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations inside chemprop's own imports
    from chemprop.data import BatchMolGraph
    from chemprop.featurizers import SimpleMoleculeMolGraphFeaturizer
    from chemprop.nn import BondMessagePassing, MeanAggregation, NormAggregation, SumAggregation

SHAPE = "message_passing.json"
SHAPE_NAMES = ("d_v", "d_e", "d_h", "depth", "bias", "undirected", "activation")
AGGREGATIONS = {"mean": MeanAggregation, "sum": SumAggregation, "norm": partial(NormAggregation, norm=10.0)}


class Graph(NamedTuple):
    """A batch of molecules as chemprop's message passing reads it.

    V: atoms (n_atoms, d_atom); E: directed bonds (n_bonds, d_bond); edge_index: (2, n_bonds) from and to atom;
    rev_edge_index: (n_bonds,) the bond in the other direction.
    """

    V: Tensor
    E: Tensor
    edge_index: Tensor
    rev_edge_index: Tensor


class GnnBackbone(nn.Module):
    """Message passing, aggregation over atoms, one hidden layer: a batch to (n_rows, hidden_width)."""

    def __init__(self, message_passing: nn.Module, width: int, config: GnnStage) -> None:
        super().__init__()
        self.message_passing = message_passing
        self.aggregations = nn.ModuleList([AGGREGATIONS[name]() for name in config.aggregation])
        self.width = config.hidden_width
        self.hidden = nn.Sequential(
            nn.Linear(width * len(self.aggregations), config.hidden_width),
            nn.ReLU(),
            nn.Dropout(config.backbone_dropout),
        )

    def forward(self, V: Tensor, E: Tensor, edge_index: Tensor, rev_edge_index: Tensor, molecule: Tensor) -> Tensor:
        """Features (n_rows, hidden_width); `molecule` (n_atoms,) is the row of each atom."""
        atoms = self.message_passing(Graph(V, E, edge_index, rev_edge_index))
        return self.hidden(torch.cat([aggregation(atoms, molecule) for aggregation in self.aggregations], dim=1))


class Gnn(Neural):
    """The stage; see `models.training.neural.Neural`."""

    def __init__(self, config: GnnStage, context: Context) -> None:
        super().__init__(config, context)
        self.columns = molecule_columns(config.columns, context.smiles, "gnn")
        n_extra = sum(2 if kind == "crippen" else 1 for kind in config.atom_features)
        self.featurizer = SimpleMoleculeMolGraphFeaturizer(extra_atom_fdim=n_extra)

    def start(self, train: Rows, folder: Path) -> nn.Module:
        """Message passing with the configured weights, or with random ones; writes its shape."""
        d_atom, d_bond = self.featurizer.shape
        shape = {"d_v": d_atom, "d_e": d_bond, "d_h": self.config.width, "depth": self.config.depth}
        state = None
        if self.config.weights:
            shape, state = read_message_passing(self.config.weights, self.featurizer.shape)
        write_json(folder / SHAPE, shape)
        backbone = self.restore(folder)
        if state is not None:
            message_passing = backbone.backbone if len(self.columns) > 1 else backbone
            message_passing.message_passing.load_state_dict(state)  # type: ignore[union-attr]
        return backbone

    def restore(self, folder: Path) -> nn.Module:
        """The same for each molecule column."""
        shape = read_json(folder / SHAPE, "d_h")
        message_passing = BondMessagePassing(**{**shape, "dropout": self.config.backbone_dropout})
        backbone = GnnBackbone(message_passing, shape["d_h"], self.config)
        return PerColumn(backbone, len(self.columns)) if len(self.columns) > 1 else backbone

    def encode(self, rows: Rows, folder: Path, view: int, seed: int) -> Batches:
        """Molecular graphs."""
        graphs = [self._graphs(list(rows.inputs[column])) for column in self.columns]
        return side_by_side(graphs, once=self.config.backbone_dropout == 0)

    def _graphs(self, smiles: list[str]) -> Batches:
        graph_of = {text: self._graph(text) for text in set(smiles)}
        graphs = [graph_of[text] for text in smiles]
        return Batches(graphs, np.ones(len(graphs), dtype=np.int64), collate)  # atoms of a batch stand in one table

    def _graph(self, smiles: str) -> Any:
        molecule = Chem.MolFromSmiles(smiles)
        extra = atom_features(molecule, list(self.config.atom_features)) if self.config.atom_features else None
        return self.featurizer(molecule, extra)


def read_message_passing(weights: str, expected: tuple[int, int]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Shape and weights of message passing as chemprop and CheMeleon save them.

    Args:
        expected: numbers of an atom and of a bond.

    Source of CheMeleon: Burns et al., Deep Learning Foundation Models from Classical Molecular Descriptors,
    arXiv 2506.15792.

    Raises:
        ConfigError: if the file holds something else, or reads other numbers.
    """
    path = next(iter(find_weights(weights).values()))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        shape, state = content["hyper_parameters"], content["state_dict"]
        shape = {name: shape[name] for name in SHAPE_NAMES if shape.get(name) is not None}
        BondMessagePassing(**shape).load_state_dict(state)
    except (AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError, UnpicklingError) as error:
        said = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{path} must hold hyper_parameters and the state_dict of a BondMessagePassing, as chemprop saves it, and "
            f"does not ({type(error).__name__}: {said}). Name chemeleon, or a file of that form."
        ) from None
    if (own := (shape.get("d_v"), shape.get("d_e"))) != expected:
        raise ConfigError(
            f"{path} must read {expected[0]} numbers of an atom and {expected[1]} of a bond, as chemprop gives them by "
            f"default; it reads {own[0]} and {own[1]}. Name weights of that featurizer."
        )
    return shape, state


def atom_features(molecule: Chem.Mol, kinds: list[str]) -> NDArray[np.float32]:
    """Numbers of each atom, (n_atoms, n_features), scaled to about 1; 0 where one is not defined.

    gasteiger: partial charge. crippen: shares in logP and molar refractivity. tpsa, labute: shares in polar and in
    approximate surface. estate: electrotopological state (Kier and Hall).
    """
    parts = []
    for kind in kinds:
        match kind:
            case "gasteiger":
                AllChem.ComputeGasteigerCharges(molecule)
                parts.append([[atom.GetDoubleProp("_GasteigerCharge")] for atom in molecule.GetAtoms()])
            case "crippen":
                parts.append(rdMolDescriptors._CalcCrippenContribs(molecule))
            case "tpsa":
                parts.append([[share / 20] for share in rdMolDescriptors._CalcTPSAContribs(molecule)])
            case "labute":
                parts.append([[share / 10] for share in rdMolDescriptors._CalcLabuteASAContribs(molecule)[0]])
            case "estate":
                parts.append([[value / 10] for value in EState.EStateIndices(molecule)])
    return np.nan_to_num(np.hstack([np.array(part) for part in parts]), posinf=0, neginf=0).astype(np.float32)


def collate(graphs: list[object]) -> dict[str, Tensor]:
    """Molecular graphs to the arguments of `GnnBackbone.forward`."""
    batch = BatchMolGraph(graphs)
    return {
        "V": batch.V,
        "E": batch.E,
        "edge_index": batch.edge_index,
        "rev_edge_index": batch.rev_edge_index,
        "molecule": batch.batch.to(torch.long),
    }
