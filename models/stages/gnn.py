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
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

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


class Messages(BondMessagePassing):
    """chemprop's message passing, its weights and its numbers; sums over bonds are one pass over memory each.

    On a CPU a training step takes the time of two thirds of chemprop's scatter and index operations
    (`benchmarks/against_chemprop.py`).
    """

    def message(self, H: Tensor, graph: Any) -> Tensor:
        """For each bond the sum over the bonds that end where it begins, less its own reverse; (n_bonds, width)."""
        return embedding_bag(graph.before, H, graph.before_starts, mode="sum")

    def forward(self, graph: Any) -> Tensor:
        """Atoms (n_atoms, width)."""
        first = self.initialize(graph)
        H = self.tau(first)
        for _ in range(1, self.depth):
            if self.undirected:
                H = (H + H[graph.rev_edge_index]) / 2
            H = self.update(self.message(H, graph), first)
        return self.finalize(embedding_bag(graph.into, H, graph.into_starts, mode="sum"), graph.V, None)


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
                atom; rev_edge_index (n_bonds,), the bond in the other direction; into, the bonds that end at each atom,
                one after the other, and into_starts (n_atoms,), where those of an atom begin; before and before_starts
                (n_bonds,), the same of the bonds that end where a bond begins, without its own reverse.
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
        message_passing = Messages(**shape, dropout=self.config.backbone_dropout)
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
    (source, target), reverse = batch.edge_index.numpy(), batch.rev_edge_index.numpy()
    bonds = np.arange(len(target))
    into = csr_array((bonds, (target, bonds)), shape=(len(batch.V), len(bonds)))
    before = into[source]
    is_reverse = before.indices == np.repeat(reverse, np.diff(before.indptr))
    lists = {
        "into": into.indices,
        "into_starts": into.indptr[:-1],
        "before": before.indices[~is_reverse],
        "before_starts": before.indptr[:-1] - bonds,  # one less for each bond before it
    }
    return {
        "molecule": batch.batch.to(torch.long),
        **{name: getattr(batch, name) for name in names},
        **{name: torch.from_numpy(numbers.astype(np.int64)) for name, numbers in lists.items()},
    }
