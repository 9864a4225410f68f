"""Stage `gnn`: directed message passing over the bonds of the molecular graph, by chemprop, under our trainer.

Source: Yang et al., Analyzing Learned Molecular Representations for Property Prediction, JCIM 2019.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rdkit import Chem
from torch import Tensor, nn

from competition.tables import Rows
from models.batches import Batches
from models.config import GnnStage
from models.neural import Neural, PerColumn, side_by_side
from models.stage import Context, molecule_columns

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations inside chemprop's own imports
    from chemprop.data import BatchMolGraph
    from chemprop.featurizers import SimpleMoleculeMolGraphFeaturizer
    from chemprop.nn import BondMessagePassing, MeanAggregation, NormAggregation, SumAggregation

AGGREGATIONS = {"mean": MeanAggregation, "sum": SumAggregation, "norm": NormAggregation}


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

    def __init__(self, d_atom: int, d_bond: int, config: GnnStage) -> None:
        super().__init__()
        rate = config.backbone_dropout
        self.message_passing = BondMessagePassing(d_atom, d_bond, d_h=config.width, depth=config.depth, dropout=rate)
        self.aggregation = AGGREGATIONS[config.aggregation]()
        self.width = config.hidden_width
        self.hidden = nn.Sequential(nn.Linear(config.width, config.hidden_width), nn.ReLU(), nn.Dropout(rate))

    def forward(self, V: Tensor, E: Tensor, edge_index: Tensor, rev_edge_index: Tensor, molecule: Tensor) -> Tensor:
        """Features (n_rows, hidden_width); `molecule` (n_atoms,) is the row of each atom."""
        atoms = self.message_passing(Graph(V, E, edge_index, rev_edge_index))
        return self.hidden(self.aggregation(atoms, molecule))


class Gnn(Neural):
    """The stage; see `models.neural.Neural`."""

    def __init__(self, config: GnnStage, context: Context) -> None:
        super().__init__(config, context)
        self.columns = molecule_columns(config.columns, context.smiles, "gnn")
        self.featurizer = SimpleMoleculeMolGraphFeaturizer()

    def start(self, train: Rows, folder: Path) -> nn.Module:
        """Message passing with random weights."""
        return self.restore(folder)

    def restore(self, folder: Path) -> nn.Module:
        """The same for each molecule column."""
        d_atom, d_bond = self.featurizer.shape
        backbone = GnnBackbone(d_atom, d_bond, self.config)
        return PerColumn(backbone, len(self.columns)) if len(self.columns) > 1 else backbone

    def encode(self, rows: Rows, folder: Path, view: int, seed: int) -> Batches:
        """Molecular graphs."""
        return side_by_side([self._graphs(list(rows.inputs[column])) for column in self.columns])

    def _graphs(self, smiles: list[str]) -> Batches:
        graphs = [self.featurizer(Chem.MolFromSmiles(text)) for text in smiles]
        return Batches(graphs, np.array([len(graph.V) for graph in graphs]), collate)


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
