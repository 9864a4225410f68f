"""Features of molecules: what they count, and which of them a setting gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.inputs.features import avalon, descriptors, erg, maccs, molecule_features, morgan


def test_morgan_counts_of_ethane_by_hand() -> None:
    """Two methyl carbons: one environment of radius 0 counted twice, one of radius 1 counted twice less the double."""
    counts = morgan("CC", 1024)
    assert counts.shape == (1, 1024)
    assert sorted(counts[counts > 0].tolist()) == [1.0, 2.0]


def test_avalon_counts_and_does_not_only_mark() -> None:
    """Two carboxylic acids have the features of one more often."""
    one, two = avalon("OC(=O)CCCC", 512), avalon("OC(=O)CCCCC(=O)O", 512)
    assert one.shape == (1, 512)
    assert ((two > one) & (one > 0)).any()


def test_erg_sees_how_far_a_donor_is_from_a_ring() -> None:
    assert erg("CCO").shape == (1, 315)
    assert not np.array_equal(erg("NCc1ccccc1"), erg("NCCCCc1ccccc1"))


def test_the_maccs_key_of_a_ring_is_set_for_a_ring() -> None:
    """Key 165: the molecule has a ring."""
    assert maccs("C1CCCCC1")[0, 165] == 1
    assert maccs("CCCCCC")[0, 165] == 0


def test_descriptors_are_finite_or_nan_and_cut() -> None:
    values = descriptors("C" * 60)
    assert not np.isinf(values).any()
    assert np.nanmax(np.abs(values)) <= 1e6


@pytest.mark.parametrize("compute", [lambda s: morgan(s, 64), lambda s: avalon(s, 64), erg, maccs, descriptors])
def test_a_single_atom_and_a_salt_have_features_of_the_usual_width(compute: object) -> None:
    assert compute("C").shape == compute("[Na+].[Cl-]").shape == compute("CCO").shape  # type: ignore[operator]
    assert compute("C").dtype == np.float32  # type: ignore[operator]


def test_maplight_is_its_four_features_and_one_named_twice_is_one(tmp_path: Path) -> None:
    names = [cache.name for cache in molecule_features(["descriptors", "maplight"], 64, tmp_path)]
    assert names == ["descriptors", "morgan", "avalon", "erg"]


def test_another_length_has_another_cache_where_it_changes_the_numbers(tmp_path: Path) -> None:
    folders = [
        {cache.name: cache.folder for cache in molecule_features(["maplight"], bits, tmp_path)} for bits in (64, 128)
    ]
    assert {name for name in folders[0] if folders[0][name] != folders[1][name]} == {"morgan", "avalon"}
