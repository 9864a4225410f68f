"""Groups: training rows that must share a fold, and the molecules that are alike."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator
from rdkit.Chem.Scaffolds import MurckoScaffold
from rdkit.DataStructs import BulkTanimotoSimilarity, ExplicitBitVect
from rdkit.SimDivFilters.rdSimDivPickers import LeaderPicker

from competition.tables import INPUT_KEY
from folds.config import FoldsConfig


def groups_of(config: FoldsConfig, rows: pd.DataFrame, smiles: list[str], group: str | None) -> NDArray[np.int64]:
    """Group of each row of the prepared training table, (n_rows,), from 0 up without a gap.

    Rows with the same whole input are one group, and so are rows of one `competition.group`, scaffold or cluster where
    the kind asks for it, and all that these tie together. Of folds of the user's own nothing more is known.
    """
    labels: list[NDArray] = [rows[INPUT_KEY].to_numpy()]
    if config.kind in ("group", "stratified_group"):
        labels.append(rows[group].to_numpy())
    elif config.kind == "scaffold":
        labels.append(scaffolds(list(rows[smiles[0]]), config.acyclic_alone))
    elif config.kind == "cluster":
        labels.append(clusters(list(rows[smiles[0]]), config.similarity))
    return _joined(labels)


def scaffolds(smiles: list[str], acyclic_alone: bool) -> np.ndarray:
    """Bemis-Murcko scaffold of each molecule, (n_rows,) text. Source: Bemis and Murcko, J. Med. Chem. 1996."""
    found = {text: MurckoScaffold.MurckoScaffoldSmiles(mol=Chem.MolFromSmiles(text)) for text in set(smiles)}
    return np.array([found[text] or (f"acyclic {text}" if acyclic_alone else "acyclic") for text in smiles])


def scaffold_overlap(train: list[str], test: list[str]) -> tuple[float, float, int]:
    """Share of test molecules with rings whose scaffold stands in train, the share that a random split would give
    (training molecules with the scaffold of another one), and the number of test molecules with rings.
    """
    of_train, of_test = (pd.Series(scaffolds(smiles, acyclic_alone=False), dtype=str) for smiles in (train, test))
    of_train, of_test = of_train[of_train != "acyclic"], of_test[of_test != "acyclic"]
    if of_train.empty or of_test.empty:
        return 1.0, 1.0, 0
    return float(of_test.isin(of_train).mean()), float(of_train.duplicated(keep=False).mean()), len(of_test)


def why_scaffolds(train: list[str], test: list[str]) -> str:
    """Why folds should hold out scaffolds, in words; empty where test molecules have those of training molecules."""
    found, at_random, n = scaffold_overlap(train, test)
    if n < 10 or found >= at_random / 2:
        return ""
    return (
        f"{found:.0%} of the test molecules with rings have a scaffold of the training table, and {at_random:.0%} "
        "would in a random split"
    )


def clusters(smiles: list[str], similarity: float) -> NDArray[np.int64]:
    """Cluster of each molecule by its Morgan fingerprint, (n_rows,); it does not depend on the order of rows.

    Sphere exclusion: molecules in the order of their SMILES become centres if none before is as similar as
    `similarity`, and every molecule joins the nearest centre. It needs no matrix of all pairs, as Butina's method does.
    Source: Landrum, "Sphere exclusion clustering with the RDKit", RDKit blog 2020, on its LeaderPicker.
    """
    distinct = sorted(set(smiles))
    prints = [fingerprint(text) for text in distinct]
    centres = [prints[i] for i in LeaderPicker().LazyBitVectorPick(prints, len(prints), 1 - similarity)]
    nearest = {
        text: int(np.argmax(BulkTanimotoSimilarity(bits, centres))) for text, bits in zip(distinct, prints, strict=True)
    }
    return np.array([nearest[text] for text in smiles], dtype=np.int64)


_MORGAN = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)


def fingerprint(smiles: str) -> ExplicitBitVect:
    """Morgan fingerprint of radius 2 in 2048 bits. Source: Rogers and Hahn, JCIM 2010."""
    return _MORGAN.GetFingerprint(Chem.MolFromSmiles(smiles))


def _joined(labels: list[np.ndarray]) -> NDArray[np.int64]:
    """Groups 0..n-1 in which rows with an equal entry in any of the label columns are together."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(labels[0])
    rows, nodes, offset = [], [], n
    for column in labels:
        codes, names = pd.factorize(column)
        rows.append(np.arange(n))
        nodes.append(codes + offset)
        offset += len(names)
    ends = (np.concatenate(rows), np.concatenate(nodes))
    edges = coo_matrix((np.ones(n * len(labels)), ends), shape=(offset, offset))
    return pd.factorize(connected_components(edges, directed=False)[1][:n])[0].astype(np.int64)
