"""Stage `gnn`: directed message passing over the bonds of the molecular graph, by chemprop, under our trainer.

Source: Yang et al., Analyzing Learned Molecular Representations for Property Prediction, JCIM 2019.
"""

import functools
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from rdkit import Chem
from torch import Tensor, nn

from competition.errors import ConfigError
from competition.files import read_json, write_json
from competition.tables import Rows
from models.inputs.weights import find_weights
from models.settings import GnnStage
from models.stage import Context
from models.training.batches import Batches
from models.training.neural import OnMolecules

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations inside chemprop's own imports
    from chemprop.data import BatchMolGraph
    from chemprop.featurizers import SimpleMoleculeMolGraphFeaturizer
    from chemprop.nn import BondMessagePassing, MeanAggregation, NormAggregation, SumAggregation

SHAPE = "message_passing.json"
SHAPE_NAMES = ("d_v", "d_e", "d_h", "depth", "bias", "undirected", "activation")
AGGREGATIONS = {"mean": MeanAggregation, "sum": SumAggregation, "norm": partial(NormAggregation, norm=10.0)}


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

    def forward(self, molecule: Tensor, **graph: Tensor) -> Tensor:
        """Features (n_rows, hidden_width).

        Args:
            molecule: (n_atoms,) the row of each atom.
            graph: V, atoms (n_atoms, d_atom); E, directed bonds (n_bonds, d_bond); edge_index (2, n_bonds), from and to
                atom; rev_edge_index (n_bonds,), the bond in the other direction.
        """
        atoms = self.message_passing(SimpleNamespace(**graph))
        return self.hidden(torch.cat([aggregation(atoms, molecule) for aggregation in self.aggregations], dim=1))


class Gnn(OnMolecules):
    """The stage; see `models.training.neural.Neural`."""

    def __init__(self, config: GnnStage, context: Context) -> None:
        super().__init__(config, context)
        self.featurizer = SimpleMoleculeMolGraphFeaturizer()

    def start(self, train: Rows, folder: Path) -> nn.Module:
        """Message passing with the configured weights, or with random ones; writes its shape."""
        shape, state = {"d_h": self.config.width, "depth": self.config.depth}, None
        if self.config.weights:
            shape, state = read_message_passing(self.config.weights)
        write_json(folder / SHAPE, shape)
        backbone = self.restore(folder)
        if state is not None:
            backbone.message_passing.load_state_dict(state)
        return backbone

    def restore(self, folder: Path) -> GnnBackbone:
        """The same shape."""
        shape = read_json(folder / SHAPE)
        message_passing = BondMessagePassing(**shape, dropout=self.config.backbone_dropout)
        return GnnBackbone(message_passing, shape["d_h"], self.config)

    def encode_molecules(self, smiles: list[str], folder: Path, augmentation: int) -> Batches:
        """Molecular graphs."""
        graph_of = functools.cache(lambda text: self.featurizer(Chem.MolFromSmiles(text)))
        equal = np.ones(len(smiles), dtype=np.int64)  # atoms of a batch stand in one table
        return Batches(list(map(graph_of, smiles)), equal, collate)


def read_message_passing(weights: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Shape and weights of message passing as chemprop and CheMeleon save them.

    Source of CheMeleon: Burns et al., Deep Learning Foundation Models from Classical Molecular Descriptors,
    arXiv 2506.15792.
    """
    path = next(iter(find_weights(weights).values()))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        shape, state = content["hyper_parameters"], content["state_dict"]
        shape = {name: shape[name] for name in SHAPE_NAMES if shape.get(name) is not None}
        BondMessagePassing(**shape).load_state_dict(state)
    except Exception as error:  # torch, pickle and chemprop raise many kinds; each means that it is something else
        raise ConfigError(
            f"{path} does not hold the hyper_parameters and the state_dict of a BondMessagePassing, as chemprop saves "
            f"them: {error}. Name chemeleon, or a file of that form."
        ) from None
    return shape, state


def collate(graphs: list[object]) -> dict[str, Tensor]:
    """Molecular graphs to the arguments of `GnnBackbone.forward`."""
    batch = BatchMolGraph(graphs)
    names = ("V", "E", "edge_index", "rev_edge_index")
    return {"molecule": batch.batch.to(torch.long), **{name: getattr(batch, name) for name in names}}
