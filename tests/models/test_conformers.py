"""Conformers and their cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

from competition.errors import DataError
from models.inputs import conformers
from models.inputs.cache import Cache
from models.inputs.conformers import conformer_cache, embedded, refuse_flat, select
from models.inputs.molecules import prepared

DEFAULT = {"conformers": 1, "fragments": "all", "repeat_units": "keep", "unembeddable": "error"}


def conformer(smiles: str, conformers: int = 1) -> tuple[np.ndarray, str]:
    return embedded(prepared(smiles, "all", "keep"), conformers)


def test_a_conformer_has_all_atoms_with_hydrogens_and_real_bond_lengths() -> None:
    atoms, status = conformer("CO")
    assert status == "mmff"
    assert sorted(atoms[:, 0].tolist()) == [1, 1, 1, 1, 6, 8]
    assert np.linalg.norm(atoms[0, 1:] - atoms[1, 1:]) == pytest.approx(1.41, abs=0.03)  # C-O of methanol, angstrom


def test_the_same_molecule_has_the_same_conformer_each_time() -> None:
    assert np.array_equal(conformer("CCOC(=O)c1ccccc1")[0], conformer("CCOC(=O)c1ccccc1")[0])


def test_metals_are_embedded_without_mmff() -> None:
    assert conformer("[Pt]")[1] == "etkdg"


def test_a_molecule_that_cannot_be_embedded_is_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fails(molecule: object, n: int, way: str) -> bool:
        tried.append(way)
        return False

    monkeypatch.setattr(conformers, "_embed", fails)
    atoms, status = conformer("CCO")
    assert (status, tried) == ("flat", ["", "random", "distances"])
    assert (atoms[:, 3] == 0).all()
    assert np.ptp(atoms[:, 1]) > 1


def test_a_strained_cage_gets_coordinates_by_distances_alone() -> None:
    atoms, status = conformer("O=C1CN2C3C2C2C3N12")
    assert status == "distances_mmff"
    assert np.linalg.norm(atoms[0, 1:] - atoms[1, 1:]) == pytest.approx(1.21, abs=0.05)  # C=O


def test_several_conformers_differ_and_the_first_is_the_only_one_of_the_default() -> None:
    three, _ = conformer("CCCCCO", conformers=3)
    assert three.shape == (18, 10)
    assert np.array_equal(select(three, 0), conformer("CCCCCO")[0])
    assert not np.allclose(select(three, 1)[:, 1:], select(three, 2)[:, 1:], atol=0.1)
    assert np.linalg.norm(select(three, 2)[0, 1:] - select(three, 2)[1, 1:]) == pytest.approx(1.52, abs=0.03)


def test_where_fewer_conformers_embed_they_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformers, "_embed", lambda *_: False)
    atoms, status = conformer("CCO", conformers=2)
    assert status == "flat"
    assert np.array_equal(select(atoms, 0), select(atoms, 1))


def test_the_largest_fragment_is_that_with_the_most_heavy_atoms() -> None:
    assert names("CC(=O)[O-].[Na+]", fragments="largest") == "CC(=O)[O-]"
    assert names("CC(=O)[O-].[Na+]") == "CC(=O)[O-].[Na+]"
    assert names("CCO.O.O", fragments="largest") == "CCO"


@pytest.mark.parametrize(
    ("unit", "capped", "cyclic"),
    [
        ("*CC*", "CCCC", "C1CCC1"),
        ("*CC(*)c1ccccc1", "CCC(C)c1ccccc1", "c1ccc(C2CC(c3ccccc3)C2)cc1"),  # head to tail: 1,3
        ("*N[C@@H](C)C(*)=O", "CN[C@@H](C)C(C)=O", "C[C@@H]1NC(=O)[C@H](C)NC1=O"),  # alanine's cyclic dimer
        ("*C*", "CCC", "C1CC1"),  # both ends at one atom: three units
        ("*CCO", "CCCO", "CCCO"),  # one end only
        ("*=CC=*", "C=CC=C", "C=CC=C"),  # double bonds
        ("CCO", "CCO", "CCO"),
    ],
)
def test_repeat_units_are_closed_as_the_setting_says(unit: str, capped: str, cyclic: str) -> None:
    canonical = Chem.CanonSmiles(unit)
    assert names(canonical) == canonical
    assert names(canonical, repeat_units="cap") == Chem.CanonSmiles(capped)
    assert names(canonical, repeat_units="cyclic_dimer") == Chem.CanonSmiles(cyclic)


def test_a_closed_unit_has_mmff_where_an_open_one_has_none() -> None:
    assert conformer("*CC(*)c1ccccc1")[1] == "etkdg"
    assert embedded(prepared("*CC(*)c1ccccc1", "all", "cap"))[1] == "mmff"


def names(smiles: str, fragments: str = "all", repeat_units: str = "keep") -> str:
    return Chem.MolToSmiles(prepared(smiles, fragments, repeat_units))


def test_each_setting_that_changes_coordinates_has_a_cache_of_its_own(tmp_path: Path) -> None:
    changes = [{}, {"conformers": 2}, {"fragments": "largest"}, {"repeat_units": "cap"}]
    folders = {conformer_cache(tmp_path, **{**DEFAULT, **change}).folder for change in changes}
    assert len(folders) == len(changes)
    assert conformer_cache(tmp_path, **{**DEFAULT, "unembeddable": "flat"}).folder in folders


def test_molecules_without_coordinates_are_refused_by_name_unless_flat_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conformers, "_embed", lambda *_: False)
    with pytest.raises(DataError, match=r"2 of 2 cannot be embedded: CCO, CO\. Set the stage's unembeddable: flat"):
        conformer_cache(tmp_path, **DEFAULT).load(["CO", "CCO"])
    taken, status = conformer_cache(tmp_path, **{**DEFAULT, "unembeddable": "flat"}).load(["CO", "CCO"])
    assert status == ["flat", "flat"]
    assert len(taken) == 2
    refuse_flat({"CO": "random_mmff", "C": "etkdg"})


def test_the_cache_gives_values_in_the_order_asked_and_computes_each_once(tmp_path: Path) -> None:
    calls = []

    def compute(keys: list[str]) -> list[tuple[np.ndarray, str]]:
        calls.extend(keys)
        return [(np.full((len(key), 2), len(key), dtype=np.float32), "ok") for key in keys]

    cache = Cache(tmp_path, "length", {"a": 1}, compute)
    cache.compute_shard(["CC", "CCC"])
    values, status = cache.load(["CCC", "C", "CC", "CCC"])
    assert [value.shape for value in values] == [(3, 2), (1, 2), (2, 2), (3, 2)]
    assert [value[0, 0] for value in values] == [3, 1, 2, 3]
    assert status == ["ok"] * 4
    assert sorted(calls) == ["C", "CC", "CCC"]
    cache.load(["C", "CC"])
    assert len(calls) == 3


def test_other_settings_have_another_folder(tmp_path: Path) -> None:
    a = Cache(tmp_path, "x", {"a": 1}, conformer)
    b = Cache(tmp_path, "x", {"a": 2}, conformer)
    assert a.folder != b.folder


def test_how_molecules_fell_into_shards_changes_no_value(tmp_path: Path) -> None:
    smiles = ["CO", "CCO", "c1ccccc1"]
    together, apart = conformer_cache(tmp_path / "a", **DEFAULT), conformer_cache(tmp_path / "b", **DEFAULT)
    together.compute_shard(smiles)
    for text in smiles:
        apart.compute_shard([text])
    for x, y in zip(together.load(smiles)[0], apart.load(smiles)[0], strict=True):
        assert np.array_equal(x, y)


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    cache = conformer_cache(tmp_path, **DEFAULT)
    cache.compute_shard(["CO"])
    shard = next(cache.folder.glob("*.npz"))
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(DataError, match=f"{shard.name} is a damaged part of the cache"):
        cache.missing(["CO"])


def test_an_edit_of_the_code_that_computes_has_another_folder(tmp_path: Path) -> None:
    """Values of older code are never taken for those of today's."""
    folders = []
    for body in ("return 1", "return 2", "return 2  # why"):
        (tmp_path / "own.py").write_text(f"def compute(smiles):\n    {body}\n")
        names: dict = {}
        exec(compile((tmp_path / "own.py").read_text(), str(tmp_path / "own.py"), "exec"), names)
        folders.append(Cache(tmp_path, "x", {}, names["compute"]).folder)
    assert folders[0] != folders[1]
    assert folders[1] == folders[2]
