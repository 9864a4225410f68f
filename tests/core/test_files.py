"""Files: whole or not at all, read as they stand, known by digest."""

import errno
import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

from core.errors import DataError
from core.files import (
    derive_seed,
    digest,
    is_of_system,
    read_json,
    read_table,
    replaced,
    sha256_of,
    table_digest,
    write_atomically,
    write_json,
    write_table,
)
from core.user_tables import read_text_table


def test_a_full_disk_leaves_the_old_file_intact_and_no_temporary_one(tmp_path, monkeypatch):
    def half(self, content):
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "a.csv"
    write_atomically(path, "old")
    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space left"):
        write_table(path, pd.DataFrame({"a": range(100)}))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_equal_values_give_equal_bytes_and_digests_and_seeds_are_plain_sha256(tmp_path):
    path, other = tmp_path / "deep" / "er" / "a.json", tmp_path / "b"
    write_json(path, {"a": 1, "b": 2})
    write_json(other, {"b": 2, "a": 1})
    assert path.read_bytes() == other.read_bytes()
    assert digest({"x": 1, "y": 2}) == digest({"y": 2, "x": 1}) != digest({"x": 2, "y": 1})
    other.write_bytes(b"abc")
    assert sha256_of(other) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert derive_seed(0, "folds") == int(hashlib.sha256(b'["0", "folds"]').hexdigest()[:8], 16)


TEXTS = [
    "a,b",
    'say "x"',
    "two\nlines",
    "two\r\nlines",
    "mac\rline",
    "\r",
    "",
    " padded ",
    "NA",
    "тест 试验",
    "\u2028",
]


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_any_text_and_every_digit_of_a_number_come_back(tmp_path, name):
    rng, n = np.random.default_rng(0), len(TEXTS)
    numbers = rng.normal(size=n) * 10.0 ** rng.integers(-300, 300, n)
    numbers[0] = np.nan
    write_table(tmp_path / name, pd.DataFrame({"id": TEXTS, "y": numbers}))
    read_back = read_table(tmp_path / name)
    assert read_back["id"].tolist() == TEXTS
    np.testing.assert_array_equal(read_back["y"], numbers)
    if name == "a.csv":
        assert read_text_table(tmp_path / name)["id"].tolist() == TEXTS


def test_equal_tables_have_equal_digests_whatever_wrote_them(tmp_path):
    first, second, third = (tmp_path / f"{name}.parquet" for name in "abc")
    table = pd.DataFrame({"id": ["007", "7"], "y": [0.1, np.nan]})
    write_table(first, table)
    parquet.write_table(parquet.read_table(first), second, compression="gzip")  # as another version might
    write_table(third, table.assign(y=[0.1, 0.2]))
    assert sha256_of(first) != sha256_of(second)
    assert table_digest(first) == table_digest(second) != table_digest(third)


def test_a_table_with_a_wrong_byte_is_never_read_with_other_values(tmp_path):
    path = tmp_path / "a.parquet"
    table = pd.DataFrame({"id": ["a", "b"] * 20, "y": np.linspace(0, 1, 40)})
    write_table(path, table)
    sound = path.read_bytes()
    n_broken = 0
    for i in range(0, len(sound), 3):
        path.write_bytes(sound[:i] + bytes([sound[i] ^ 1]) + sound[i + 1 :])
        try:
            assert read_table(path).to_numpy().tolist() == table.to_numpy().tolist(), i
        except DataError:
            n_broken += 1
    assert n_broken > len(sound) / 3 / 3  # other bytes are of names and numbers that no reader uses


def test_an_error_of_the_system_is_told_from_one_of_the_content():
    of_system = [MemoryError(), OSError(errno.EIO, "the disk"), PermissionError(errno.EACCES, "the owner")]
    assert all(map(is_of_system, of_system))
    # Libraries raise these for lengths and places in a damaged file.
    assert not any(
        map(is_of_system, [ValueError(), OSError("not a file of this kind"), OSError(errno.EINVAL, "")])
    )


@pytest.mark.parametrize("read", [read_table, table_digest, read_json])
def test_absent_and_broken_files_are_the_users_to_mend(tmp_path, read):
    path = tmp_path / "a.parquet"
    with pytest.raises(DataError, match="is not there; run the step"):
        read(path)
    path.write_text('{"a": ')
    with pytest.raises(DataError, match="is broken .*delete it and run again"):
        read(path)


def test_an_earlier_folder_is_whole_until_the_new_one_takes_its_place(tmp_path, monkeypatch):
    """A kill at any time leaves one of them: files are deleted only in folders with another name."""
    folder, deleted = tmp_path / "run", []
    delete = shutil.rmtree

    def deleting(path, **options):
        deleted.append(path.name)
        delete(path, **options)

    monkeypatch.setattr(shutil, "rmtree", deleting)
    for text in ("first", "second"):
        with replaced(folder) as new:
            (new / "file").write_text(text)
    with pytest.raises(ValueError, match="stop"), replaced(folder) as new:
        (new / "file").write_text("third")
        raise ValueError("stop")
    assert (folder / "file").read_text() == "second"
    assert "run" not in deleted
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
