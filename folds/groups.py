"""Groups: keys of rows that must share a fold. They are equal inputs, also if only salts or charges differ,
groups of the table, scaffolds, or clusters of similar molecules.
"""

from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator
from rdkit.Chem.Scaffolds import MurckoScaffold
from rdkit.DataStructs import BulkTanimotoSimilarity, ExplicitBitVect
from rdkit.SimDivFilters.rdSimDivPickers import LeaderPicker

from competition.config import CompetitionConfig
from competition.molecules import is_large, parent
from competition.swap import in_all_orders
from core.types import Integers

RowKeys = Callable[[pd.DataFrame, CompetitionConfig, float, int], list[pd.Series]]
"""Function of prepared rows, the `competition:` section, `folds.similarity` and n_in_folds. It returns lists
of a text per row; rows with equal texts share a fold. The first n_in_folds rows are in folds; the others
(extra or test rows) only get their texts.
"""

_MORGAN = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)


@cache  # slow, and a run needs it several times
def _scaffolds(smiles: str) -> tuple[str, str]:
    """Return the Bemis-Murcko scaffold of a molecule, without and with its stereochemistry.

    The scaffold of a large molecule is its SMILES, and without a ring it is `acyclic SMILES`.
    """
    if is_large(smiles):
        return smiles, smiles
    core = MurckoScaffold.GetScaffoldForMol(Chem.MolFromSmiles(smiles))
    plain = Chem.MolToSmiles(core, isomericSmiles=False)
    return (plain, Chem.MolToSmiles(core)) if plain else (f"acyclic {smiles}",) * 2


def scaffold(smiles: str) -> str:
    """Return the Bemis-Murcko scaffold of a molecule; `acyclic SMILES` without a ring.

    Source: Bemis and Murcko, J. Med. Chem. 1996.
    """
    return _scaffolds(smiles)[0]


def stereo_scaffold(smiles: str) -> str:
    """Return the Bemis-Murcko scaffold of a molecule with its stereochemistry."""
    return _scaffolds(smiles)[1]


def scaffolds(smiles: list[str]) -> pd.Series:
    """Return the Bemis-Murcko scaffold per molecule, (n_rows,) text."""
    return pd.Series(list(map(scaffold, smiles)), dtype=str)


def clusters(smiles: Iterable[str], similarity: float, others: Iterable[str] = ()) -> dict[str, str]:
    """Return molecule -> centre of its cluster; it does not depend on their order.

    This is sphere exclusion: in the order of SMILES, a molecule becomes a centre unless its similarity to an
    earlier centre is at least `similarity`. Every molecule joins the nearest centre. Butina's method would
    need a matrix of all pairs.

    Source: Landrum, "Sphere exclusion clustering with the RDKit", RDKit blog 2020, on its LeaderPicker.

    Args:
        others: more molecules, which join a centre that is at least as similar as `similarity`, or are clustered
            among themselves.
    """
    centre_of = _clusters(tuple(sorted({*smiles})), similarity)
    new = [text for text in dict.fromkeys(others) if text not in centre_of]
    if new:
        nearest = _nearest(new, sorted({*centre_of.values()}))
        far = tuple(sorted(text for text in new if nearest[text][1] < similarity))
        joined = {text: centre for text, (centre, _) in nearest.items()}
        centre_of = centre_of | joined | _clusters(far, similarity)
    return centre_of


@lru_cache(maxsize=4)  # a run asks several times for the same molecules
def _clusters(smiles: tuple[str, ...], similarity: float) -> dict[str, str]:
    """Return the cluster centre of each of some distinct molecules."""
    prints = [fingerprint(text) for text in smiles]
    picked = LeaderPicker().LazyBitVectorPick(prints, len(prints), 1 - similarity) if prints else []
    centres = [smiles[i] for i in picked]
    return {text: centre for text, (centre, _) in _nearest(smiles, centres).items()}


def _nearest(smiles: Iterable[str], centres: list[str]) -> dict[str, tuple[str, float]]:
    """Return the most similar of some centres, with its similarity, for each molecule."""
    prints = [fingerprint(centre) for centre in centres]
    nearest = {}
    for text in smiles:
        similarities = BulkTanimotoSimilarity(fingerprint(text), prints)
        best = int(np.argmax(similarities))
        nearest[text] = centres[best], similarities[best]
    return nearest


def fingerprint(smiles: str) -> ExplicitBitVect:
    """Return the Morgan fingerprint of radius 2 in 2048 bits. Source: Rogers and Hahn, JCIM 2010."""
    return _MORGAN.GetFingerprint(Chem.MolFromSmiles(smiles))


def scaffold_keys(
    rows: pd.DataFrame, competition: CompetitionConfig, similarity: float, n_in_folds: int
) -> list[pd.Series]:
    """Return a key per Murcko scaffold of the columns of `_first_molecules`."""
    return ["scaffold " + scaffolds(molecules) for molecules in _first_molecules(rows, competition)]


def cluster_keys(
    rows: pd.DataFrame, competition: CompetitionConfig, similarity: float, n_in_folds: int
) -> list[pd.Series]:
    """Return a key per cluster of similar molecules of the columns of `_first_molecules`."""
    columns = _first_molecules(rows, competition)
    in_folds = [text for column in columns for text in column[:n_in_folds]]
    others = [text for column in columns for text in column[n_in_folds:]]
    centre_of = clusters(in_folds, similarity, others)
    return ["cluster " + pd.Series(column).map(centre_of) for column in columns]


def _first_molecules(rows: pd.DataFrame, competition: CompetitionConfig) -> list[list[str]]:
    """Return the desalted molecules of the first molecule column, and of those in its place (`competition.swap`)."""
    columns = in_all_orders((competition.smiles[0],), competition.swap)
    return [list(map(parent, rows[column])) for (column,) in columns]


def connected(keys: NDArray[Any]) -> Integers:
    """Return the connected component of each row, (n_rows,), numbered by first appearance.

    Args:
        keys: (n_keys, n_rows).
    """
    if (keys == keys[0]).all():
        return pd.factorize(keys[0])[0]
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n_keys, n = keys.shape
    row_of_key = np.tile(np.arange(n), n_keys)
    key_number = n + pd.factorize(keys.ravel())[0]
    edges = coo_matrix((np.ones(keys.size), (row_of_key, key_number)), shape=[n + keys.size] * 2)
    return pd.factorize(connected_components(edges, directed=False)[1][:n])[0]
