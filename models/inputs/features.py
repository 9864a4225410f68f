"""Features of molecules for trees and kernels: fingerprints and RDKit's descriptors, cached on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, RDLogger
from rdkit.Avalon import pyAvalonTools
from rdkit.Chem import Descriptors, MACCSkeys, rdFingerprintGenerator, rdReducedGraphs
from rdkit.DataStructs import ConvertToNumpyArray

from models.inputs.cache import MoleculeCache

RDLogger.DisableLog("rdApp.*")  # a descriptor that fails is NaN, which trees take

LARGEST = 1e6  # a descriptor such as Ipc grows without bound and would be infinite as float32
MAPLIGHT = ("morgan", "avalon", "erg", "descriptors")
"""Features of MapLight, the best public recipe for trees on ADMET data. Source: Notwell and Wood, arXiv 2310.00174."""


def molecule_features(kinds: list[str], n_bits: int, root: Path) -> list[MoleculeCache]:
    """Caches of the features, each giving arrays (1, n_features); their order is that of the matrix's columns.

    Args:
        kinds: morgan, avalon, erg, maccs, descriptors, or maplight for those of `MAPLIGHT`; one named twice is one.
        n_bits: length of the count vectors morgan and avalon.
        root: folder of all caches.
    """
    known: dict[str, tuple[dict[str, Any], Callable[[str], NDArray[np.float32]]]] = {
        "morgan": ({"n_bits": n_bits, "radius": 2}, lambda smiles: morgan(smiles, n_bits)),
        "avalon": ({"n_bits": n_bits}, lambda smiles: avalon(smiles, n_bits)),
        "erg": ({}, erg),
        "maccs": ({}, maccs),
        "descriptors": ({"largest": LARGEST}, descriptors),
    }
    names = [name for kind in kinds for name in (MAPLIGHT if kind == "maplight" else (kind,))]
    return [_cache(root, name, *known[name]) for name in dict.fromkeys(names)]


def _cache(
    root: Path, name: str, settings: dict[str, Any], compute: Callable[[str], NDArray[np.float32]]
) -> MoleculeCache:
    return MoleculeCache(root, name, settings, lambda smiles: (compute(smiles), "ok"))


def morgan(smiles: str, n_bits: int) -> NDArray[np.float32]:
    """Counts of circular environments up to radius 2, (1, n_bits). Source: Rogers and Hahn, JCIM 2010."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=n_bits)
    return generator.GetCountFingerprintAsNumPy(Chem.MolFromSmiles(smiles)).astype(np.float32)[None]


def avalon(smiles: str, n_bits: int) -> NDArray[np.float32]:
    """Counts of Avalon's atom, bond, path and ring features, (1, n_bits). Source: Gedeck et al., JCIM 2006."""
    counts = np.zeros(n_bits, dtype=np.float32)
    ConvertToNumpyArray(pyAvalonTools.GetAvalonCountFP(Chem.MolFromSmiles(smiles), n_bits), counts)
    return counts[None]


def erg(smiles: str) -> NDArray[np.float32]:
    """Pairs of pharmacophore points by their distance, (1, 315). Source: Stiefl et al., ErG, JCIM 2006."""
    return rdReducedGraphs.GetErGFingerprint(Chem.MolFromSmiles(smiles)).astype(np.float32)[None]


def maccs(smiles: str) -> NDArray[np.float32]:
    """The public MACCS keys, 0 or 1, (1, 167). Source: Durant et al., JCICS 2002."""
    return np.array(MACCSkeys.GenMACCSKeys(Chem.MolFromSmiles(smiles)), dtype=np.float32)[None]


def descriptors(smiles: str) -> NDArray[np.float32]:
    """All of RDKit's descriptors, (1, n_descriptors); NaN where one is not defined, cut at +-1e6."""
    molecule = Chem.MolFromSmiles(smiles)
    values = Descriptors.CalcMolDescriptors(molecule, missingVal=np.nan, silent=True).values()
    return np.clip(np.array(list(values), dtype=np.float64), -LARGEST, LARGEST).astype(np.float32)[None]
