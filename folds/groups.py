"""Groups: training rows that must share a fold, and the molecules that are alike."""

from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator
from rdkit.Chem.MolStandardize import rdMolStandardize
from rdkit.Chem.SaltRemover import SaltRemover
from rdkit.Chem.Scaffolds import MurckoScaffold
from rdkit.DataStructs import BulkTanimotoSimilarity, ExplicitBitVect
from rdkit.SimDivFilters.rdSimDivPickers import LeaderPicker

from competition.clean import input_keys
from competition.config import CompetitionConfig
from competition.dataset import INPUT_KEY
from competition.molecules import canonical_smiles
from competition.types import Integers
from folds.config import FoldsConfig

_MORGAN = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
_SALTS = SaltRemover()
_UNCHARGER = rdMolStandardize.Uncharger()


def compute_groups(config: FoldsConfig, rows: pd.DataFrame, competition: CompetitionConfig) -> Integers:
    """Return the group of each row of the prepared training table, (n_rows,), from 0 up without a gap.

    Rows that are equal in all input columns are one group, also where only salts make their molecules differ.
    So are rows of one `competition.group`, scaffold or cluster if the kind asks for it, and all rows that are
    connected by such pairs. Folds of the user give no more groups than equal inputs.
    """
    return _connected(_keys(config, rows, competition, len(rows)))


def groups_outside_folds(
    config: FoldsConfig,
    rows: pd.DataFrame,
    groups: Integers,
    others: pd.DataFrame,
    competition: CompetitionConfig,
) -> Integers:
    """Return the group of each row of `others`, (n_others,), which are in no fold: extra training rows and
    test rows.

    A row gets the group of the training rows with its `competition.group`, scaffold or cluster, otherwise
    that of the training rows with its inputs, otherwise a new one. The groups of the training rows stay
    unchanged.

    Args:
        rows: prepared training rows with the groups (n_rows,).
        others: prepared rows; an empty or missing `competition.group` belongs to no group.
    """
    n = len(rows)
    keys = _keys(config, pd.concat([rows, others], ignore_index=True), competition, n)
    group_of_key = dict(zip(keys[:, :n].ravel(), np.tile(groups, len(keys)), strict=True))
    joined = pd.Series(np.nan, index=range(len(others)))
    for key in keys[:, n:]:
        joined = joined.fillna(pd.Series(key).map(group_of_key))
    new = joined.isna().to_numpy()
    joined[new] = groups.max() + 1 + _connected(keys[:, n:][:, new])
    return joined.to_numpy().astype(np.int64)


def _keys(
    config: FoldsConfig, rows: pd.DataFrame, competition: CompetitionConfig, n_in_folds: int
) -> NDArray[Any]:
    """Return what ties rows together, (n_keys, n_rows) text: rows that share any key belong together.

    Args:
        rows: prepared rows, of which the first `n_in_folds` are those that folds consist of.
    """
    inputs = rows[INPUT_KEY]
    tables = [
        rows.assign(**{name: rows[name].map(form) for name in competition.smiles})
        for form in (desalted, parent)
    ]
    keys = [inputs, *(_changed_keys(table, rows, competition) for table in tables)]
    if config.kind in ("group", "stratified_group"):
        labels = rows[competition.group].fillna("").astype(str)
        keys.insert(0, ("group " + labels).where(labels != "", inputs))
    elif config.kind == "scaffold":
        keys.insert(0, "scaffold " + scaffolds(list(tables[1][competition.smiles[0]])))
    elif config.kind == "cluster":
        molecules = list(tables[1][competition.smiles[0]])
        keys.insert(0, "cluster " + pd.Series(clusters(molecules, config.similarity, n_in_folds)))
    return np.array(keys, dtype=object)


def _changed_keys(table: pd.DataFrame, rows: pd.DataFrame, competition: CompetitionConfig) -> pd.Series:
    """Return the input keys of rows after their molecules were replaced by those of `table`."""
    keys = rows[INPUT_KEY].copy()
    changed = (table[competition.smiles] != rows[competition.smiles]).any(axis=1)
    if changed.any():
        keys[changed] = input_keys(table[changed], competition)
    return keys


def _connected(keys: NDArray[Any]) -> Integers:
    """Return the connected component of each row, (n_rows,), numbered by first appearance; keys: (n_keys,
    n_rows).
    """
    if (keys == keys[0]).all():
        return pd.factorize(keys[0])[0]
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n_keys, n = keys.shape
    numbers = n + pd.factorize(keys.ravel())[0]
    edges = coo_matrix(
        (np.ones(keys.size), (np.tile(np.arange(n), n_keys), numbers)), shape=[n + keys.size] * 2
    )
    return pd.factorize(connected_components(edges, directed=False)[1][:n])[0]


@cache
def desalted(smiles: str) -> str:
    """Return a canonical SMILES without the salts of RDKit's list, each remaining fragment once.

    Counter-ions, mineral acids and a few organic acids such as acetate, mesylate and tosylate are removed. A
    mixture or an ionic liquid keeps its fragments, and what consists of salts alone stays unchanged.
    """
    if "." not in smiles:
        return smiles
    return _fragments(_SALTS.StripMol(Chem.MolFromSmiles(smiles))) or smiles


@cache
def parent(smiles: str) -> str:
    """Return the neutral form of a desalted molecule, so that a sodium salt equals its acid; others stay
    unchanged.
    """
    if desalted(smiles) == smiles:
        return smiles
    neutral = _fragments(_UNCHARGER.uncharge(Chem.MolFromSmiles(desalted(smiles))))
    return canonical_smiles(neutral) or desalted(smiles)  # a metallocene has no neutral form


def _fragments(molecule: Chem.Mol) -> str:
    return ".".join(sorted(set(Chem.MolToSmiles(molecule).split("."))))


scaffold = cache(MurckoScaffold.MurckoScaffoldSmiles)  # a run divides its rows twice, and this is most of it


def scaffolds(smiles: list[str]) -> pd.Series:
    """Bemis-Murcko scaffold of each molecule, or `acyclic SMILES` of one without a ring, (n_rows,) text.

    Source: Bemis and Murcko, J. Med. Chem. 1996.
    """
    return pd.Series([scaffold(text) or f"acyclic {text}" for text in smiles], dtype=str)


def scaffold_shift_reason(train: list[str], test: list[str]) -> str:
    """Why folds should hold out scaffolds, in words; empty where test molecules have those of training
    molecules.

    That is, of those with rings, at least half as many as in a random split, which has the share of training
    molecules whose scaffold another one has.
    """
    of_train, of_test = (names[~names.str.startswith("acyclic")] for names in map(scaffolds, (train, test)))
    found, at_random = of_test.isin(of_train).mean(), of_train.duplicated(keep=False).mean()
    if len(of_test) < 10 or not found < at_random / 2:
        return ""
    return (
        f"{found:.0%} of the test molecules with rings have a scaffold of the training table, and "
        f"{at_random:.0%} "
        "would in a random split"
    )


def clusters(smiles: list[str], similarity: float, n_in_folds: int | None = None) -> Any:
    """Return the centre of each molecule's cluster, (n_rows,) SMILES; it does not depend on the order of
    rows.

    Sphere exclusion: molecules in the order of their SMILES become centres if none before is as similar as
    `similarity`, and every molecule joins the nearest centre. It needs no matrix of all pairs, as Butina's
    method does.
    Source: Landrum, "Sphere exclusion clustering with the RDKit", RDKit blog 2020, on its LeaderPicker.

    Args:
        n_in_folds: only the first molecules become centres; the others join a centre that is at least as
            similar as `similarity`, or are clustered among themselves.
    """
    centre_of = _clusters(tuple(sorted(set(smiles[:n_in_folds]))), similarity)
    others = [text for text in dict.fromkeys(smiles) if text not in centre_of]
    if others:
        nearest = _nearest(others, sorted(set(centre_of.values())))
        far = tuple(sorted(text for text in others if nearest[text][1] < similarity))
        centre_of = (
            centre_of | {text: centre for text, (centre, _) in nearest.items()} | _clusters(far, similarity)
        )
    return np.array([centre_of[text] for text in smiles], dtype=object)


@lru_cache(maxsize=4)  # a run asks several times for the same molecules
def _clusters(smiles: tuple[str, ...], similarity: float) -> dict[str, str]:
    """Return the cluster centre of each of some distinct molecules."""
    prints = [fingerprint(text) for text in smiles]
    picked = LeaderPicker().LazyBitVectorPick(prints, len(prints), 1 - similarity) if prints else []
    return {text: centre for text, (centre, _) in _nearest(smiles, [smiles[i] for i in picked]).items()}


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
    """Morgan fingerprint of radius 2 in 2048 bits. Source: Rogers and Hahn, JCIM 2010."""
    return _MORGAN.GetFingerprint(Chem.MolFromSmiles(smiles))
