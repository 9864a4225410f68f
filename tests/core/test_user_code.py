"""Code of the user's own: each file is executed as it stands now, with its own helpers."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.errors import ConfigError
from core.files import write_atomically
from core.user_code import data_files, load_user_code

ANNOTATED = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar, Literal

@dataclass
class Record:
    shared: ClassVar[int] = 1
    value: Literal["a", "b"] = "a"
"""
IMPORTS = """
from helpers import VALUE

def late():
    from tools import deep
    return deep.VALUE
"""


def load(file, name):
    return load_user_code("code", f"{file}:{name}", name)


def test_a_users_file_may_postpone_its_annotations_share_its_name_and_change(tmp_path):
    first, second = tmp_path / "a" / "mine.py", tmp_path / "b" / "mine.py"
    write_atomically(first, ANNOTATED)
    write_atomically(second, "Record = 'of b'")
    assert (load(first, "Record")().value, load(second, "Record")) == ("a", "of b")
    first.write_text("Record = 'changed'\n")
    assert load(first, "Record") == "changed"
    with pytest.raises(ConfigError, match="must define other"):
        load(first, "other")


def test_threads_that_load_a_file_at_once_execute_it_once(tmp_path):
    slow = "import time\ntime.sleep(0.1)\ndef made():\n    return 1\n"
    write_atomically(tmp_path / "mine.py", slow)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(load, [tmp_path / "mine.py"] * 2, ["made"] * 2)
    assert first is second and first() == 1


def test_each_competition_imports_its_helpers_as_they_are_now(tmp_path):
    def values(folder, deep):
        write_atomically(tmp_path / folder / "mine.py", IMPORTS)
        write_atomically(tmp_path / folder / "helpers.py", "from tools.deep import VALUE\n")
        write_atomically(tmp_path / folder / "tools" / "deep.py", f"VALUE = {deep!r}\n")
        user_file = tmp_path / folder / "mine.py"
        return [load(user_file, "VALUE"), load(user_file, "late")()]

    for folder, deep in (("a", "of a"), ("b", "of b"), ("b", "edited")):
        assert values(folder, deep) == [deep, deep]


def test_a_module_next_to_a_users_file_takes_no_librarys_place(tmp_path):
    (tmp_path / "json.py").write_text("dumps = None\n")
    (tmp_path / "mine.py").write_text("import json\n")
    assert load(tmp_path / "mine.py", "json") is json


def test_files_that_a_users_code_names_are_found_among_any_text(tmp_path):
    write_atomically(tmp_path / "table.csv", "x")
    code = f'NAMES = ["table.csv", "absent.csv", "\\0", {"长" * 150!r}, {"a/" * 3000!r}]'
    write_atomically(tmp_path / "mine.py", code)
    assert data_files(tmp_path / "mine.py") == [tmp_path / "table.csv"]


def test_a_link_that_a_users_code_names_is_found_in_its_own_place(tmp_path):
    write_atomically(tmp_path / "elsewhere.csv", "x")
    write_atomically(tmp_path / "code" / "mine.py", 'NAME = "link.csv"')
    (tmp_path / "code" / "link.csv").symlink_to(tmp_path / "elsewhere.csv")
    assert data_files(tmp_path / "code" / "mine.py") == [tmp_path / "code" / "link.csv"]


@pytest.mark.parametrize(
    "expression",
    [
        'DATA / "first.csv"',
        'HERE / "data" / "first.csv"',
        'f"{HERE}/data/first.csv"',
        'os.path.join(os.path.dirname(__file__), "data", "first.csv")',
        'HERE.joinpath("data", NAME)',
    ],
)
def test_a_file_that_is_named_in_parts_is_known_before_the_code_is_executed(tmp_path, expression):
    """Also if C opens it, as of a Parquet file."""
    for name in ("data/first.csv", "data/second.csv", "other/first.csv"):
        write_atomically(tmp_path / name, "x")
    code = f'HERE = Path(__file__).parent\nDATA = HERE / "data"\nNAME = "first.csv"\nread({expression})\n'
    write_atomically(tmp_path / "mine.py", code)
    assert data_files(tmp_path / "mine.py") == [tmp_path / "data" / "first.csv"]


def test_of_files_that_c_opens_those_count_that_lie_where_the_code_reads_such_files(tmp_path):
    """Their names may be computed: not those of another kind, in other folders, or hidden."""
    for name in ("a.parquet", "b.sdf", "data/c.parquet", "other/d.parquet", "data/.e.parquet"):
        write_atomically(tmp_path / name, "x")
    code = "def f(name):\n    return pandas.read_parquet(Path(__file__).parent / 'data' / name)\n"
    write_atomically(tmp_path / "mine.py", code)
    assert data_files(tmp_path / "mine.py") == [tmp_path / "a.parquet", tmp_path / "data" / "c.parquet"]
