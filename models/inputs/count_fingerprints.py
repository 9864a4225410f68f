"""Unfolded count fingerprints of molecules, cached on disk, and the MinMax kernel between them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator
from scipy import sparse

from models.inputs.cache import Array, Cache

GENERATORS: dict[str, Any] = {
    # Circular environments up to radius 2, with chirality. Source: Rogers and Hahn, JCIM 2010.
    "ecfp4": rdFingerprintGenerator.GetMorganGenerator(radius=2, includeChirality=True),
    # Pairs of atoms with their distance in bonds. Source: Carhart et al., JCICS 1985.
    "atom_pairs": rdFingerprintGenerator.GetAtomPairGenerator(),
    # Circular environments of donors, acceptors, aromatic, halogen, basic and acidic atoms.
    "fcfp4": rdFingerprintGenerator.GetMorganGenerator(
        radius=2, atomInvariantsGenerator=rdFingerprintGenerator.GetMorganFeatureAtomInvGen()
    ),
}
"""Name in the settings -> generator of RDKit. Unfolded: every environment has its own count."""
BASE = 2**16
"""An id of 32 bits is stored as two numbers below this, which float32 represents exactly."""
FREQUENT = 0.1
"""Share of the molecules above which an environment is a column of a dense product, which is faster."""
BLOCK_ROWS = 1000
"""Number of rows of a kernel that are computed at a time."""


@dataclass(frozen=True)
class CountFingerprints:
    """Unfolded count fingerprints of n molecules.

    Attributes:
        starts: (n + 1,) molecule i has the entries from starts[i] to starts[i + 1].
        ids: (n_entries,) ids of environments, below 2^32.
        counts: (n_entries,) how often the molecule contains each.
    """

    starts: NDArray[np.int64]
    ids: NDArray[np.int64]
    counts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def take(self, start: int, stop: int) -> "CountFingerprints":
        """Return molecules `start` to `stop`."""
        entries = slice(self.starts[start], self.starts[stop])
        starts = self.starts[start : stop + 1] - self.starts[start]
        return CountFingerprints(starts, self.ids[entries], self.counts[entries])

    def totals(self) -> NDArray[np.float64]:
        """Return the sum of the counts of each molecule, (n,)."""
        return np.diff(np.append(0, np.cumsum(self.counts))[self.starts]).astype(np.float64)

    def levels(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return molecule and key of each level: an environment with count 3 has the levels 1, 2 and 3."""
        molecules = np.repeat(np.arange(len(self)), np.diff(self.starts))
        ends = np.cumsum(self.counts)
        level = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - self.counts, self.counts)
        return np.repeat(molecules, self.counts), np.repeat(self.ids, self.counts) * BASE + level


def fingerprint_cache(name: str, root: Path) -> Cache:
    """Return the cache of a fingerprint of `GENERATORS`.

    Its arrays are (n_environments, 3): the id divided by `BASE`, the remainder, and the count.
    """
    return Cache(root, name, {}, partial(_compute, name))


def load_fingerprints(cache: Cache, smiles: Iterable[str]) -> CountFingerprints:
    """Return the fingerprints of canonical SMILES from the cache of `fingerprint_cache`, in their order."""
    arrays = cache.load(smiles)
    entries = np.concatenate([np.empty((0, 3)), *arrays]).astype(np.int64)
    starts = np.cumsum([0, *map(len, arrays)])
    return CountFingerprints(starts, entries[:, 0] * BASE + entries[:, 1], entries[:, 2])


def minmax_kernel(left: CountFingerprints, right: CountFingerprints) -> NDArray[np.float64]:
    """Return the sum of minima divided by the sum of maxima of the counts, (n_left, n_right).

    It is 1 for two molecules without any environment. The sum of minima is a product of matrices of levels:
    min(a, b) is the number of levels t with a >= t and b >= t.
    Source: Ralaivola et al., Graph kernels for chemical informatics, Neural Networks 2005.
    """
    columns = np.unique(right.levels()[1])
    right_levels = _level_matrix(right, columns)
    is_frequent = np.diff(right_levels.tocsc().indptr) > FREQUENT * len(right)
    dense = right_levels[:, is_frequent].toarray().T
    rare = right_levels[:, ~is_frequent].T.tocsr()
    right_totals = right.totals()
    kernel = np.empty((len(left), len(right)))
    for start in range(0, len(left), BLOCK_ROWS):
        block = left.take(start, min(start + BLOCK_ROWS, len(left)))
        levels = _level_matrix(block, columns)
        minima = levels[:, is_frequent].toarray() @ dense + (levels[:, ~is_frequent] @ rare).toarray()
        maxima = block.totals()[:, None] + right_totals - minima
        kernel[start : start + len(block)] = np.divide(
            minima, maxima, out=np.ones_like(maxima), where=maxima > 0
        )
    return kernel


def _level_matrix(fingerprints: CountFingerprints, columns: NDArray[np.int64]) -> sparse.csr_matrix:
    """Return which molecule has which of some sorted levels, (n, n_columns), 0 or 1."""
    molecules, keys = fingerprints.levels()
    positions = np.searchsorted(columns, keys)
    is_known = positions < len(columns)
    is_known[is_known] = columns[positions[is_known]] == keys[is_known]
    entries = (molecules[is_known], positions[is_known])
    shape = (len(fingerprints), len(columns))
    return sparse.csr_matrix((np.ones(is_known.sum(), dtype=np.float32), entries), shape=shape)


def _compute(name: str, smiles: Sequence[str]) -> list[Array]:
    arrays = list[Array]()
    for text in smiles:
        counts = GENERATORS[name].GetSparseCountFingerprint(Chem.MolFromSmiles(text)).GetNonzeroElements()
        entries = [(key // BASE, key % BASE, count) for key, count in sorted(counts.items())]
        arrays.append(np.array(entries, dtype=np.float32).reshape(-1, 3))
    return arrays
