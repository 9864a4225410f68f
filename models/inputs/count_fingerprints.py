"""Unfolded count fingerprints of molecules, cached on disk, and the MinMax kernel between them."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator
from scipy import sparse

from competition.molecules import is_large
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


def fingerprint_cache(name: str, root: Path) -> Cache:
    """Return the cache of a fingerprint of `GENERATORS`.

    Its arrays are (n_environments, 3): the id divided by `BASE`, the remainder, and the count.
    """
    return Cache(root, name, {}, partial(_compute, name))


def load_fingerprints(cache: Cache, smiles: Iterable[str]) -> sparse.csr_array:
    """Return how often each molecule contains each environment, (n_molecules, 2^32).

    Args:
        cache: cache of `fingerprint_cache`.
        smiles: canonical SMILES.
    """
    arrays = cache.load(smiles)
    entries = np.concatenate([np.empty((0, 3)), *arrays]).astype(np.int64)
    starts = np.cumsum([0, *map(len, arrays)])
    ids = entries[:, 0] * BASE + entries[:, 1]
    return sparse.csr_array((entries[:, 2], ids, starts), shape=(len(arrays), BASE**2))


def minmax_kernel(left: sparse.csr_array, right: sparse.csr_array) -> NDArray[np.float64]:
    """Return the sum of minima divided by the sum of maxima of the counts of molecules, (n_left, n_right).

    It is 1 for two molecules without any environment. The sum of minima is a product of matrices of levels:
    min(a, b) is the number of levels t with a >= t and b >= t.
    Source: Ralaivola et al., Graph kernels for chemical informatics, Neural Networks 2005.
    """
    columns = np.unique(_levels(right)[1])
    right_levels = _level_matrix(right, columns)
    is_frequent = np.diff(right_levels.tocsc().indptr) > FREQUENT * right.shape[0]
    dense = right_levels[:, is_frequent].toarray().T
    rare = right_levels[:, ~is_frequent].T.tocsr()
    right_totals = right.sum(axis=1)
    kernel = np.empty((left.shape[0], right.shape[0]))
    for start in range(0, left.shape[0], BLOCK_ROWS):
        block = left[start : start + BLOCK_ROWS]
        levels = _level_matrix(block, columns)
        minima = levels[:, is_frequent].toarray() @ dense + (levels[:, ~is_frequent] @ rare).toarray()
        maxima = block.sum(axis=1)[:, None] + right_totals - minima
        kernel[start : start + BLOCK_ROWS] = np.divide(
            minima, maxima, out=np.ones_like(maxima), where=maxima > 0
        )
    return kernel


def _levels(fingerprints: sparse.csr_array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return molecule and key of each level: an environment with count 3 has the levels 1, 2 and 3."""
    counts = fingerprints.data
    molecules = np.repeat(np.arange(fingerprints.shape[0]), np.diff(fingerprints.indptr))
    ends = np.cumsum(counts)
    level = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
    return np.repeat(molecules, counts), np.repeat(fingerprints.indices, counts) * BASE + level


def _level_matrix(fingerprints: sparse.csr_array, columns: NDArray[np.int64]) -> sparse.csr_matrix:
    """Return which molecule has which of some sorted levels, (n, n_columns), 0 or 1."""
    molecules, keys = _levels(fingerprints)
    positions = np.searchsorted(columns, keys)
    is_known = positions < len(columns)
    is_known[is_known] = columns[positions[is_known]] == keys[is_known]
    entries = (molecules[is_known], positions[is_known])
    shape = (fingerprints.shape[0], len(columns))
    return sparse.csr_matrix((np.ones(is_known.sum(), dtype=np.float32), entries), shape=shape)


def _compute(name: str, smiles: Sequence[str]) -> list[Array]:
    arrays = list[Array]()
    for text in smiles:
        molecule = Chem.MolFromSmiles(text)
        is_slow = name == "atom_pairs" and is_large(text)  # 28 s for 2,500 atoms; it then has no pairs
        counts = {} if is_slow else GENERATORS[name].GetSparseCountFingerprint(molecule).GetNonzeroElements()
        entries = [(key // BASE, key % BASE, count) for key, count in sorted(counts.items())]
        arrays.append(np.array(entries, dtype=np.float32).reshape(-1, 3))
    return arrays
