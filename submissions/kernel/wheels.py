"""The packages that travel: what a bundle needs and the notebook's image (`image.txt`) has not, fetched by pip."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from competition.errors import DataError, ServiceError
from competition.files import write_atomically
from competition.paths import PROJECT, Bundle, wheels_cache

IMAGE = Path(__file__).with_name("image.txt")
ONLY_FOR = {"unimol-tools": {"unimol", "unimol2"}, "chemprop": {"gnn"}}
"""Packages with many requirements -> the kinds of stages that import them."""
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
GLIBC = ("_2_28", "_2_27", "_2_26", "_2_24", "_2_17", "2014", "_2_12", "2010", "_2_5", "1")
"""The names of what the image's glibc runs, behind `manylinux`."""


def add_wheels(bundle: Bundle, kinds: set[str] | None, python: str) -> dict[str, Any]:
    """Put requirements.txt and the wheels that it names into a bundle that has all else.

    Args:
        kinds: of the stages; None where all packages of the project are needed, as `run.sh` does.
        python: of the notebook's image, such as 3.12.

    Returns:
        What the bundle's manifest says of packages: `python`, and `image`, the requirements that the image must meet.

    Raises:
        DataError: if a package is not installed here.
        ServiceError: if pip cannot fetch one.
    """
    ranges = {canonicalize_name(Requirement(text).name): text for text in project_requirements()}
    roots = [name for name in ranges if kinds is None or kinds & ONLY_FOR.get(name, kinds)]
    image = image_packages()
    if any(bundle.root.rglob("*.skops")):  # only its own version reads an estimator of scikit-learn for certain
        image.discard("scikit-learn")
    versions = versions_of([*roots, *imported_by(bundle.user.rglob("*.py"))], image, python)
    if absent := [name for name, version in versions.items() if version is None]:
        raise DataError(
            f"The notebook needs the package {absent[0]}, which is not installed here, so that its version is not "
            "known. Run ./run.sh check, which installs what is missing, or install it."
        )
    print(f"collecting {len(versions)} packages for Python {python} ...", flush=True)
    write_atomically(bundle.requirements, "".join(f"{name}=={versions[name]}\n" for name in sorted(versions)))
    download(bundle.requirements, bundle.wheels, python)
    return {"python": python, "image": [ranges[name] for name in roots if name in image]}


def project_requirements() -> list[str]:
    """The requirements of pyproject.toml, such as numpy>=2.0,<2.5."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return list(project["dependencies"])


def image_packages() -> set[str]:
    """Packages that the notebook's image has."""
    lines = (line.partition("#")[0] for line in IMAGE.read_text(encoding="utf-8").splitlines())
    return {canonicalize_name(name) for line in lines for name in line.split()}


def imported_by(files: Iterable[Path]) -> set[str]:
    """Distributions, installed here, that files of code import by name, wherever in the file."""
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    distributions = metadata.packages_distributions()
    return {found for name in names for found in distributions.get(name.partition(".")[0], [])}


def versions_of(names: Iterable[str], without: set[str], python: str = PYTHON) -> dict[str, str | None]:
    """The packages `names` and all that they need on Linux, with the versions that are installed here.

    Args:
        without: packages that are left out with what they need.
    """
    there = {"python_version": python, "python_full_version": f"{python}.0", "os_name": "posix"}
    there |= {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}
    versions, seen = dict[str, str | None](), set[str]()
    waiting = [Requirement(name) for name in names]
    while waiting:
        part = waiting.pop()
        name = canonicalize_name(part.name)
        if name in without or str(part) in seen:
            continue
        seen.add(str(part))
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
            continue
        for need in map(Requirement, metadata.requires(name) or []):
            extras = ["", *part.extras]
            if need.marker is None or any(need.marker.evaluate(there | {"extra": extra}) for extra in extras):
                waiting.append(need)
    return versions


def download(requirements: Path, folder: Path, python: str) -> None:
    """Put the wheels of a requirements file into `folder`: from the cache if it has them all, else through pip's index.

    A package that is published as source alone is built here, if it is pure Python.

    Raises:
        ServiceError: if pip fails, or a package cannot be built for another machine.
    """
    cache = wheels_cache()
    for place in (folder, cache):
        place.mkdir(parents=True, exist_ok=True)
    wanted = ["--no-deps", f"--requirement={requirements}", f"--dest={folder}", f"--find-links={cache}"]
    wanted += ["--implementation=cp", f"--python-version={python}", "--platform=linux_x86_64"]
    wanted += [f"--platform=manylinux{glibc}_x86_64" for glibc in GLIBC]
    if not pip("download", "--no-index", *wanted):
        return
    failed = pip("download", *wanted)
    for source in [path for path in folder.iterdir() if path.suffix != ".whl"]:
        failed = failed or pip("wheel", "--no-deps", f"--wheel-dir={folder}", str(source))
        source.unlink()
    if compiled := [wheel.name for wheel in folder.glob("*-linux_*.whl")]:
        failed = failed or f"{compiled[0]} was built for this machine"
    if failed:
        raise ServiceError(
            f"pip cannot fetch the wheels for Python {python} on Linux: {failed}. Look at the network and at pip's "
            "index, install a version here that has a wheel, or leave out the stage that needs the package."
        )
    for wheel in folder.iterdir():
        shutil.copy(wheel, cache)


def pip(*arguments: str) -> str:
    """Run pip; returns the last line of what it says where it fails, else nothing."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stderr.strip() or "no message").splitlines()[-1] if done.returncode else ""
