"""Stage `gnn`: directed message passing over the bonds of the molecular graph, by chemprop, under our
trainer.

Source: Yang et al., Analyzing Learned Molecular Representations for Property Prediction, JCIM 2019.
"""

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from competition.dataset import Dataset
from core.files import read_json, write_json
from models.inputs.graphs import AGGREGATIONS, Messages, collate, graph_of, read_message_passing
from models.neural_config import GnnConfig
from models.training.batches import Batches
from models.training.neural_model import MoleculeModel

SHAPE = "message_passing.json"


class GnnBackbone(nn.Module):
    """Message passing, aggregation over atoms, one hidden layer: a batch to (n_rows, hidden_width)."""

    def __init__(self, message_passing: nn.Module, width: int, config: GnnConfig) -> None:
        super().__init__()
        self.message_passing = message_passing
        self.aggregations = nn.ModuleList([AGGREGATIONS[name]() for name in config.aggregation])
        self.width = config.hidden_width
        self.hidden = nn.Sequential(
            nn.Linear(width * len(self.aggregations), config.hidden_width),
            nn.ReLU(),
            nn.Dropout(config.backbone_dropout),
        )

    def forward(self, molecule: Tensor, **graph: Tensor) -> Tensor:
        """Return features (n_rows, hidden_width).

        Args:
            molecule: (n_atoms,), row of each atom.
            graph: all other results of `models.inputs.graphs.collate`.
        """
        atoms = self.message_passing(graph).float()  # sums over atoms need float32
        return self.hidden(
            torch.cat([aggregation(atoms, molecule) for aggregation in self.aggregations], dim=1)
        )


class Gnn(MoleculeModel):
    """Stage `gnn`; `models.training.neural_model.NeuralModel` documents its methods."""

    def init_backbone(self, train: Dataset, folder: Path) -> nn.Module:
        """Return message passing with the configured weights, or random ones, and write its shape."""
        shape = {"d_h": self.config.width, "depth": self.config.depth}
        published = None
        if self.config.weights:
            shape, published = read_message_passing(self.config.weights)
        write_json(folder / SHAPE, shape)
        backbone = self.restore_backbone(folder)
        if published is not None:
            backbone.message_passing.load_state_dict(published.state_dict())
        return backbone

    def restore_backbone(self, folder: Path) -> GnnBackbone:
        """Return a backbone of the same shape."""
        shape = read_json(folder / SHAPE)
        message_passing = Messages(**shape, dropout=self.config.backbone_dropout)
        return GnnBackbone(message_passing, shape["d_h"], self.config)

    def encode_molecules(self, smiles: list[str], folder: Path, augmentation: int) -> Batches:
        """Return the molecular graphs of a column."""
        shape = read_json(folder / SHAPE)
        cached = functools.cache(functools.partial(graph_of, depth=shape["depth"]))
        shared = self.config.backbone_dropout == 0 and not shape.get("undirected", False)
        equal = np.ones(len(smiles), dtype=np.int64)  # atoms of a batch stand in one table
        return Batches(list(map(cached, smiles)), equal, functools.partial(collate, shared=shared))
