"""The cache of arrays by molecule or text, and which caches a stage shares with others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import DataError
from models.inputs.cache import Cache
from models.registry import make_stage
from tests.models.made import context, rows


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path: Path, calls: list[str]) -> Cache:
    """Arrays (length of the key, 2) that are full of that length."""

    def compute(keys: list[str]) -> list[np.ndarray]:
        calls.extend(keys)
        return [np.full((len(key), 2), len(key), dtype=np.float32) for key in keys]

    return Cache(tmp_path, "length", {"a": 1}, compute, per_shard=2)


def test_arrays_are_in_the_requested_order_and_each_is_computed_once(cache: Cache, calls: list[str]) -> None:
    cache.compute_shard(["CC", "CCC"])
    assert cache.missing(["C", "CCC", "C", "CCCC"]) == ["C", "CCCC"]
    requested = ["CCC", "C", "CC", "CCC", "CCCCC", "CCCC"]
    for _ in range(2):
        loaded = [(value.shape, value[0, 0]) for value in cache.load(requested)]
        assert loaded == [((len(key), 2), len(key)) for key in requested]
    assert sorted(calls) == ["C", "CC", "CCC", "CCCC", "CCCCC"]
    assert len(list(cache.folder.iterdir())) == 3  # 2 + 2 + 1 of the keys


def test_a_process_reads_the_keys_of_each_shard_once_and_sees_what_others_add(
    cache: Cache, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    np_load = np.load
    monkeypatch.setattr(np, "load", lambda file: opened.append(file.name) or np_load(file))
    first = ["C", "CC"]
    second = ["CCC", "CCCC"]
    cache.compute_shard(first)
    assert cache.missing([*first, *second]) == second
    cache.compute_shard(second)  # as another process would
    assert cache.missing([*first, *second, "N"]) == ["N"]
    assert cache.missing([*first, *second]) == []
    assert opened == [cache.shard(first).name, cache.shard(second).name]
    opened.clear()
    assert [len(value) for value in cache.load(["CCC", "CCCC", "CCC"])] == [3, 4, 3]
    assert opened == [cache.shard(second).name]
    assert calls == first + second


def test_loaded_arrays_do_not_keep_their_shard_in_memory(cache: Cache) -> None:
    cache.compute_shard(["C", "CC"])
    (array,) = cache.load(["CC"])
    assert array.base is None


def test_the_message_on_a_damaged_shard_contains_its_name(cache: Cache) -> None:
    cache.compute_shard(["CO"])
    shard = next(cache.folder.glob("*.npz"))
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(DataError, match=f"{shard.name} is a damaged file of the cache"):
        cache.load(["CO"])


def test_other_settings_or_code_have_another_folder(tmp_path: Path) -> None:
    """Values of older code are never loaded."""
    folders = []
    for body, settings in (
        ("return 1", {}),
        ("return 2", {}),
        ("return 2  # why", {}),
        ("return 2", {"a": 1}),
    ):
        (tmp_path / "user.py").write_text(f"def compute(keys):\n    {body}\n")
        names: dict[str, Any] = {}
        exec(compile((tmp_path / "user.py").read_text(), str(tmp_path / "user.py"), "exec"), names)
        folders.append(Cache(tmp_path, "x", settings, names["compute"]).folder)
    assert folders[1] == folders[2]
    assert len(set(folders)) == 3


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ({"kind": "lightgbm", "features": ["maccs"]}, {"maccs": ["CC", "CO", "N", "O"]}),
        ({"kind": "unimol", "columns": ["b"], "molecule_features": ["erg"]},
         {"conformers": ["N", "O"], "erg": ["CC", "CO", "N", "O"]}),
        ({"kind": "sklearn", "features": [{"encoder": "", "columns": ["b"]}]}, {"embedding": ["N", "O"]}),
        ({"kind": "gnn"}, {}),
    ],
)  # fmt: skip
def test_caches_of_jobs_are_filled_before_them(
    block: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    """This includes features of the head of a network: parallel folds would compute them twice."""
    (tmp_path / "config.json").write_text("{}")  # weights that are not loaded
    for encoder in block.get("features", []):
        if isinstance(encoder, dict):
            encoder["encoder"] = str(tmp_path)
    stage = make_stage(block)
    train = rows(a=["CC", "CO", "CC"], b=["N", "O", "O"])
    caches = stage.caches(context(tmp_path, smiles=["a", "b"]), [train])
    assert {cache.name: keys for cache, keys in caches} == expected
