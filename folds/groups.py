"""Groups: training rows that must share a fold, and the molecules that are alike."""

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator
from rdkit.Chem.Scaffolds import MurckoScaffold
from rdkit.DataStructs import BulkTanimotoSimilarity, ExplicitBitVect
from rdkit.SimDivFilters.rdSimDivPickers import LeaderPicker

from competition.config import CompetitionConfig
from competition.tables import INPUT_KEY
from competition.types import Integers
from folds.config import FoldsConfig

_MORGAN = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)


def groups_of(config: FoldsConfig, rows: pd.DataFrame, competition: CompetitionConfig) -> Integers:
    """Group of each row of the prepared training table, (n_rows,), from 0 up without a gap.

    Rows with the same whole input are one group, and so are rows of one `competition.group`, scaffold or cluster where
    the kind asks for it, and all that these tie together. Of folds of the user's own nothing more is known.
    """
    inputs: Any = pd.factorize(rows[INPUT_KEY])[0]
    if config.kind in ("group", "stratified_group"):
        labels: Any = rows[competition.group]
    elif config.kind == "scaffold":
        labels = scaffolds(list(rows[competition.smiles[0]]))
    elif config.kind == "cluster":
        labels = clusters(list(rows[competition.smiles[0]]), config.similarity)
    else:
        return inputs
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(rows)
    edges = coo_matrix((np.ones(n), (inputs, n + pd.factorize(labels)[0])), shape=(2 * n, 2 * n))
    return pd.factorize(connected_components(edges, directed=False)[1][inputs])[0]


scaffold = cache(MurckoScaffold.MurckoScaffoldSmiles)  # a run divides its rows twice, and this is most of it


def scaffolds(smiles: list[str]) -> pd.Series:
    """Bemis-Murcko scaffold of each molecule, or `acyclic SMILES` of one without a ring, (n_rows,) text.

    Source: Bemis and Murcko, J. Med. Chem. 1996.
    """
    return pd.Series([scaffold(text) or f"acyclic {text}" for text in smiles], dtype=str)


def why_scaffolds(train: list[str], test: list[str]) -> str:
    """Why folds should hold out scaffolds, in words; empty where test molecules have those of training molecules.

    That is, of those with rings, at least half as many as in a random split, which has the share of training molecules
    whose scaffold another one has.
    """
    of_train, of_test = (names[~names.str.startswith("acyclic")] for names in map(scaffolds, (train, test)))
    found, at_random = of_test.isin(of_train).mean(), of_train.duplicated(keep=False).mean()
    if len(of_test) < 10 or not found < at_random / 2:
        return ""
    return (
        f"{found:.0%} of the test molecules with rings have a scaffold of the training table, and {at_random:.0%} "
        "would in a random split"
    )


def clusters(smiles: list[str], similarity: float) -> Integers:
    """Cluster of each molecule by its Morgan fingerprint, (n_rows,); it does not depend on the order of rows.

    Sphere exclusion: molecules in the order of their SMILES become centres if none before is as similar as
    `similarity`, and every molecule joins the nearest centre. It needs no matrix of all pairs, as Butina's method does.
    Source: Landrum, "Sphere exclusion clustering with the RDKit", RDKit blog 2020, on its LeaderPicker.
    """
    prints = {text: fingerprint(text) for text in sorted(set(smiles))}
    bits = list(prints.values())
    centres = [bits[i] for i in LeaderPicker().LazyBitVectorPick(bits, len(bits), 1 - similarity)]
    nearest = {text: int(np.argmax(BulkTanimotoSimilarity(own, centres))) for text, own in prints.items()}
    return np.array([nearest[text] for text in smiles], dtype=np.int64)


def fingerprint(smiles: str) -> ExplicitBitVect:
    """Morgan fingerprint of radius 2 in 2048 bits. Source: Rogers and Hahn, JCIM 2010."""
    return _MORGAN.GetFingerprint(Chem.MolFromSmiles(smiles))
