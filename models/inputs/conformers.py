"""3-D conformers of molecules by RDKit, from the canonical SMILES.

The number of iterations is limited, never the time, so that the result does not depend on the machine.

First, the molecule is prepared: a setting may select the largest fragment of a salt. Then it is
embedded by the first method that succeeds: ETKDG version 3; ETKDG from random coordinates; distance
geometry without the torsion and ring knowledge of ETKDG, for strained cages; flat 2-D coordinates.
All but the last are relaxed with MMFF.

Sources: Riniker and Landrum, JCIM 2015 (ETKDG); Tosco et al., J. Cheminf. 2014 (MMFF in RDKit).
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem
from rdkit.Chem import AllChem, rdDepictor, rdDistGeom

from models.inputs.cache import Array, Cache

SEED = 42  # of the embedding, as in unimol_tools; a molecule has the same conformers in the entire project
EMBED_ATTEMPTS = 10
MMFF_ITERATIONS = 200
MAX_ATOMS = 200
"""Number of atoms, without hydrogens, from which a molecule has flat coordinates, and after which it is cut:
an embedding takes a minute for 200 atoms, and its time grows with the cube.
"""
EMBED_METHODS = ("", "random", "distances")
"""ETKDG, ETKDG from random coordinates, and distance geometry only, in the order in which they are tried."""


def conformer_cache(root: Path, **settings: Any) -> Cache:
    """Return the cache of conformers: arrays (n_atoms, 1 + 3 * n_conformers), hydrogens included.

    The columns are the atomic number, then the coordinates of each conformer in angstrom.

    Args:
        root: folder of all caches.
        settings: conformers and fragments of `models.stages.conformer_stage.ConformerStage`.
    """
    return Cache(root, "conformers", settings, partial(_compute, **settings))


def _compute(smiles: list[str], conformers: int, fragments: str) -> list[Array]:
    return [embed_conformers(build_molecule(text, fragments), conformers) for text in smiles]


def select(conformers: Array, number: int) -> Array:
    """Return one conformer of an array of the cache, (n_atoms, 4): atomic number and coordinates."""
    return conformers[:, [0, 3 * number + 1, 3 * number + 2, 3 * number + 3]]


def build_molecule(smiles: str, fragments: str) -> Chem.Mol:
    """Return the molecule of a canonical SMILES without hydrogens, with its atoms in a fixed order.

    A molecule with more than MAX_ATOMS atoms is cut after them.

    Args:
        smiles: canonical SMILES.
        fragments: "all" or "largest".
    """
    molecule = Chem.MolFromSmiles(smiles)
    if fragments == "largest":
        molecule = max(Chem.GetMolFrags(molecule, asMols=True), key=_fragment_size)
    return _first_atoms(molecule) if molecule.GetNumAtoms() > MAX_ATOMS else molecule


def _first_atoms(molecule: Chem.Mol) -> Chem.Mol:
    """Return the first MAX_ATOMS atoms of a molecule, with hydrogens in place of the others."""
    cut = Chem.RWMol(molecule)
    Chem.Kekulize(cut, clearAromaticFlags=True)
    cut.BeginBatchEdit()
    for index in range(MAX_ATOMS, molecule.GetNumAtoms()):
        cut.RemoveAtom(index)
    cut.CommitBatchEdit()
    Chem.SanitizeMol(cut)
    return cut.GetMol()


def _fragment_size(fragment: Chem.Mol) -> tuple[int, int, str]:
    """Return a sort key: number of heavy atoms, number of atoms, and the SMILES to break ties."""
    return fragment.GetNumHeavyAtoms(), fragment.GetNumAtoms(), Chem.MolToSmiles(fragment)


def is_flat(conformers: Array) -> bool:
    """Return whether an array of the cache has 2-D coordinates; up to three atoms are always in one plane."""
    return len(conformers) > 3 and not conformers[:, 3].any()


def embed_conformers(molecule: Chem.Mol, conformers: int = 1) -> Array:
    """Return conformers of a molecule, (n_atoms, 1 + 3 * conformers), hydrogens included.

    If fewer conformers can be embedded than requested, they are repeated.
    """
    is_too_large = molecule.GetNumAtoms() >= MAX_ATOMS
    molecule = Chem.AddHs(molecule)
    if is_too_large or not any(_embed(molecule, conformers, method) for method in EMBED_METHODS):
        rdDepictor.Compute2DCoords(molecule)
    elif AllChem.MMFFHasAllMoleculeParams(molecule):  # a conformer may remain unconverged
        AllChem.MMFFOptimizeMoleculeConfs(molecule, maxIters=MMFF_ITERATIONS)
    atomic_numbers = [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
    positions = [conformer.GetPositions() for conformer in molecule.GetConformers()]
    array = np.column_stack([atomic_numbers, *(positions[i % len(positions)] for i in range(conformers))])
    return array.astype(np.float32)


def _embed(molecule: Chem.Mol, conformers: int, method: str) -> bool:
    """Embed a molecule by one of EMBED_METHODS, and return whether it succeeded."""
    parameters = rdDistGeom.ETKDGv3()
    parameters.randomSeed = SEED
    parameters.maxIterations = EMBED_ATTEMPTS
    parameters.useRandomCoords = method != ""
    if method == "distances":
        parameters.useBasicKnowledge = False
        parameters.useExpTorsionAnglePrefs = False
        parameters.enforceChirality = False
    try:
        return len(rdDistGeom.EmbedMultipleConfs(molecule, conformers, parameters)) > 0
    except RuntimeError:  # RDKit's distance bounds of some molecules with '*' contradict each other
        return False
