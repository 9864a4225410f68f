"""Message passing over the graphs of molecules: chemprop's network and weights, and batches of graphs for it."""

import warnings
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from rdkit import Chem
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import embedding_bag

from competition.errors import ConfigError
from models.inputs.weights import find_weights

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations inside chemprop's own imports
    from chemprop.data import BatchMolGraph
    from chemprop.featurizers import SimpleMoleculeMolGraphFeaturizer
    from chemprop.nn import BondMessagePassing, MeanAggregation, NormAggregation, SumAggregation

AGGREGATIONS = {"mean": MeanAggregation, "sum": SumAggregation, "norm": partial(NormAggregation, norm=10.0)}
SHAPE_NAMES = ("d_v", "d_e", "d_h", "depth", "bias", "undirected", "activation")


class Messages(BondMessagePassing):
    """chemprop's message passing, its weights and its numbers; sums over bonds are one pass over memory each.

    On a CPU a training step took two thirds of the time of chemprop's scatter and index operations. Sums are in
    float32 also under autocast.
    """

    def message(self, H: Tensor, graph: Any) -> Tensor:
        """For each bond the sum over the bonds that end where it begins, less its own reverse; (n_bonds, width)."""
        return embedding_bag(graph.before, H.float(), graph.before_starts, mode="sum")

    def forward(self, graph: Any) -> Tensor:
        """Atoms (n_atoms, width)."""
        first = self.initialize(graph)
        H = self.tau(first)
        for _ in range(1, self.depth):
            if self.undirected:
                H = (H + H[graph.rev_edge_index]) / 2
            H = self.update(self.message(H, graph), first)
        return self.finalize(embedding_bag(graph.into, H.float(), graph.into_starts, mode="sum"), graph.V, None)


def graph_of(smiles: str) -> Any:
    """The graph of a molecule with chemprop's features of atoms and bonds."""
    return SimpleMoleculeMolGraphFeaturizer()(Chem.MolFromSmiles(smiles))


def atoms_mean(network: Messages, molecule: Tensor, **graph: Tensor) -> Tensor:
    """The mean over the atoms of each molecule, (n_molecules, width); the arguments are those of `collate`."""
    return MeanAggregation()(network(SimpleNamespace(**graph)), molecule)


def read_message_passing(weights: str) -> tuple[dict[str, Any], Messages]:
    """Shape and network of message passing with the weights that chemprop or CheMeleon saved.

    Source of CheMeleon: Burns et al., Deep Learning Foundation Models from Classical Molecular Descriptors,
    arXiv 2506.15792.
    """
    path = next(iter(find_weights(weights).values()))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        known = content["hyper_parameters"]
        shape = {name: known[name] for name in SHAPE_NAMES if known.get(name) is not None}
        network = Messages(**shape)
        network.load_state_dict(content["state_dict"])
    except Exception as error:  # torch, pickle and chemprop raise many kinds; each means that it is something else
        raise ConfigError(
            f"{path} does not hold the hyper_parameters and the state_dict of a BondMessagePassing, as chemprop saves "
            f"them: {error}. Name chemeleon, or a file of that form."
        ) from None
    return shape, network


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
