"""Conformers and their cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from competition.errors import DataError
from models import conformers
from models.cache import MoleculeCache
from models.conformers import conformer, conformer_cache


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

    def fails(molecule: object, random_coordinates: bool) -> bool:
        tried.append(random_coordinates)
        return False

    monkeypatch.setattr(conformers, "_embed", fails)
    atoms, status = conformer("CCO")
    assert (status, tried) == ("flat", [False, True])
    assert (atoms[:, 3] == 0).all()
    assert np.ptp(atoms[:, 1]) > 1


def test_the_cache_gives_values_in_the_order_asked_and_computes_each_once(tmp_path: Path) -> None:
    calls = []

    def compute(smiles: str) -> tuple[np.ndarray, str]:
        calls.append(smiles)
        return np.full((len(smiles), 2), len(smiles), dtype=np.float32), "ok"

    cache = MoleculeCache(tmp_path, "length", {"a": 1}, compute)
    cache.compute_shard(["CC", "CCC"])
    values, status = cache.load(["CCC", "C", "CC", "CCC"])
    assert [value.shape for value in values] == [(3, 2), (1, 2), (2, 2), (3, 2)]
    assert [value[0, 0] for value in values] == [3, 1, 2, 3]
    assert status == ["ok"] * 4
    assert sorted(calls) == ["C", "CC", "CCC"]
    cache.load(["C", "CC"])
    assert len(calls) == 3


def test_other_settings_have_another_folder(tmp_path: Path) -> None:
    a = MoleculeCache(tmp_path, "x", {"a": 1}, conformer)
    b = MoleculeCache(tmp_path, "x", {"a": 2}, conformer)
    assert a.folder != b.folder


def test_how_molecules_fell_into_shards_changes_no_value(tmp_path: Path) -> None:
    smiles = ["CO", "CCO", "c1ccccc1"]
    together, apart = conformer_cache(tmp_path / "a"), conformer_cache(tmp_path / "b")
    together.compute_shard(smiles)
    for text in smiles:
        apart.compute_shard([text])
    for x, y in zip(together.load(smiles)[0], apart.load(smiles)[0], strict=True):
        assert np.array_equal(x, y)


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    cache = conformer_cache(tmp_path)
    cache.compute_shard(["CO"])
    shard = next(cache.folder.glob("*.npz"))
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(DataError, match=f"{shard.name} must be a part of the cache and is damaged"):
        cache.missing(["CO"])


def test_an_edit_of_the_code_that_computes_has_another_folder(tmp_path: Path) -> None:
    """Values of older code are never taken for those of today's."""
    folders = []
    for body in ("return 1", "return 2", "return 2  # why"):
        (tmp_path / "own.py").write_text(f"def compute(smiles):\n    {body}\n")
        names: dict = {}
        exec(compile((tmp_path / "own.py").read_text(), str(tmp_path / "own.py"), "exec"), names)
        folders.append(MoleculeCache(tmp_path, "x", {}, names["compute"]).folder)
    assert folders[0] != folders[1]
    assert folders[1] == folders[2]
