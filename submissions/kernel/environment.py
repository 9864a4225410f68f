"""An empty environment in which only what the notebook image has can be imported."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from submissions.kernel.packages import closure, environment_of

JUPYTER = ("ipykernel", "nbclient")
"""What runs a notebook; every image has it."""


def make_environment(folder: Path, names: Iterable[str], without: set[str]) -> tuple[list[str], dict[Path, Path]]:
    """A new virtual environment of this interpreter, with installed packages, those that they need, Jupyter and pip.

    Args:
        folder: replaced if it is there.
        names: distributions; one that is not installed here is left out.
        without: distributions to leave out, unless Jupyter needs them.

    Returns:
        Names of the packages that it has, sorted; and for each folder of a package that is still empty there, the
        folder here that is to be mounted or linked.
    """
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    needed = (_with_requirements(names) - without) | _with_requirements(JUPYTER)
    found = {name: list(metadata.distributions(name=name)) for name in needed}
    whole = dict[Path, Path]()
    for distribution in (distributions[0] for distributions in found.values() if distributions):
        for file in distribution.files or []:
            if file.is_absolute() or ".." in file.parts:  # scripts, with the path of this interpreter
                continue
            top = Path(str(distribution.locate_file(file.parts[0])))
            if site / top.name in whole:
                continue
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            if (top / "__init__.py").is_file():  # else others may have parts of it
                whole[site / top.name] = top
            else:
                link_or_copy(Path(str(distribution.locate_file(file))), site / file)
    # Last: it brings setuptools where there is none.
    pip = [str(folder / "bin" / "python"), "-m", "ensurepip", "--default-pip"]
    subprocess.run(pip, check=True, capture_output=True)
    return sorted(name for name, distributions in found.items() if distributions), whole


def _with_requirements(names: Iterable[str]) -> set[str]:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return closure(map(canonicalize_name, names), set(), environment_of(python), _installed_requirements)[0]


def _installed_requirements(name: str) -> list[Requirement]:
    try:
        return [Requirement(text) for text in metadata.requires(name) or []]
    except metadata.PackageNotFoundError:
        return []


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """A hard link, or a copy where the folders are on different disks; a file that is gone or there is passed over."""
    try:
        os.link(source, target)
    except (FileNotFoundError, FileExistsError):
        return
    except OSError:
        shutil.copy2(source, target)
