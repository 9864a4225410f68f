"""The cache of arrays by molecule or text."""

import tracemalloc
from typing import Any

import numpy as np
import pytest

from models.inputs.cache import Cache, _index_of_folder


@pytest.fixture
def calls():
    return []


@pytest.fixture
def cache(tmp_path, calls):
    """Arrays (length of the key, 2) that are full of that length."""

    def compute(keys):
        calls.extend(keys)
        return [np.full((len(key), 2), len(key), dtype=np.float32) for key in keys]

    return Cache(tmp_path, "length", {"a": 1}, compute, per_shard=2)


def test_arrays_are_in_the_requested_order_and_each_is_computed_once_by_all_processes(cache, calls):
    requested = ["CCC", "C", "CC", "CCC", "CCCCC", "CCCC"]
    assert cache.missing(requested) == ["C", "CC", "CCC", "CCCC", "CCCCC"]
    cache.compute_shard(["CC", "CCC"])  # as another process would
    assert cache.missing(requested) == ["C", "CCCC", "CCCCC"]
    for _ in range(2):
        loaded = cache.load(requested)
        assert [(value.shape, value[0, 0]) for value in loaded] == [((len(k), 2), len(k)) for k in requested]
        assert all(value.base is None for value in loaded)  # a view keeps its shard in memory
    assert calls == ["CC", "CCC", "C", "CCCC", "CCCCC"]
    assert len(list(cache.folder.iterdir())) == 3  # 2 + 2 + 1 of the keys


def test_a_long_key_takes_no_memory_for_the_others_and_keys_keep_their_nuls(cache, calls):
    """An array of texts would take 400 MB."""
    keys = [f"{number:05}" for number in range(999)] + ["x" * 100_000, "C\0", "\ud83d"]
    tracemalloc.start()
    cache.compute_shard(keys)
    _index_of_folder.cache_clear()  # as in another process
    assert cache.missing(keys) == []
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    assert len(cache.load(["C\0"])[0]) == 2 and len(calls) == len(keys)


@pytest.mark.parametrize("is_indexed", [False, True])
def test_a_damaged_shard_is_deleted_with_a_line_and_computed_again(cache, calls, capsys, is_indexed):
    before = cache.load(["CO", "CCO"])
    shard = next(cache.folder.glob("*.npz"))
    _index_of_folder.cache_clear()  # as in another process
    if is_indexed:
        assert cache.missing(["CO"]) == []
    shard.write_bytes(shard.read_bytes()[:100])
    np.testing.assert_array_equal(cache.load(["CO", "CCO"])[1], before[1])
    assert calls == ["CCO", "CO"] * 2
    assert f"{shard.name} is damaged" in capsys.readouterr().out
    _index_of_folder.cache_clear()
    assert cache.missing(["CO", "CCO"]) == []


def test_other_settings_or_code_have_another_folder(tmp_path):
    """Values of older code are never loaded."""
    file, folders = tmp_path / "user.py", []
    for body, settings in (
        ("return 1", {}),
        ("return 2", {}),
        ("return 2  # why", {}),
        ("return 2", {"a": 1}),
    ):
        file.write_text(f"def compute(keys):\n    {body}\n")
        names: dict[str, Any] = {}
        exec(compile(file.read_text(), str(file), "exec"), names)
        folders.append(Cache(tmp_path, "x", settings, names["compute"]).folder)
    assert folders[1] == folders[2]
    assert len(set(folders)) == 3
    file.write_text("def compute(keys):\n    return 3\n")  # an edit while the process has the code of before
    assert Cache(tmp_path, "x", settings, names["compute"]).folder == folders[-1]
