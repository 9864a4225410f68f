"""Features of molecules for trees: Morgan counts and RDKit's descriptors, cached on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, RDLogger
from rdkit.Chem import Descriptors, rdFingerprintGenerator

from models.cache import MoleculeCache

RDLogger.DisableLog("rdApp.*")  # a descriptor that fails is NaN, which trees take

LARGEST = 1e6  # a descriptor such as Ipc grows without bound and would be infinite as float32


def molecule_features(kinds: list[str], n_bits: int, root: Path) -> list[MoleculeCache]:
    """Caches of the features, each giving arrays (1, n_features); their order is that of the matrix's columns."""
    return [
        MoleculeCache(root, "morgan", {"n_bits": n_bits, "radius": 2}, lambda smiles: (morgan(smiles, n_bits), "ok"))
        if kind == "morgan"
        else MoleculeCache(root, "descriptors", {"largest": LARGEST}, lambda smiles: (descriptors(smiles), "ok"))
        for kind in kinds
    ]


def morgan(smiles: str, n_bits: int) -> NDArray[np.float32]:
    """Counts of circular environments up to radius 2, (1, n_bits). Source: Rogers and Hahn, JCIM 2010."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=n_bits)
    return generator.GetCountFingerprintAsNumPy(Chem.MolFromSmiles(smiles)).astype(np.float32)[None]


def descriptors(smiles: str) -> NDArray[np.float32]:
    """All of RDKit's descriptors, (1, n_descriptors); NaN where one is not defined, cut at +-1e6."""
    molecule = Chem.MolFromSmiles(smiles)
    values = Descriptors.CalcMolDescriptors(molecule, missingVal=np.nan, silent=True).values()
    return np.clip(np.array(list(values), dtype=np.float64), -LARGEST, LARGEST).astype(np.float32)[None]
