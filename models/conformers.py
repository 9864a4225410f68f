"""3-D conformers of molecules by RDKit, from the canonical SMILES, with a bound on iterations and never on time.

Steps, each tried where the one before fails: ETKDG version 3 and MMFF; ETKDG from random coordinates and MMFF;
flat 2-D coordinates. The status word says which one it was; statuses are counted in the job's report.
Source: Riniker and Landrum, JCIM 2015 (ETKDG); Tosco et al., J. Cheminf. 2014 (MMFF in RDKit).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, RDLogger
from rdkit.Chem import AllChem, rdDepictor, rdDistGeom

from models.cache import MoleculeCache

RDLogger.DisableLog("rdApp.*")  # failures are counted by status instead

SEED = 42  # of the embedding, as in unimol_tools; a molecule has one conformer in the whole project
EMBED_ATTEMPTS = 10
MMFF_ITERATIONS = 200


def conformer_cache(root: Path) -> MoleculeCache:
    """Cache of conformers: arrays (n_atoms, 4) of atomic number and coordinates in angstrom, hydrogens included."""
    settings = {"seed": SEED, "attempts": EMBED_ATTEMPTS, "mmff": MMFF_ITERATIONS, "method": "etkdg3-mmff"}
    return MoleculeCache(root, "conformers", settings, conformer)


def conformer(smiles: str) -> tuple[NDArray[np.float32], str]:
    """One conformer of a molecule, (n_atoms, 4), and how it was made: mmff, etkdg, random_mmff, random or flat."""
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    for word, random_coordinates in (("", False), ("random", True)):
        if _embed(molecule, random_coordinates):
            optimised = _optimise(molecule)
            status = "_".join(part for part in (word, "mmff" if optimised else "") if part) or "etkdg"
            return _array(molecule), status
    rdDepictor.Compute2DCoords(molecule)
    return _array(molecule), "flat"


def _embed(molecule: Chem.Mol, random_coordinates: bool) -> bool:
    parameters = rdDistGeom.ETKDGv3()
    parameters.randomSeed = SEED
    parameters.maxIterations = EMBED_ATTEMPTS
    parameters.useRandomCoords = random_coordinates
    try:
        return rdDistGeom.EmbedMolecule(molecule, parameters) == 0
    except RuntimeError:  # RDKit's bounds of some molecules with '*' contradict each other
        return False


def _optimise(molecule: Chem.Mol) -> bool:
    """Relax in MMFF where it has parameters for every atom; one that has not converged is kept as it is."""
    if not AllChem.MMFFHasAllMoleculeParams(molecule):
        return False
    return AllChem.MMFFOptimizeMolecule(molecule, maxIters=MMFF_ITERATIONS) >= 0


def _array(molecule: Chem.Mol) -> NDArray[np.float32]:
    numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], dtype=np.float32)
    return np.column_stack([numbers, molecule.GetConformer().GetPositions()]).astype(np.float32)
