"""Features of molecules, which are cached on disk: fingerprints and RDKit descriptors."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Avalon import pyAvalonTools
from rdkit.Chem import MACCSkeys, rdReducedGraphs
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

from competition.descriptors import descriptors
from competition.molecules import is_large
from core.code_digest import code_digest_of
from models.context import Context
from models.inputs.cache import Array, Cache
from models.stage import Stage

MAPLIGHT = ("morgan", "avalon", "erg", "descriptors")
"""Features of MapLight, the best public recipe for trees on ADMET data. Source: Notwell and Wood,
arXiv 2310.00174."""


def morgan(molecule: Chem.Mol, n_bits: int) -> NDArray:
    """Return counts of circular environments up to radius 2, (n_bits,). Source: Rogers and Hahn,
    JCIM 2010.
    """
    return GetMorganGenerator(radius=2, fpSize=n_bits).GetCountFingerprintAsNumPy(molecule)


FEATURES: dict[str, Callable[[Chem.Mol, int], NDArray]] = {
    "morgan": morgan,
    # Counts of Avalon's atom, bond, path and ring features. Source: Gedeck et al., JCIM 2006.
    "avalon": lambda molecule, n_bits: np.array(pyAvalonTools.GetAvalonCountFP(molecule, n_bits).ToList()),
    # Pairs of pharmacophore points by their distance, (315,). Source: Stiefl et al., ErG, JCIM 2006.
    "erg": lambda molecule, n_bits: rdReducedGraphs.GetErGFingerprint(molecule),
    # The public MACCS keys, 0 or 1, (167,). Source: Durant et al., JCICS 2002.
    "maccs": lambda molecule, n_bits: np.array(MACCSkeys.GenMACCSKeys(molecule)),
    "descriptors": descriptors,
}
"""Name in the settings -> function from a molecule and `n_bits` to its features, (n_features,)."""


def molecule_features(kinds: Iterable[str], n_bits: int, root: Path) -> list[Cache]:
    """Return one cache per feature, with arrays (1, n_features), in the order of the matrix's columns.

    Args:
        kinds: names of `FEATURES`, or maplight for all of `MAPLIGHT`. Repeated names count once.
        n_bits: length of the count vectors of morgan and avalon.
        root: folder of all caches.
    """
    names = list[str]()
    for kind in kinds:
        names += MAPLIGHT if kind == "maplight" else (kind,)
    settings: dict[str, dict[str, Any]] = {name: {"n_bits": n_bits} for name in ("morgan", "avalon")}
    settings["descriptors"] = {"descriptors": code_digest_of(Path(descriptors.__code__.co_filename))}
    return [
        Cache(root, name, settings.get(name, {}), partial(_compute, name, n_bits))
        for name in dict.fromkeys(names)
    ]


def stage_features(config: Stage, context: Context) -> list[Cache]:
    """Return the caches of the molecule features that a stage reads, without frozen encoders.

    The list is empty if the stage reads none, or the competition has no molecule columns.
    """
    if not context.smiles:
        return []
    return molecule_features(config.molecule_feature_names, config.count_bits, context.cache)


def _compute(name: str, n_bits: int, smiles: list[str]) -> list[Array]:
    arrays = list[Array]()
    for text in smiles:
        is_missing = name in ("avalon", "erg") and is_large(text)  # and so is every descriptor
        values = FEATURES[name](Chem.MolFromSmiles("C" if is_missing else text), n_bits).astype(np.float32)
        arrays.append(np.full_like(values, np.nan)[None] if is_missing else values[None])
    return arrays
