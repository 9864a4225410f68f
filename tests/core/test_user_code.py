"""Code of the user's own: each file is executed as it stands now, with its own helpers."""

import json
from pathlib import Path

import pytest

from core.errors import ConfigError
from core.user_code import load_user_code

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


def load(file: Path, name: str) -> object:
    return load_user_code("code", f"{file}:{name}", name)


def test_a_users_file_may_postpone_its_annotations_share_its_name_and_change(tmp_path: Path) -> None:
    first, second = (tmp_path / folder / "mine.py" for folder in ("a", "b"))
    for file, content in ((first, ANNOTATED), (second, "Record = 'of b'")):
        file.parent.mkdir()
        file.write_text(content)
    assert (load(first, "Record")().value, load(second, "Record")) == ("a", "of b")
    first.write_text("Record = 'changed'\n")
    assert load(first, "Record") == "changed"
    with pytest.raises(ConfigError, match="must define other"):
        load(first, "other")


def test_each_competition_imports_its_helpers_as_they_are_now(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        (folder / "tools").mkdir(parents=True)
        (folder / "mine.py").write_text(IMPORTS)
        (folder / "helpers.py").write_text("from tools.deep import VALUE\n")
        (folder / "tools" / "deep.py").write_text(f"VALUE = 'deep of {folder.name}'\n")

    def values(folder: Path) -> list[str]:
        return [load(folder / "mine.py", "VALUE"), load(folder / "mine.py", "late")()]

    assert (values(first), values(second)) == (["deep of a"] * 2, ["deep of b"] * 2)
    (second / "tools" / "deep.py").write_text("VALUE = 'edited'\n")
    assert values(second) == ["edited"] * 2


def test_a_module_next_to_a_users_file_takes_no_librarys_place(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("dumps = None\n")
    (tmp_path / "mine.py").write_text("import json\n")
    assert load(tmp_path / "mine.py", "json") is json
