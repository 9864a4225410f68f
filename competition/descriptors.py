"""RDKit's descriptors of molecules, for stages and for the comparison of tables.

This module is not part of `molecules.py`, since RDKit's module takes long to import.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Chem import Descriptors

from competition.molecules import MAX_ATOMS

MAX_DESCRIPTOR = 1e6
"""Absolute value at which descriptors that grow without bound are clipped."""
TOO_SLOW = ("Ipc", "AvgIpc")
"""Descriptors whose time grows with the fourth power of the atoms: 40 s for 880."""
ESTATE = ("MaxAbsEStateIndex", "MaxEStateIndex", "MinAbsEStateIndex", "MinEStateIndex")
"""Descriptors that by default compute the indices of all atoms again."""
DESCRIPTORS: dict[str, Callable[[Chem.Mol], float]] = {
    name: partial(function, force=False) if name in ESTATE else function
    for name, function in Descriptors.descList
    if name not in TOO_SLOW
}


def descriptors(molecule: Chem.Mol, n_bits: int = 0) -> NDArray[np.float64]:
    """Return `DESCRIPTORS` of a molecule, clipped; NaN for an undefined one, and for a large molecule.

    `n_bits` is not used.
    """
    values = np.full(len(DESCRIPTORS), np.nan)
    if molecule.GetNumHeavyAtoms() > MAX_ATOMS:
        return values
    for i, function in enumerate(DESCRIPTORS.values()):
        with suppress(Exception):
            values[i] = function(molecule)
    return np.clip(values, -MAX_DESCRIPTOR, MAX_DESCRIPTOR)
