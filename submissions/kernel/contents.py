"""Copies into a bundle: code, files of the user's, pretrained weights; and what must not be in it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from competition.errors import DataError
from competition.files import digest
from competition.paths import PROJECT, Bundle, work_root
from competition.revision import ROOMS
from models.inputs.weights import WEIGHT_SETS, find_weights

SCRIPTS = ("run.sh", "setup.sh", "pyproject.toml")
CODE = (".py", ".txt", ".html", ".css", ".js", ".jinja", ".ipynb", ".yaml")
"""Other files that a user keeps among the code, such as tables or credentials, stay at home."""
NOT_CODE = {"configs", "data"}


def copy_code(bundle: Bundle) -> None:
    """Copy the four packages and what `./run.sh` needs."""
    for file in [file for room in ROOMS for file in (PROJECT / room).rglob("*") if file.suffix in CODE]:
        inside = file.relative_to(PROJECT)
        if NOT_CODE.isdisjoint(inside.parts) and not any(part.startswith(".") for part in inside.parts):
            copy(file, bundle.code / inside)
    for name in SCRIPTS:
        copy(PROJECT / name, bundle.code / name)


def copy(source: Path, target: Path) -> None:
    """Copy a file's content to a folder that need not be there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def copy_of_user(path: Path, bundle: Bundle, named_in: Path) -> str:
    """Copy a file of the user's, or a folder of predictions; returns its path relative to a folder of the bundle."""
    target = bundle.user / digest(str(path), 8) / path.name
    for file in [path / "oof.csv", path / "test.csv"] if path.is_dir() else [path]:
        copy(file, target / file.relative_to(path))
    return os.path.relpath(target, named_in)


def copy_weights(named: str, stage: str, bundle: Bundle) -> str:
    """Copy the pretrained files of a stage; returns what names them in the notebook."""
    folder = bundle.weights / (named if named in WEIGHT_SETS else stage)
    for name, file in find_weights(named).items():
        copy(file, folder / name)
    return named if named in WEIGHT_SETS else str(folder.relative_to(bundle.root))


def require_no_paths(bundle: Bundle) -> None:
    """Refuse a packed file of text that names a folder of this machine."""
    folders = [folder for folder in (PROJECT, work_root().absolute(), Path.home()) if len(folder.parts) > 2]
    for file in sorted(path for path in bundle.root.rglob("*") if path.suffix in (*CODE, ".json", ".csv")):
        content = file.read_text("utf-8", errors="replace")
        if named := [folder for folder in folders if str(folder) in content]:
            raise DataError(
                f"{file.relative_to(bundle.root)} would travel and names {named[0]}, a folder of this machine. Write "
                "paths relative to the file that uses them, or leave them out."
            )
