"""Groups of molecules: salts and charges removed, scaffolds, and clusters of similar molecules."""

from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Any

import numpy as np
import pandas as pd
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator
from rdkit.Chem.MolStandardize import rdMolStandardize
from rdkit.Chem.SaltRemover import SaltRemover
from rdkit.Chem.Scaffolds import MurckoScaffold
from rdkit.DataStructs import BulkTanimotoSimilarity, ExplicitBitVect
from rdkit.SimDivFilters.rdSimDivPickers import LeaderPicker

from competition.molecules import canonical_smiles, is_large

_MORGAN = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
_SALTS = SaltRemover()
_UNCHARGER = rdMolStandardize.Uncharger()


@cache
def desalted(smiles: str) -> str:
    """Return a canonical SMILES without the salts of RDKit's list, each remaining fragment once.

    Counter-ions, mineral acids and a few organic acids such as acetate, mesylate and tosylate are removed. A
    mixture or an ionic liquid keeps its fragments. A SMILES that has only salts is unchanged.
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


@cache  # slow, and a run needs it several times
def scaffold(smiles: str) -> str:
    """Return the Bemis-Murcko scaffold of a molecule; a large molecule is its own scaffold."""
    return smiles if is_large(smiles) else MurckoScaffold.MurckoScaffoldSmiles(smiles)


def scaffolds(smiles: list[str]) -> pd.Series:
    """Return the Bemis-Murcko scaffold per molecule, (n_rows,) text; `acyclic SMILES` without a ring.

    Source: Bemis and Murcko, J. Med. Chem. 1996.
    """
    return pd.Series([scaffold(text) or f"acyclic {text}" for text in smiles], dtype=str)


def scaffold_shift_reason(train: list[str], test: list[str]) -> str:
    """Return why folds should hold out scaffolds, as text; "" if test molecules share those of the training rows.

    They share them if at least half as many test molecules with rings have a scaffold of the training table
    as in a random split, which is the share of training molecules with a scaffold of another one.
    """
    train_scaffolds, test_scaffolds = (
        names[~names.str.startswith("acyclic")] for names in (scaffolds(train), scaffolds(test))
    )
    shared = test_scaffolds.isin(train_scaffolds).mean()
    at_random = train_scaffolds.duplicated(keep=False).mean()
    if len(test_scaffolds) < 10 or not shared < at_random / 2:
        return ""
    return (
        f"{shared:.0%} of the test molecules with rings have a scaffold of the training table, and "
        f"{at_random:.0%} would in a random split"
    )


def clusters(smiles: list[str], similarity: float, n_in_folds: int | None = None) -> Any:
    """Return the centre of each molecule's cluster, (n_rows,) SMILES; it does not depend on the order of
    rows.

    This is sphere exclusion: in the order of SMILES, a molecule becomes a centre unless its similarity to an
    earlier centre is at least `similarity`. Every molecule joins the nearest centre. Butina's method would need
    a matrix of all pairs.

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
    """Return the Morgan fingerprint of radius 2 in 2048 bits. Source: Rogers and Hahn, JCIM 2010."""
    return _MORGAN.GetFingerprint(Chem.MolFromSmiles(smiles))
