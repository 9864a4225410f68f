"""3-D conformers of molecules by RDKit, from the canonical SMILES, with a bound on iterations and never on time.

Steps, each tried where the one before fails: ETKDG version 3; ETKDG from random coordinates; distances alone, without
what ETKDG knows of torsions and rings, for strained cages; flat 2-D coordinates. All but the last are relaxed in MMFF.
The status word says which one it was; statuses are counted in the job's report.
Source: Riniker and Landrum, JCIM 2015 (ETKDG); Tosco et al., J. Cheminf. 2014 (MMFF in RDKit).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, RDLogger
from rdkit.Chem import AllChem, rdDepictor, rdDistGeom

from competition.errors import DataError
from models.inputs.cache import Array, Cache
from models.inputs.molecules import prepared

RDLogger.DisableLog("rdApp.*")  # failures are counted by status instead

SEED = 42  # of the embedding, as in unimol_tools; a molecule has the same conformers in the whole project
EMBED_ATTEMPTS = 10
MMFF_ITERATIONS = 200


def conformer_cache(root: Path, conformers: int, fragments: str, repeat_units: str, unembeddable: str) -> Cache:
    """Cache of conformers: arrays (n_atoms, 1 + 3 * conformers), hydrogens included.

    Columns are the atomic number, then the coordinates in angstrom of each conformer. The last four arguments are
    settings of `models.config.ConformerStage`. A flat molecule is stored whatever `unembeddable` says, so that to set
    it anew computes nothing again.
    """
    settings = {
        "seed": SEED,
        "attempts": EMBED_ATTEMPTS,
        "mmff": MMFF_ITERATIONS,
        "method": "etkdg3-random-distances-mmff",
        "conformers": conformers,
        "fragments": fragments,
        "repeat_units": repeat_units,
    }

    def compute(smiles: list[str]) -> list[tuple[Array, str]]:
        return [embedded(prepared(text, fragments, repeat_units), conformers) for text in smiles]

    return Cache(root, "conformers", settings, compute, refuse_flat if unembeddable == "error" else None)


def embedded(molecule: Chem.Mol, conformers: int = 1) -> tuple[NDArray[np.float32], str]:
    """Conformers of a molecule, (n_atoms, 1 + 3 * conformers), and how they were made.

    The status is mmff, etkdg, random_mmff, random, distances_mmff, distances or flat. Where fewer embed than asked
    for, they repeat.
    """
    molecule = Chem.AddHs(molecule)
    for word in ("", "random", "distances"):
        if _embed(molecule, conformers, word):
            optimised = _optimise(molecule)
            status = "_".join(part for part in (word, "mmff" if optimised else "") if part) or "etkdg"
            return _array(molecule, conformers), status
    rdDepictor.Compute2DCoords(molecule)
    return _array(molecule, conformers), "flat"


def select(conformers: NDArray[np.float32], number: int) -> NDArray[np.float32]:
    """One conformer, (n_atoms, 4), of an array of the cache."""
    return conformers[:, [0, 3 * number + 1, 3 * number + 2, 3 * number + 3]]


def refuse_flat(statuses: dict[str, str]) -> None:
    """Refuse molecules without 3-D coordinates, by SMILES and status.

    Raises:
        DataError: if there are any; names them and says what to set.
    """
    flat = sorted(smiles for smiles, status in statuses.items() if status == "flat")
    if flat:
        raise DataError(
            f"every molecule must have a 3-D conformer; {len(flat)} of {len(statuses)} cannot be embedded: "
            f"{', '.join(flat[:3])}{' ...' if len(flat) > 3 else ''}. Set the stage's unembeddable: flat to give them "
            "2-D coordinates, or for salts fragments: largest, or for '*' repeat_units: cap."
        )


def _embed(molecule: Chem.Mol, conformers: int, way: str) -> bool:
    parameters = rdDistGeom.ETKDGv3()
    parameters.randomSeed = SEED
    parameters.maxIterations = EMBED_ATTEMPTS
    parameters.useRandomCoords = way != ""
    if way == "distances":
        parameters.useBasicKnowledge = parameters.useExpTorsionAnglePrefs = parameters.enforceChirality = False
    try:
        return len(rdDistGeom.EmbedMultipleConfs(molecule, conformers, parameters)) > 0
    except RuntimeError:  # RDKit's bounds of some molecules with '*' contradict each other
        return False


def _optimise(molecule: Chem.Mol) -> bool:
    """Relax in MMFF where it has parameters for every atom; one that has not converged is kept as it is."""
    if not AllChem.MMFFHasAllMoleculeParams(molecule):
        return False
    results = AllChem.MMFFOptimizeMoleculeConfs(molecule, maxIters=MMFF_ITERATIONS)
    return all(code >= 0 for code, _ in results)


def _array(molecule: Chem.Mol, conformers: int) -> NDArray[np.float32]:
    numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], dtype=np.float32)
    positions = [conformer.GetPositions() for conformer in molecule.GetConformers()]
    return np.column_stack([numbers, *(positions[i % len(positions)] for i in range(conformers))]).astype(np.float32)
