"""Which packages a notebook needs beyond those of its image.

For training these are all of pyproject.toml. For prediction the roots are found by really predicting two rows with
every job of the pack in a process of its own (`submissions.kernel.rehearsal`) and looking at what it imported. What
they declare to need follows from their metadata, with markers evaluated for the image. What the image has (`image.txt`)
does not travel; its versions are checked there.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pandas as pd
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from competition.errors import DataError
from competition.files import read_json, read_table, write_table
from competition.paths import PROJECT, Pack, Paths
from submissions.config import Config

N_ROWS = 2
IMAGE = Path(__file__).with_name("image.txt")
ESTIMATORS = "skops"
"""Where it is imported, weights are estimators of scikit-learn, which only their own version reads for certain."""
OF_ONE_VERSION = "scikit-learn"


@dataclass(frozen=True)
class Needs:
    """What a notebook imports.

    shipped: package -> version; those that travel.
    ranges: package -> versions that will do, of those that travel.
    image: package -> versions that will do, of those that the image has.
    roots: packages that are imported and that the project, or code of the user's, names itself.
    """

    shipped: dict[str, str]
    ranges: dict[str, str]
    image: dict[str, str]
    roots: list[str]


def needs_of(paths: Paths, config: Config, pack: Pack, python: str) -> Needs:
    """What the notebook needs to predict with a pack, whose code, run and jobs are there.

    Raises:
        DataError: if two rows cannot be predicted with it, or a package that it needs is not installed here.
    """
    found = set(map(canonicalize_name, rehearse(paths, config, pack)))
    roots = {name for name in found if name in project_ranges()} | found & imports_of(pack.user.rglob("*.py"))
    return _needs(roots, python, ESTIMATORS in roots)


def needs_of_training(pack: Pack, python: str) -> Needs:
    """What any training needs, and what code of the user's in a pack imports.

    Raises:
        DataError: if a package is not installed here.
    """
    return _needs({*project_ranges(), *imports_of(pack.user.rglob("*.py"))}, python, False)


def _needs(roots: Iterable[str], python: str, one_version: bool) -> Needs:
    """`one_version`: whether OF_ONE_VERSION has to be the one that is installed here."""
    ranges, image = project_ranges(), image_packages()
    if one_version:
        image -= {OF_ONE_VERSION}
    shipped, declared = closure(roots, image, environment_of(python), installed_requirements)
    versions = {name: _version(name) for name in sorted(shipped)}
    wanted = {name: ranges.get(name, declared.get(name, "")) for name in sorted({*shipped, *declared, *roots})}
    if OF_ONE_VERSION in versions:
        wanted[OF_ONE_VERSION] = f"=={versions[OF_ONE_VERSION]}"
    return Needs(
        versions,
        {name: wanted[name] for name in versions},
        {name: needed for name, needed in wanted.items() if name in image},
        sorted(roots),
    )


def rehearse(paths: Paths, config: Config, pack: Pack) -> list[str]:
    """Predict two rows with the code and weights of the pack alone; the distributions that were imported.

    Raises:
        DataError: if that fails.
    """
    competition = config.competition
    table = read_table(paths.test)[[competition.id, *competition.inputs]].head(N_ROWS)
    with tempfile.TemporaryDirectory(prefix="rows_") as folder:
        rows, out = Path(folder) / "test.csv", Path(folder) / "imported.json"
        write_table(rows, pd.DataFrame(table))
        done = subprocess.run(
            [sys.executable, "-m", "submissions.kernel.rehearsal", paths.name, str(rows), str(out)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(pack.code), "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not out.exists():
            last = (done.stderr.strip() or "it was ended").splitlines()[-1]
            raise DataError(f"what is packed must predict rows of {paths.test} by itself, and does not: {last}")
        return list(read_json(out))


def imports_of(files: Iterable[Path]) -> set[str]:
    """Distributions that files of code import by name, wherever in the file."""
    modules = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
    distributions = metadata.packages_distributions()
    return {canonicalize_name(name) for module in modules for name in distributions.get(module, [])}


def project_ranges() -> dict[str, str]:
    """Package -> range of pyproject.toml."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    requirements = map(Requirement, project["dependencies"])
    return {canonicalize_name(part.name): str(part.specifier) for part in requirements}


def image_packages() -> set[str]:
    """Packages that the notebook's image has."""
    lines = (line.partition("#")[0].strip() for line in IMAGE.read_text().splitlines())
    return {canonicalize_name(name) for line in lines for name in line.split()}


def environment_of(python: str) -> dict[str, str]:
    """What markers of requirements say of the image."""
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }


def installed_requirements(name: str) -> list[Requirement]:
    """What an installed package declares.

    Raises:
        DataError: if it is not installed here.
    """
    _version(name)
    return [Requirement(text) for text in metadata.requires(name) or []]


def closure(
    roots: Iterable[str],
    image: set[str],
    environment: dict[str, str],
    requirements_of: Callable[[str], list[Requirement]],
) -> tuple[set[str], dict[str, str]]:
    """What is needed beyond the image.

    Returns:
        The packages that the image has not; and for all that one of these declares, the versions that will do.
    """
    waiting, seen = [(name, "") for name in sorted(roots)], set[tuple[str, str]]()
    shipped, declared = set[str](), dict[str, SpecifierSet]()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen or (name in image and not extra):
            continue
        seen.add((name, extra))
        if name not in image:
            shipped.add(name)
        for part in requirements_of(name):
            holds = part.marker is None or part.marker.evaluate({**environment, "extra": extra})
            for_all = part.marker is None or part.marker.evaluate({**environment, "extra": ""})
            if holds and not (name in image and for_all):  # of a package of the image, what its extra adds
                other = canonicalize_name(part.name)
                declared[other] = declared.get(other, SpecifierSet()) & part.specifier
                waiting += [(other, wanted) for wanted in ("", *sorted(part.extras))]
    return shipped, {name: str(wanted) for name, wanted in declared.items()}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        raise DataError(
            f"the package {name} must be installed here to be packed, and is not; run ./run.sh once, or install it."
        ) from None
