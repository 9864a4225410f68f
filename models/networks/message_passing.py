"""Message passing on molecular graphs: chemprop's network, its weights, and batches of graphs.

The vector of a directed bond after a step depends on its surroundings up to that many bonds away, and most
surroundings occur many times in a batch: in drug-like molecules an eighth of the bonds have different ones
before the second step, and a third before the third. So each distinct one is computed once, which changes
neither outputs nor gradients except for rounding.

Sources: Sourek et al., Lossless Compression of Structured Convolutional Models via Lifting, ICLR 2021; Bollen
et al., Learning Graph Neural Networks using Exact Compression, arXiv 2304.14793.
"""

import functools
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rdkit import Chem
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from core.errors import ConfigError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations in the imports of chemprop
    from chemprop.data import BatchMolGraph, MolGraph
    from chemprop.featurizers import SimpleMoleculeMolGraphFeaturizer
    from chemprop.nn import BondMessagePassing

Keys = NDArray[np.uint64]
MAX_GRAPHS = 10_000
"""Number of graphs of molecules that a worker keeps for the next fold, about 15 kB each."""
PART = "message_passing"
"""Name of message passing in a model of chemprop."""
SHAPE_NAMES = ("d_v", "d_e", "d_h", "depth", "bias", "undirected", "activation")


class MoleculeGraph(NamedTuple):
    """A molecule as chemprop reads it, and what the vectors of its bonds and atoms depend on.

    Attributes:
        graph: chemprop's graph.
        bond_keys: (depth, n_bonds), a key of the surroundings of each directed bond at each step.
        atom_keys: (n_atoms,), a key of the surroundings of each atom after all steps.
    """

    graph: MolGraph
    bond_keys: Keys
    atom_keys: Keys


class Messages(BondMessagePassing):
    """Message passing with the weights and the results of chemprop's, for a batch of `collate`.

    Sums are in float32, also under autocast.
    """

    def forward(self, graph: Mapping[str, Tensor]) -> Tensor:
        """Return vectors of the distinct atoms, (n_distinct, width); `graph["atom"]` maps atoms to rows."""
        initial = self.W_i(graph["bonds"])
        H = self.tau(initial)
        for step in range(1, self.depth):
            if self.undirected:
                H = (H + H[graph["reverse"]]) / 2
            message = sum_lists(H, graph[f"before_{step}"], graph[f"before_starts_{step}"])
            H = self.update(message, initial.index_select(0, graph[f"initial_{step}"]))
        message = sum_lists(H, graph["into"], graph["into_starts"])
        return self.finalize(message, graph["atoms"], None)


class GnnBackbone(nn.Module):
    """Message passing, aggregation over atoms, one hidden layer: a batch to (n_rows, hidden_width)."""

    head_parts = ("hidden",)
    """Modules that are trained at the learning rate of the head."""

    def __init__(
        self,
        message_passing: nn.Module,
        width: int,
        aggregation: list[str],
        hidden_width: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.message_passing = message_passing
        self.aggregation = aggregation
        self.width = hidden_width
        self.hidden = nn.Sequential(
            nn.Linear(width * len(aggregation), hidden_width), nn.ReLU(), nn.Dropout(dropout)
        )

    def forward(self, **graph: Tensor) -> Tensor:
        """Return features (n_rows, hidden_width) of a batch of `collate`."""
        return self.hidden(pool_atoms(self.message_passing(graph), graph, self.aggregation))


def pool_atoms(vectors: Tensor, graph: Mapping[str, Tensor], aggregation: list[str]) -> Tensor:
    """Return what is made of the atoms of each molecule, side by side, (n_molecules, n_aggregations * width).

    Args:
        vectors: (n_different, width), of the different atoms.
        aggregation: mean, sum, or norm, which is a tenth of the sum.
    """
    total = sum_lists(vectors, graph["atom"], graph["molecule_starts"])
    pooled = {"mean": total / graph["n_atoms"][:, None], "sum": total, "norm": total / 10}
    return torch.cat([pooled[name] for name in aggregation], dim=1)


def sum_lists(vectors: Tensor, members: Tensor, starts: Tensor) -> Tensor:
    """Return sums of vectors in float32, (n_lists, width), in one pass over memory.

    Args:
        vectors: (n_vectors, width).
        members: positions of the vectors of all lists, list after list.
        starts: (n_lists,), position in `members` of the first member of each list.
    """
    return embedding_bag(members, vectors.float(), starts, mode="sum")


@functools.lru_cache(maxsize=MAX_GRAPHS)
def graph_of(smiles: str, depth: int) -> MoleculeGraph:
    """Return the graph of a molecule with chemprop's features of atoms and bonds.

    Args:
        depth: number of steps of the message passing.
    """
    graph = SimpleMoleculeMolGraphFeaturizer()(Chem.MolFromSmiles(smiles))
    return MoleculeGraph(graph, *surroundings(graph, depth))


def surroundings(graph: MolGraph, depth: int) -> tuple[Keys, Keys]:
    """Return keys of directed bonds (depth, n_bonds) and of atoms (n_atoms,); equal keys have equal vectors.

    The key of a bond is made from its features, the features of its first atom, and the keys of the step
    before of all bonds into its first atom except its reverse: colour refinement, with 64-bit hashes for
    colours.
    """
    source, target = graph.edge_index
    atoms = hash_rows(graph.V)
    first = scramble(atoms[source] + scramble(hash_rows(graph.E)))
    bonds = [first]
    for _ in range(1, depth):
        sent = scramble(bonds[-1])
        others = sums_into(sent, target, len(atoms))[source] - sent[graph.rev_edge_index]
        bonds.append(scramble(first + scramble(others)))
    return np.stack(bonds), scramble(atoms + scramble(sums_into(scramble(bonds[-1]), target, len(atoms))))


def sums_into(keys: Keys, target: NDArray[np.integer[Any]], n_atoms: int) -> Keys:
    """Return for each atom the sum of the keys of the bonds that end there, (n_atoms,)."""
    sums = np.zeros(n_atoms, dtype=np.uint64)
    np.add.at(sums, target, keys)
    return sums


def hash_rows(table: NDArray[np.floating[Any]]) -> Keys:
    """Return a hash of each row of numbers, (n_rows,)."""
    numbers = np.ascontiguousarray(table, dtype=np.float64).view(np.uint64)
    columns = scramble(np.arange(numbers.shape[1], dtype=np.uint64))
    return scramble(numbers + columns).sum(axis=1, dtype=np.uint64)


def scramble(keys: Keys) -> Keys:
    """Return hashes of 64-bit integers: the last step of SplitMix64 (Steele et al., OOPSLA 2014)."""
    keys = keys + np.uint64(0x9E3779B97F4A7C15)
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


class Inert:
    """An object in a file of weights, which is read without the code of its class."""

    def __init__(self, *values: Any) -> None:
        """Ignore the arguments of the class."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a file of torch; none of its code is executed, since objects become `Inert`."""
    classes: list[Any] = [(OrderedDict, "lightning.fabric.utilities.data.AttributeDict")]
    for name in torch.serialization.get_unsafe_globals_in_checkpoint(path):
        if name != classes[0][1]:
            classes.append((type(name.rpartition(".")[2], (Inert,), {}), name))
    with torch.serialization.safe_globals(classes):
        return dict(torch.load(path, map_location="cpu", weights_only=True))


def read_message_passing(path: Path) -> tuple[dict[str, Any], Messages]:
    """Load message passing that chemprop or CheMeleon saved, alone or in a model of chemprop.

    Returns:
        Its hyperparameters and network.

    Source of CheMeleon: Burns et al., Deep Learning Foundation Models from Classical Molecular
    Descriptors, arXiv 2506.15792.
    """
    try:
        content = read_checkpoint(path)
        saved = content["hyper_parameters"]
        state = content["state_dict"]
        if PART in saved:
            saved = saved[PART]
            state = {
                name.removeprefix(f"{PART}."): state[name] for name in state if name.startswith(f"{PART}.W")
            }
        shape = {name: saved[name] for name in SHAPE_NAMES if saved.get(name) is not None}
        if isinstance(shape.get("activation"), Inert):
            shape["activation"] = type(shape["activation"]).__name__.lower()
        network = Messages(**shape)
        network.load_state_dict(state)
        shape["depth"] = network.depth
    except Exception as error:  # torch, pickle and chemprop raise many types of errors for other files
        raise ConfigError(
            f"{path} does not contain the hyper_parameters and the state_dict of a BondMessagePassing of "
            f"chemprop: {error}. Use chemeleon, or a file that chemprop saved."
        ) from None
    return shape, network


def collate(graphs: list[MoleculeGraph], shared: bool = True) -> dict[str, Tensor]:
    """Return a batch of molecular graphs as the argument of `Messages.forward` and `pool_atoms`.

    - bonds: features of the different bonds with their first atom.
    - before_<step>, before_starts_<step>: for each vector of a step, the vectors of the step before that it
      sums, as a concatenated list and the starts of its parts.
    - initial_<step>: for each vector of a step, its row in `bonds`.
    - into, into_starts: for each different atom, the vectors of the last step of the bonds that end there.
    - atoms: features of the different atoms; atom: (n_atoms,) their row for each atom.
    - n_atoms, molecule_starts: (n_molecules,), number of atoms of each molecule, and position of its first
      one.
    - reverse: if nothing is shared, the bond in the other direction of each bond.

    Args:
        shared: whether equal surroundings are computed once. With dropout they would share a mask; and
            vectors of undirected message passing also depend on the reverse bond.
    """
    batch = BatchMolGraph([each.graph for each in graphs])
    source, target = batch.edge_index.numpy()
    reverse = batch.rev_edge_index.numpy()
    bonds = np.arange(len(target))
    into = csr_array((bonds, (target, bonds)), shape=(len(batch.V), len(bonds)))
    n_atoms = np.array([len(each.graph.V) for each in graphs])
    tensors: dict[str, Tensor] = {}
    positions: dict[str, NDArray[Any]] = {"n_atoms": n_atoms, "molecule_starts": n_atoms.cumsum() - n_atoms}
    bond_keys = np.concatenate([each.bond_keys for each in graphs], axis=1)
    atom_keys = np.concatenate([each.atom_keys for each in graphs])
    if not shared:
        bond_keys = np.broadcast_to(bonds.astype(np.uint64), bond_keys.shape)
        atom_keys = np.arange(len(atom_keys), dtype=np.uint64)
        tensors["reverse"] = batch.rev_edge_index

    _, chosen, first = np.unique(bond_keys[0], return_index=True, return_inverse=True)
    tensors["bonds"] = torch.cat([batch.V[source[chosen]], batch.E[chosen]], dim=1)
    row = first
    for step, keys in enumerate(bond_keys[1:], start=1):
        _, chosen, next_row = np.unique(keys, return_index=True, return_inverse=True)
        before = into[source[chosen]]
        is_reverse = before.indices == np.repeat(reverse[chosen], np.diff(before.indptr))
        positions[f"before_{step}"] = row[before.indices[~is_reverse]]
        # minus the reverse bonds that are left out
        positions[f"before_starts_{step}"] = before.indptr[:-1] - np.arange(len(chosen))
        positions[f"initial_{step}"] = first[chosen]
        row = next_row

    _, chosen, atom = np.unique(atom_keys, return_index=True, return_inverse=True)
    ending = into[chosen]
    positions |= {"into": row[ending.indices], "into_starts": ending.indptr[:-1], "atom": atom}
    tensors["atoms"] = batch.V[chosen]
    return tensors | {name: torch.from_numpy(array.astype(np.int64)) for name, array in positions.items()}
