"""Conformers: the molecule of a SMILES, and its coordinates."""

import numpy as np
import pytest
from rdkit import Chem

from models.inputs import conformers
from models.inputs.conformers import build_molecule, embed_conformers, is_flat, select


def conformer(smiles: str, conformers: int = 1) -> np.ndarray:
    return embed_conformers(build_molecule(smiles, "all", "keep"), conformers)


def distance(atoms: np.ndarray) -> float:
    """Return the distance between the first two atoms, in angstrom."""
    return float(np.linalg.norm(atoms[0, 1:4] - atoms[1, 1:4]))


def test_a_conformer_has_all_atoms_with_hydrogens_real_bond_lengths_and_is_deterministic() -> None:
    atoms = conformer("CO")
    assert sorted(atoms[:, 0].tolist()) == [1, 1, 1, 1, 6, 8]
    assert distance(atoms) == pytest.approx(1.41, abs=0.03)  # C-O of methanol
    assert np.array_equal(conformer("CO"), atoms)


def test_metals_are_embedded_without_mmff_and_strained_cages_by_distances_only() -> None:
    assert not is_flat(conformer("[Pt]")) and not is_flat(conformer("Cl[Pt](Cl)(Cl)Cl"))
    cage = conformer("O=C1CN2C3C2C2C3N12")
    assert not is_flat(cage)
    assert distance(cage) == pytest.approx(1.21, abs=0.05)  # C=O


def test_a_molecule_that_cannot_be_embedded_is_flat_and_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = list[str]()
    monkeypatch.setattr(conformers, "_embed", lambda molecule, n, method: tried.append(method))
    atoms = conformer("CCO", conformers=2)
    assert tried == ["", "random", "distances"]
    assert is_flat(atoms)
    assert np.ptp(atoms[:, 1]) > 1
    assert np.array_equal(select(atoms, 0), select(atoms, 1))


def test_several_conformers_differ_and_the_first_is_the_default() -> None:
    three = conformer("CCCCCO", conformers=3)
    assert three.shape == (18, 10)
    assert np.array_equal(select(three, 0), conformer("CCCCCO"))
    assert not np.allclose(select(three, 1)[:, 1:], select(three, 2)[:, 1:], atol=0.1)
    assert distance(select(three, 2)) == pytest.approx(1.52, abs=0.03)


def prepared_smiles(smiles: str, fragments: str = "all", repeat_units: str = "keep") -> str:
    return Chem.MolToSmiles(build_molecule(smiles, fragments, repeat_units))


@pytest.mark.parametrize(
    ("unit", "capped", "cyclic"),
    [
        ("*CC(*)c1ccccc1", "CCC(C)c1ccccc1", "c1ccc(C2CC(c3ccccc3)C2)cc1"),  # head to tail: 1,3
        ("*N[C@@H](C)C(*)=O", "CN[C@@H](C)C(C)=O", "C[C@@H]1NC(=O)[C@H](C)NC1=O"),  # alanine's cyclic dimer
        ("*C*", "CCC", "C1CC1"),  # both ends at one atom: three units
        ("*CCO", "CCCO", "CCCO"),  # one end only
        ("*=CC=*", "C=CC=C", "C=CC=C"),  # double bonds
        ("*(F)(F)(F)(F)F", "*(F)(F)(F)(F)F", "*(F)(F)(F)(F)F"),  # more bonds than a carbon can have
    ],
)
def test_repeat_units_are_closed_according_to_the_setting(unit: str, capped: str, cyclic: str) -> None:
    canonical = Chem.CanonSmiles(unit)
    assert prepared_smiles(canonical) == canonical
    assert prepared_smiles(canonical, repeat_units="cap") == Chem.CanonSmiles(capped)
    assert prepared_smiles(canonical, repeat_units="cyclic_dimer") == Chem.CanonSmiles(cyclic)


def test_the_largest_fragment_is_the_one_with_the_maximum_number_of_heavy_atoms() -> None:
    assert prepared_smiles("CC(=O)[O-].[Na+]", fragments="largest") == "CC(=O)[O-]"
    assert prepared_smiles("CCO.O.O", fragments="largest") == "CCO"
