"""Features of molecules: fingerprints, RDKit's descriptors and frozen message passing, cached on disk."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Avalon import pyAvalonTools
from rdkit.Chem import Descriptors, MACCSkeys, rdReducedGraphs
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

from models.inputs.cache import Array, Cache
from models.inputs.frozen import encoder_cache
from models.inputs.weights import reads_graphs
from models.settings import Stage
from models.stage import Context

LARGEST = 1e6  # a descriptor such as Ipc grows without bound and would be infinite as float32
MAPLIGHT = ("morgan", "avalon", "erg", "descriptors")
"""Features of MapLight, the best public recipe for trees on ADMET data. Source: Notwell and Wood, arXiv 2310.00174."""
NEURAL_BITS = 1024
"""Length of the count vectors where they join a network or the features of an encoder."""


def morgan(molecule: Chem.Mol, n_bits: int) -> NDArray:
    """Counts of circular environments up to radius 2. Source: Rogers and Hahn, JCIM 2010."""
    return GetMorganGenerator(radius=2, fpSize=n_bits).GetCountFingerprintAsNumPy(molecule)


def descriptors(molecule: Chem.Mol, n_bits: int) -> NDArray:
    """All of RDKit's descriptors; NaN where one is not defined, cut at +-1e6."""
    values = Descriptors.CalcMolDescriptors(molecule, missingVal=np.nan, silent=True).values()
    return np.clip(np.array(list(values), dtype=np.float64), -LARGEST, LARGEST)


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
"""Features of a molecule, (n_features,), by their names in the settings; the number is `n_bits`."""


def molecule_features(kinds: Iterable[str], n_bits: int, root: Path) -> list[Cache]:
    """Caches of the features, each giving arrays (1, n_features), in the order of the matrix's columns.

    `kinds` are names of `FEATURES`, or maplight for those of `MAPLIGHT`; one named twice is one.
    """
    names = dict.fromkeys(name for kind in kinds for name in (MAPLIGHT if kind == "maplight" else (kind,)))
    lengths = {name: {"n_bits": n_bits} for name in ("morgan", "avalon")}
    return [Cache(root, name, lengths.get(name, {}), partial(_computed, name, n_bits)) for name in names]


def stage_features(config: Stage, context: Context) -> list[Cache]:
    """Caches of the features of molecules that a stage reads; none where it reads none, or there are no molecules."""
    kinds = getattr(config, "features", None) or getattr(config, "molecule_features", [])
    n_bits = getattr(config, "n_bits", NEURAL_BITS)
    graphs = [encoder_cache(known, context.cache) for known in config.encoders if reads_graphs(known.weights)]
    own = molecule_features([kind for kind in kinds if isinstance(kind, str)], n_bits, context.cache)
    return [*own, *graphs] if context.smiles else []


def _computed(name: str, n_bits: int, smiles: list[str]) -> list[Array]:
    return [FEATURES[name](Chem.MolFromSmiles(text), n_bits).astype(np.float32)[None] for text in smiles]
