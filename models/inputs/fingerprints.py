"""Features of molecules, cached on disk: fingerprints and descriptors of fixed length, and unfolded counts.

Also the MinMax kernel between unfolded counts.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Avalon import pyAvalonTools
from rdkit.Chem import MACCSkeys, rdFingerprintGenerator, rdReducedGraphs

from competition.descriptors import descriptors
from competition.molecules import is_large
from core.errors import DataError
from models.inputs.cache import Array, Cache

MAPLIGHT = ("morgan", "avalon", "erg", "descriptors")
"""Features of MapLight, the best public recipe for trees on ADMET data. Source: Notwell and Wood,
arXiv 2310.00174."""
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
"""Name in the settings -> generator of RDKit. Unfolded: every environment has a separate count."""
BASE = 2**16
"""An id of 32 bits is stored as two numbers below this, which float32 represents exactly."""
FREQUENT = 0.1
"""Share of the molecules above which an environment is a column of a dense product, which is faster."""
BLOCK_ROWS = 1000
"""Number of rows of a kernel that are computed at a time."""


def morgan(molecule: Chem.Mol, n_bits: int) -> NDArray:
    """Return counts of circular environments up to radius 2, (n_bits,). Source: Rogers and Hahn,
    JCIM 2010.
    """
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=n_bits)
    return generator.GetCountFingerprintAsNumPy(molecule)


def unfolded(name: str, molecule: Chem.Mol, n_bits: int) -> NDArray:
    """Return how often a molecule contains each of its environments, (n_environments, 3).

    The columns are the id divided by `BASE`, the remainder, and the count.
    """
    counts = GENERATORS[name].GetSparseCountFingerprint(molecule).GetNonzeroElements()
    entries = [(key // BASE, key % BASE, count) for key, count in sorted(counts.items())]
    return np.array(entries).reshape(-1, 3)


FEATURES: dict[str, Callable[[Chem.Mol, int], NDArray]] = {
    "morgan": morgan,
    # Counts of Avalon's atom, bond, path and ring features. Source: Gedeck et al., JCIM 2006.
    "avalon": lambda molecule, n_bits: np.array(pyAvalonTools.GetAvalonCountFP(molecule, n_bits).ToList()),
    # Pairs of pharmacophore points by their distance, (315,). Source: Stiefl et al., ErG, JCIM 2006.
    "erg": lambda molecule, n_bits: rdReducedGraphs.GetErGFingerprint(molecule),
    # The public MACCS keys, 0 or 1, (167,). Source: Durant et al., JCICS 2002.
    "maccs": lambda molecule, n_bits: np.array(MACCSkeys.GenMACCSKeys(molecule)),
    "descriptors": descriptors,
    **{name: partial(unfolded, name) for name in GENERATORS},
}
"""Name in the settings -> function from a molecule and `n_bits` to its features, (n_features,); for the
names in `GENERATORS`, see `unfolded`."""
NAMES = (*(name for name in FEATURES if name not in GENERATORS), "maplight")
"""Names in the settings of stages; `GENERATORS` has the kernels of a Gaussian process."""
SLOW = ("avalon", "erg", "atom_pairs")
"""Features that are not computed for large molecules: 28 s for the atom pairs of 2,500 atoms. They are then
NaN, as descriptors are, and there are no atom pairs."""


def molecule_features(kinds: Iterable[str], n_bits: int, root: Path) -> list[Cache]:
    """Return one cache per feature, with the arrays of `FEATURES`, in the order of the matrix's columns.

    A row of features is an array (1, n_features).

    Args:
        kinds: names of `FEATURES`, or maplight for all of `MAPLIGHT`. Repeated names count once.
        n_bits: length of the count vectors of morgan and avalon.
        root: folder of all caches.
    """
    names = list[str]()
    for kind in kinds:
        names += MAPLIGHT if kind == "maplight" else (kind,)
    settings = {name: {"n_bits": n_bits} for name in ("morgan", "avalon")}
    return [
        Cache(root, name, settings.get(name, {}), partial(_compute, name, n_bits))
        for name in dict.fromkeys(names)
    ]


def _compute(name: str, n_bits: int, smiles: list[str]) -> list[Array]:
    arrays = list[Array]()
    for text in smiles:
        is_missing = name in SLOW and is_large(text)
        try:
            features = FEATURES[name](Chem.MolFromSmiles("C" if is_missing else text), n_bits)
        except Exception as error:
            raise DataError(f"the feature {name} of {text} fails: {type(error).__name__}: {error}") from error
        array = np.atleast_2d(features).astype(np.float32)
        arrays.append(np.full_like(array, np.nan) if is_missing else array)
    return arrays


def load_fingerprints(cache: Cache, smiles: Iterable[str]) -> Any:
    """Return how often each molecule contains each environment, (n_molecules, 2^32), sparse.

    Args:
        cache: cache of a fingerprint of `GENERATORS`.
        smiles: canonical SMILES.
    """
    from scipy import sparse

    arrays = cache.load(smiles)
    entries = np.concatenate([np.empty((0, 3)), *arrays]).astype(np.int64)
    starts = np.cumsum([0, *map(len, arrays)])
    ids = entries[:, 0] * BASE + entries[:, 1]
    return sparse.csr_array((entries[:, 2], ids, starts), shape=(len(arrays), BASE**2))


def minmax_kernel(left: Any, right: Any) -> NDArray[np.float64]:
    """Return the sum of minima divided by the sum of maxima of the counts of molecules, (n_left, n_right).

    Both are results of `load_fingerprints`, or some of their rows.
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


def _levels(fingerprints: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return molecule and key of each level: an environment with count 3 has the levels 1, 2 and 3."""
    counts = fingerprints.data
    molecules = np.repeat(np.arange(fingerprints.shape[0]), np.diff(fingerprints.indptr))
    ends = np.cumsum(counts)
    level = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
    return np.repeat(molecules, counts), np.repeat(fingerprints.indices, counts) * BASE + level


def _level_matrix(fingerprints: Any, columns: NDArray[np.int64]) -> Any:
    """Return which molecule has which of some sorted levels, (n, n_columns), 0 or 1, sparse."""
    from scipy import sparse

    molecules, keys = _levels(fingerprints)
    positions = pd.Index(columns).get_indexer(pd.Index(keys))
    has_column = positions >= 0
    entries = (molecules[has_column], positions[has_column])
    shape = (fingerprints.shape[0], len(columns))
    return sparse.csr_matrix((np.ones(has_column.sum(), dtype=np.float32), entries), shape=shape)
