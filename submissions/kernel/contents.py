"""Copies into a bundle: code, files of the user's, pretrained weights; and what must not be in it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from competition.errors import DataError
from competition.files import digest, sha256_of
from competition.paths import PROJECT, Bundle, work_root
from competition.revision import ROOMS
from models.inputs.weights import find_weights
from models.weight_sets import WEIGHT_SETS
from submissions.config import Config

SCRIPTS = ("run.sh", "setup.sh", "pyproject.toml")
CODE = (".py", ".txt", ".html", ".css", ".js", ".jinja", ".ipynb", ".yaml")
"""Other files that a user keeps among the code, such as tables or credentials, stay at home."""
NOT_CODE = {"__pycache__", "configs", "data"}
TEXT = (".json", ".txt", ".csv", ".py", ".sh", ".toml", ".yaml")


def copy_code(bundle: Bundle) -> None:
    """Copy the four packages and what `./run.sh` needs."""
    files = [file.relative_to(PROJECT) for room in ROOMS for file in sorted((PROJECT / room).rglob("*"))]
    files = [file for file in files if file.suffix in CODE and NOT_CODE.isdisjoint(file.parts)]
    for file in (*files, *map(Path, SCRIPTS)):
        if not any(part.startswith(".") for part in file.parts):
            copy(PROJECT / file, bundle.code / file)


def copy(source: Path, target: Path) -> Path:
    """Copy a file's content to a folder that need not be there; returns `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(source, target))


def relocated(settings: Any, place: Callable[[Path], str]) -> Any:
    """Settings with each path, also that of file.py:name, replaced by what `place` says of it."""
    match settings:
        case dict():
            return {key: relocated(value, place) for key, value in settings.items()}
        case list() | tuple():
            return [relocated(value, place) for value in settings]
        case Path():
            return place(settings)
        case str() if re.fullmatch(r"/.+\.py:\w+", settings):
            file, _, name = settings.rpartition(":")
            return f"{place(Path(file))}:{name}"
    return settings


def copy_of_user(file: Path, bundle: Bundle, named_in: Path) -> str:
    """Copy a file of the user's, or a folder of predictions; returns its path relative to a folder of the bundle."""
    if file.is_dir():
        target = bundle.user / digest(str(file), 8) / file.name
        for name in ("oof.csv", "test.csv"):
            copy(file / name, target / name)
    else:
        target = copy(file, bundle.user / sha256_of(file)[:8] / file.name)
    return os.path.relpath(target, named_in)


def copy_weights(named: str, stage: str, bundle: Bundle) -> str:
    """Copy the pretrained files of a stage; returns what names them in the notebook.

    Raises:
        ConfigError: if they are out of reach.
    """
    folder = bundle.weights / (named if named in WEIGHT_SETS else stage)
    for name, file in find_weights(named).items():
        copy(file, folder / name)
    return named if named in WEIGHT_SETS else str(folder.relative_to(bundle.root))


def require_no_paths(bundle: Bundle, config: Config) -> None:
    """Check that no packed file of text names a folder of this machine.

    Raises:
        DataError: if one does.
    """
    competition = config.competition
    folders = {PROJECT, work_root().absolute(), Path.home(), competition.train.parent, competition.test.parent}
    for file in sorted(path for path in bundle.root.rglob("*") if path.suffix in TEXT and path.is_file()):
        content = file.read_bytes()
        named = [folder for folder in folders if len(folder.parts) > 2 and str(folder).encode() in content]
        if named:
            raise DataError(
                f"{file.relative_to(bundle.root)} would travel and names {named[0]}, a folder of this machine. Write "
                "paths relative to the file that uses them, or leave them out."
            )
