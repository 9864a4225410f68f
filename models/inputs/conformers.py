"""3-D conformers of molecules by RDKit, from the canonical SMILES, with a bound on iterations and never on time.

First the molecule: salts are cut down and the open ends of polymers closed, as the settings say. Then its coordinates;
each step is tried where the one before fails: ETKDG version 3; ETKDG from random coordinates; distances alone, without
what ETKDG knows of torsions and rings, for strained cages; flat 2-D coordinates. All but the last are relaxed in MMFF.
Sources: Riniker and Landrum, JCIM 2015 (ETKDG); Tosco et al., J. Cheminf. 2014 (MMFF in RDKit); Wang et al., MMPolymer,
CIKM 2024 (caps of carbon).
"""

from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem
from rdkit.Chem import AllChem, rdDepictor, rdDistGeom

from models.inputs.cache import Array, Cache

SEED = 42  # of the embedding, as in unimol_tools; a molecule has the same conformers in the whole project
EMBED_ATTEMPTS = 10
MMFF_ITERATIONS = 200


def conformer_cache(root: Path, **settings: Any) -> Cache:
    """Cache of conformers: arrays (n_atoms, 1 + 3 * conformers), hydrogens included.

    Columns are the atomic number, then the coordinates in angstrom of each conformer. The settings are conformers,
    fragments and repeat_units of `models.settings.ConformerStage`.
    """
    return Cache(root, "conformers", settings, partial(_computed, settings))


def _computed(settings: dict[str, Any], smiles: list[str]) -> list[Array]:
    molecules = (prepared(text, settings["fragments"], settings["repeat_units"]) for text in smiles)
    return [embedded(molecule, settings["conformers"]) for molecule in molecules]


def select(conformers: Array, number: int) -> Array:
    """One conformer, (n_atoms, 4), of an array of the cache."""
    return conformers[:, [0, 3 * number + 1, 3 * number + 2, 3 * number + 3]]


def prepared(smiles: str, fragments: str, repeat_units: str) -> Chem.Mol:
    """The molecule that a canonical SMILES stands for, without hydrogens, its atoms in a fixed order.

    Two '*' are the ends of a repeat unit where each has one single bond, to another atom; any other '*' can only be
    capped: it becomes a carbon, with the hydrogens that its bonds leave room for; one with more bonds than that stays.
    """
    molecule = Chem.MolFromSmiles(smiles)
    if fragments == "largest":
        parts = Chem.GetMolFrags(molecule, asMols=True)
        molecule = max(parts, key=lambda part: (part.GetNumHeavyAtoms(), part.GetNumAtoms(), Chem.MolToSmiles(part)))
    stars = [atom for atom in molecule.GetAtoms() if atom.GetAtomicNum() == 0]
    if repeat_units == "keep" or not stars:
        return molecule
    bonds = [(star, bond) for star in stars for bond in star.GetBonds()]
    are_ends = len(stars) == len(bonds) == 2 and all(
        bond.GetBondType() == Chem.BondType.SINGLE and bond.GetOtherAtom(star).GetAtomicNum() for star, bond in bonds
    )
    if repeat_units == "cyclic_dimer" and are_ends:
        closed = _cyclic(molecule, stars)
    else:
        closed = Chem.RWMol(molecule)
        for star in stars:
            closed.ReplaceAtom(star.GetIdx(), Chem.Atom(6))
    try:
        Chem.SanitizeMol(closed)
    except Chem.MolSanitizeException:  # more bonds than a carbon has
        return molecule
    return closed.GetMol()


def _cyclic(molecule: Chem.Mol, stars: list[Chem.Atom]) -> Chem.RWMol:
    """Two units joined head to tail both ways; three, where both ends are at one atom, which two cannot join twice."""
    head, tail = (star.GetNeighbors()[0].GetIdx() for star in stars)
    n_units, size = (3 if head == tail else 2), molecule.GetNumAtoms()
    ring = Chem.RWMol(reduce(Chem.CombineMols, [molecule] * n_units))
    for unit in range(n_units):
        ring.AddBond(unit * size + tail, (unit + 1) % n_units * size + head, Chem.BondType.SINGLE)
    for index in sorted((unit * size + star.GetIdx() for unit in range(n_units) for star in stars), reverse=True):
        ring.RemoveAtom(index)
    return ring


def is_flat(conformers: Array) -> bool:
    """Whether an array of the cache has 2-D coordinates; those of three atoms always lie in a plane."""
    return len(conformers) > 3 and not conformers[:, 3].any()


def embedded(molecule: Chem.Mol, conformers: int = 1) -> Array:
    """Conformers of a molecule, (n_atoms, 1 + 3 * conformers); where fewer embed than asked for, they repeat."""
    molecule = Chem.AddHs(molecule)
    if not any(_embed(molecule, conformers, way) for way in ("", "random", "distances")):
        rdDepictor.Compute2DCoords(molecule)
    elif AllChem.MMFFHasAllMoleculeParams(molecule):  # one that has not converged is kept as it is
        AllChem.MMFFOptimizeMoleculeConfs(molecule, maxIters=MMFF_ITERATIONS)
    numbers = [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
    positions = [conformer.GetPositions() for conformer in molecule.GetConformers()]
    array = np.column_stack([numbers, *(positions[i % len(positions)] for i in range(conformers))])
    return array.astype(np.float32)


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
