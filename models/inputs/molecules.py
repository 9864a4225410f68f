"""Which molecule a SMILES stands for before it gets coordinates: salts cut down, the open ends of polymers closed.

Source of caps of carbon: Wang et al., MMPolymer, CIKM 2024 (star substitution).
"""

from __future__ import annotations

from rdkit import Chem

from competition.errors import DataError


def prepared(smiles: str, fragments: str, repeat_units: str) -> Chem.Mol:
    """The molecule without hydrogens, its atoms in a fixed order.

    Args:
        smiles: canonical.
        fragments, repeat_units: settings of `models.config.ConformerStage`.

    Raises:
        DataError: if the closed molecule breaks the rules of valence.
    """
    molecule = Chem.MolFromSmiles(smiles)
    if fragments == "largest":
        parts = Chem.GetMolFrags(molecule, asMols=True)
        molecule = max(parts, key=lambda part: (part.GetNumHeavyAtoms(), part.GetNumAtoms(), Chem.MolToSmiles(part)))
    if repeat_units == "keep" or not _stars(molecule):
        return molecule
    closed = _cyclic(molecule) if repeat_units == "cyclic_dimer" and _has_two_ends(molecule) else _capped(molecule)
    try:
        Chem.SanitizeMol(closed)
    except Chem.MolSanitizeException as error:
        raise DataError(
            f"repeat_units: {repeat_units} must give a molecule; {smiles} does not ({error}). Set repeat_units: keep."
        ) from error
    return closed


def _stars(molecule: Chem.Mol) -> list[Chem.Atom]:
    return [atom for atom in molecule.GetAtoms() if atom.GetAtomicNum() == 0]


def _has_two_ends(molecule: Chem.Mol) -> bool:
    """Whether there are two '*', each with one single bond, to atoms that are not '*' themselves."""
    stars = _stars(molecule)
    bonds = [bond for star in stars for bond in star.GetBonds()]
    return (
        len(stars) == len(bonds) == 2
        and all(bond.GetBondType() == Chem.BondType.SINGLE for bond in bonds)
        and all(bond.GetOtherAtom(star).GetAtomicNum() for star, bond in zip(stars, bonds, strict=True))
    )


def _capped(molecule: Chem.Mol) -> Chem.Mol:
    """Carbon in place of every '*', with the hydrogens that its bonds leave room for."""
    capped = Chem.RWMol(molecule)
    for star in _stars(molecule):
        capped.ReplaceAtom(star.GetIdx(), Chem.Atom(6))
    return capped.GetMol()


def _cyclic(molecule: Chem.Mol) -> Chem.Mol:
    """Two units joined head to tail both ways; three, where both ends are at one atom, which two cannot join twice."""
    head, tail = (star.GetNeighbors()[0].GetIdx() for star in _stars(molecule))
    n_units, size = (3 if head == tail else 2), molecule.GetNumAtoms()
    ring = Chem.Mol(molecule)
    for _ in range(n_units - 1):
        ring = Chem.CombineMols(ring, molecule)
    ring = Chem.RWMol(ring)
    for unit in range(n_units):
        ring.AddBond(unit * size + tail, (unit + 1) % n_units * size + head, Chem.BondType.SINGLE)
    for index in sorted((star.GetIdx() for star in _stars(ring)), reverse=True):
        ring.RemoveAtom(index)
    return ring.GetMol()
