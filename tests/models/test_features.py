"""Features of molecules: what they count, and which of them a setting gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

from models.inputs.features import FEATURES, molecule_features


def of(name: str, smiles: str, n_bits: int = 512) -> np.ndarray:
    return FEATURES[name](Chem.MolFromSmiles(smiles), n_bits)


def test_morgan_counts_of_ethane_by_hand() -> None:
    """Two methyl carbons: one environment of radius 0 counted twice, one of radius 1 counted twice less the double."""
    counts = of("morgan", "CC")
    assert sorted(counts[counts > 0].tolist()) == [1.0, 2.0]


def test_avalon_counts_and_does_not_only_mark() -> None:
    """Two carboxylic acids have the features of one more often."""
    one, two = of("avalon", "OC(=O)CCCC"), of("avalon", "OC(=O)CCCCC(=O)O")
    assert ((two > one) & (one > 0)).any()


def test_erg_sees_how_far_a_donor_is_from_a_ring_and_maccs_that_there_is_one() -> None:
    assert not np.array_equal(of("erg", "NCc1ccccc1"), of("erg", "NCCCCc1ccccc1"))
    assert of("maccs", "C1CCCCC1")[165] == 1
    assert of("maccs", "CCCCCC")[165] == 0


def test_descriptors_are_finite_or_nan_and_cut() -> None:
    values = of("descriptors", "C" * 60)
    assert not np.isinf(values).any()
    assert np.nanmax(np.abs(values)) <= 1e6


@pytest.mark.parametrize(("name", "width"), [("morgan", 64), ("avalon", 64), ("erg", 315), ("maccs", 167)])
def test_a_single_atom_and_a_salt_have_features_of_the_usual_width(name: str, width: int) -> None:
    assert {of(name, smiles, 64).shape for smiles in ("C", "[Na+].[Cl-]", "CCO")} == {(width,)}


def test_maplight_is_its_four_features_and_one_named_twice_is_one(tmp_path: Path) -> None:
    caches = molecule_features(["descriptors", "maplight"], 64, tmp_path)
    assert [cache.name for cache in caches] == ["descriptors", "morgan", "avalon", "erg"]
    values, _ = caches[1].load(["CCO", "CC"])
    assert values[1].shape == (1, 64)
    assert np.array_equal(values[0][0], of("morgan", "CCO", 64))


def test_another_length_has_another_cache_where_it_changes_the_numbers(tmp_path: Path) -> None:
    folders = [{c.name: c.folder for c in molecule_features(["maplight"], bits, tmp_path)} for bits in (64, 128)]
    assert {name for name in folders[0] if folders[0][name] != folders[1][name]} == {"morgan", "avalon"}
