"""Stage `gnn`: directed message passing over the bonds of the molecular graph, by chemprop, under our trainer.

Source: Yang et al., Analyzing Learned Molecular Representations for Property Prediction, JCIM 2019.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rdkit import Chem
from torch import Tensor, nn

from competition.tables import Rows
from models import trainer
from models.config import GnnStage
from models.heads import Network, build_head
from models.stage import Context, molecule_column

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
        self.hidden = nn.Sequential(nn.Linear(config.width, config.hidden_width), nn.ReLU(), nn.Dropout(rate))

    def forward(self, V: Tensor, E: Tensor, edge_index: Tensor, rev_edge_index: Tensor, molecule: Tensor) -> Tensor:
        """Features (n_rows, hidden_width); `molecule` (n_atoms,) is the row of each atom."""
        atoms = self.message_passing(Graph(V, E, edge_index, rev_edge_index))
        return self.hidden(self.aggregation(atoms, molecule))


class Gnn:
    """The stage; see `models.stage.FittedStage`."""

    def __init__(self, config: GnnStage, context: Context) -> None:
        self.config = config
        self.context = context
        self.column = molecule_column(config.column, context.smiles, "gnn")
        self.featurizer = SimpleMoleculeMolGraphFeaturizer()

    def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
        """Train from random weights."""
        assert train.y is not None
        trainer.seed_everything(self.context.seed)
        held_out = None if valid is None or valid.y is None else (self._batches(valid), valid.y)
        trainer.fit(
            self._network(), self._batches(train), train.y, self.config, self.context.seed, folder,
            self.context.progress, held_out,
        )  # fmt: skip

    def predict(self, rows: Rows, folder: Path) -> NDArray[np.float64]:
        """Predictions (n_rows, n_targets)."""
        return trainer.predict(self._network(), self._batches(rows), self.config, folder)

    def _network(self) -> Network:
        d_atom, d_bond = self.featurizer.shape
        backbone = GnnBackbone(d_atom, d_bond, self.config)
        return Network(backbone, build_head(self.config.head, self.config.hidden_width, len(self.context.targets)))

    def _batches(self, rows: Rows) -> trainer.Batches:
        graphs = [self.featurizer(Chem.MolFromSmiles(smiles)) for smiles in rows.inputs[self.column]]
        return trainer.Batches(graphs, np.array([len(graph.V) for graph in graphs]), collate)


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
