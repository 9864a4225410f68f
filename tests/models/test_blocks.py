"""Features of molecules, and feature blocks by hand: what they learn from training rows, what other rows become."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rdkit import Chem

from models.inputs import blocks
from models.inputs.features import FEATURES, molecule_features
from tests.models.made import context, rows

NAN = np.nan


def test_columns_are_standardised_cut_and_marked_where_training_had_gaps(tmp_path: Path) -> None:
    """x: mean 2, standard deviation sqrt(2 / 3); c is constant; p is in mol per litre, with picomolar values; d is of a
    neuron that never answers. A gap that training has not is no column.
    """
    x, p, d = [1.0, 3.0, NAN, 2.0], [1e-12, 3e-12, 2e-12, 2e-12], [1e-33, 0.0, 2e-33, 0.0]
    train = rows(x=x, c=[5.0] * 4, p=p, d=d, k=["b", "a", "b", "a"])
    test = rows(x=[3.0, NAN, 1e9], c=[6.0, NAN, 5.0], p=p[:3], d=d[:3], k=["a", "b", "new"])
    told = context(tmp_path, numeric=["x", "c", "p", "d"], categorical=["k"])
    config = SimpleNamespace(columns_before_head=True, encoders=[])
    blocks.fit_columns(train, config, told, tmp_path)
    root = 2**0.5
    expected = [[1.5**0.5, 1, -root, 0, 0, 1, 0], [0, 0, root, 0, 1, 0, 1], [5, 0, 0, 0, 0, 0, 0]]
    found = blocks.read_columns(test, config, told, tmp_path)
    assert found == pytest.approx(np.array(expected, dtype=np.float32), abs=1e-6)


def test_words_are_those_that_two_training_rows_share_weighted_by_their_rarity(tmp_path: Path) -> None:
    """Of 4 rows `red` is in 3 and `pear` in 2: idf 1 + ln(5 / 4) and 1 + ln(5 / 3); a row has length 1."""
    train = rows(note=["red pear", "red plum", "red apple", "green pear"])
    learned = blocks.learn_words(train, 10, context(tmp_path, text=["note"]))
    assert sorted(learned["note"]["vocabulary"]) == ["pear", "red"]
    found = blocks.words(rows(note=["pear red", "red red", "kiwi"]), learned).toarray()
    pear, red = 1 + np.log(5 / 3), 1 + np.log(5 / 4)
    length = np.hypot(pear, red)
    assert found == pytest.approx(np.array([[pear / length, red / length], [0, 1], [0, 0]]), abs=1e-6)


def test_numbers_and_molecules_stand_side_by_side_with_gaps(tmp_path: Path) -> None:
    table = rows(s=["CC", "CO"], t=["O", "CC"], x=[1.0, NAN])
    told = context(tmp_path, smiles=["s", "t"], numeric=["x"])
    config = SimpleNamespace(features=["maccs"], n_bits=64, encoders=[])
    found = blocks.molecules(table, config, told)  # type: ignore[arg-type]
    assert found.shape == (2, 2 * 167)
    assert np.array_equal(found[0, :167], found[1, 167:])
    assert np.array_equal(blocks.numbers(table, told), [[1.0], [NAN]], equal_nan=True)


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


def test_maplight_is_its_four_features_one_named_twice_is_one_and_a_length_has_its_own_cache(tmp_path: Path) -> None:
    caches = molecule_features(["descriptors", "maplight"], 64, tmp_path)
    assert [cache.name for cache in caches] == ["descriptors", "morgan", "avalon", "erg"]
    assert np.array_equal(caches[1].load(["CCO", "CC"])[0], of("morgan", "CCO", 64)[None])
    longer = {cache.name: cache.folder for cache in molecule_features(["maplight"], 128, tmp_path)}
    assert {cache.name for cache in caches if longer[cache.name] != cache.folder} == {"morgan", "avalon"}
