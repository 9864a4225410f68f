"""Message passing on molecular graphs: chemprop's network, its weights, and batches of graphs."""

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
    """Message passing with the weights and the results of chemprop's, and faster sums over bonds.

    Each sum is one pass over memory. On a CPU a training step took two thirds of the time that it
    takes with chemprop's scatter and index operations. Sums are in float32, also under autocast.
    """

    def message(self, H: Tensor, graph: Any) -> Tensor:
        """Return for each directed bond the sum over the bonds into its first atom, (n_bonds, width).

        The reverse bond is excluded.

        Args:
            H: vectors of the directed bonds, (n_bonds, width).
        """
        return embedding_bag(graph.before, H.float(), graph.before_starts, mode="sum")

    def forward(self, graph: Any) -> Tensor:
        """Return the vectors of all atoms, (n_atoms, width)."""
        initial = self.initialize(graph)
        H = self.tau(initial)
        for _ in range(1, self.depth):
            if self.undirected:
                H = (H + H[graph.rev_edge_index]) / 2
            H = self.update(self.message(H, graph), initial)
        return self.finalize(
            embedding_bag(graph.into, H.float(), graph.into_starts, mode="sum"), graph.V, None
        )


def graph_of(smiles: str) -> Any:
    """Return the graph of a molecule with chemprop's features of atoms and bonds."""
    return SimpleMoleculeMolGraphFeaturizer()(Chem.MolFromSmiles(smiles))


def atoms_mean(network: Messages, molecule: Tensor, **graph: Tensor) -> Tensor:
    """Return the mean over the atoms of each molecule, (n_molecules, width).

    Args:
        network: the message passing.
        molecule: result "molecule" of `collate`.
        graph: all other results of `collate`.
    """
    return MeanAggregation()(network(SimpleNamespace(**graph)), molecule)


def read_message_passing(weights: str) -> tuple[dict[str, Any], Messages]:
    """Load message passing that chemprop or CheMeleon saved, and return its hyperparameters and network.

    Source of CheMeleon: Burns et al., Deep Learning Foundation Models from Classical Molecular
    Descriptors, arXiv 2506.15792.
    """
    path = next(iter(find_weights(weights).values()))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        saved = content["hyper_parameters"]
        shape = {name: saved[name] for name in SHAPE_NAMES if saved.get(name) is not None}
        network = Messages(**shape)
        network.load_state_dict(content["state_dict"])
    except Exception as error:  # torch, pickle and chemprop raise many types of errors for other files
        raise ConfigError(
            f"{path} does not contain the hyper_parameters and the state_dict of a BondMessagePassing of "
            f"chemprop: {error}. Use chemeleon, or a file that chemprop saved."
        ) from None
    return shape, network


def collate(graphs: list[object]) -> dict[str, Tensor]:
    """Return a batch of molecular graphs as the arguments of `GnnBackbone.forward`.

    V, E, edge_index and rev_edge_index are defined by chemprop, and molecule is the index of each
    atom's molecule. into and before are concatenated lists of directed bonds: for each atom the
    bonds into it, and for each bond the bonds into its first atom except its reverse. into_starts
    and before_starts are the starts of these lists.
    """
    batch = BatchMolGraph(graphs)
    names = ("V", "E", "edge_index", "rev_edge_index")
    source, target = batch.edge_index.numpy()
    reverse = batch.rev_edge_index.numpy()
    bonds = np.arange(len(target))
    into = csr_array((bonds, (target, bonds)), shape=(len(batch.V), len(bonds)))
    before = into[source]
    is_reverse = before.indices == np.repeat(reverse, np.diff(before.indptr))
    lists = {
        "into": into.indices,
        "into_starts": into.indptr[:-1],
        "before": before.indices[~is_reverse],
        "before_starts": before.indptr[:-1] - bonds,  # minus the reverse bonds that are removed
    }
    return {
        "molecule": batch.batch.to(torch.long),
        **{name: getattr(batch, name) for name in names},
        **{name: torch.from_numpy(numbers.astype(np.int64)) for name, numbers in lists.items()},
    }
