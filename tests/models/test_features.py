"""Features of molecules: what they count, and which of them a setting gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rdkit import Chem

from models.inputs.features import FEATURES, molecule_features


def of(name: str, smiles: str, n_bits: int = 512) -> np.ndarray:
    return FEATURES[name](Chem.MolFromSmiles(smiles), n_bits)


def test_features_count_what_they_are_named_after() -> None:
    """Ethane: one environment of radius 0 counted twice, one of radius 1 once. Two carboxylic acids count more than
    one. ErG sees how far a donor is from a ring, MACCS that there is a ring. Ipc of a long chain is cut.
    """
    counts = of("morgan", "CC")
    assert sorted(counts[counts > 0].tolist()) == [1.0, 2.0]
    one, two = of("avalon", "OC(=O)CCCC"), of("avalon", "OC(=O)CCCCC(=O)O")
    assert ((two > one) & (one > 0)).any()
    assert not np.array_equal(of("erg", "NCc1ccccc1"), of("erg", "NCCCCc1ccccc1"))
    assert [of("maccs", smiles)[165] for smiles in ("C1CCCCC1", "CCCCCC")] == [1, 0]
    assert np.nanmax(np.abs(of("descriptors", "C" * 60))) == 1e6
    for name, width in (("morgan", 512), ("avalon", 512), ("erg", 315), ("maccs", 167)):
        assert of(name, "[Na+].[Cl-]").shape == (width,)


def test_maplight_is_its_four_features_one_named_twice_is_one_and_a_length_has_a_cache_of_its_own(
    tmp_path: Path,
) -> None:
    caches = molecule_features(["descriptors", "maplight"], 64, tmp_path)
    assert [cache.name for cache in caches] == ["descriptors", "morgan", "avalon", "erg"]
    values, _ = caches[1].load(["CCO", "CC"])
    assert np.array_equal(values[0], of("morgan", "CCO", 64)[None])
    longer = {cache.name: cache.folder for cache in molecule_features(["maplight"], 128, tmp_path)}
    assert {cache.name for cache in caches if longer[cache.name] != cache.folder} == {"morgan", "avalon"}
