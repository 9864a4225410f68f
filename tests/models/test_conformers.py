"""Conformers: the molecule of a SMILES, and its coordinates."""

import numpy as np
import pytest
from rdkit import Chem

from models.inputs import conformers
from models.inputs.conformers import build_molecule, embed_conformers, is_flat, select


def conformer(smiles, n=1):
    return embed_conformers(build_molecule(smiles, "all"), n)


def distance(atoms):
    """Return the distance between the first two atoms, in angstrom."""
    return float(np.linalg.norm(atoms[0, 1:4] - atoms[1, 1:4]))


@pytest.mark.parametrize(
    ("smiles", "length"),
    [("CO", 1.41), ("O=C1CN2C3C2C2C3N12", 1.21)],  # the cage is embedded by distances only
)
def test_a_conformer_has_real_bond_lengths_and_is_deterministic(smiles, length):
    atoms = conformer(smiles)
    assert distance(atoms) == pytest.approx(length, abs=0.05)
    assert np.array_equal(conformer(smiles), atoms)


@pytest.mark.parametrize("smiles", ["[Pt]", "Cl[Pt](Cl)(Cl)Cl"])
def test_metals_are_embedded_without_mmff(smiles):
    assert not is_flat(conformer(smiles))


def test_a_molecule_that_cannot_be_embedded_is_flat_and_repeats(monkeypatch):
    tried = list[str]()
    monkeypatch.setattr(conformers, "_embed", lambda molecule, n, method: tried.append(method))
    atoms = conformer("CCO", 2)
    assert tried == ["", "random", "distances"]
    assert is_flat(atoms)
    assert np.ptp(atoms[:, 1]) > 1
    assert np.array_equal(select(atoms, 0), select(atoms, 1))


def test_several_conformers_differ_have_hydrogens_and_the_first_is_the_default():
    three = conformer("CCCCCO", 3)
    assert three.shape == (18, 10)
    assert np.array_equal(select(three, 0), conformer("CCCCCO"))
    assert not np.allclose(select(three, 1)[:, 1:], select(three, 2)[:, 1:], atol=0.1)
    assert distance(select(three, 2)) == pytest.approx(1.52, abs=0.03)


@pytest.mark.parametrize(("smiles", "largest"), [("CC(=O)[O-].[Na+]", "CC(=O)[O-]"), ("CCO.O.O", "CCO")])
def test_the_largest_fragment_is_the_one_with_the_maximum_number_of_heavy_atoms(smiles, largest):
    assert Chem.MolToSmiles(build_molecule(smiles, "largest")) == largest
