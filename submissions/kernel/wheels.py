"""The wheels that travel: fetched by pip once, kept in the cache, and checked to be all that is needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from email.parser import BytesHeaderParser
from pathlib import Path

from packaging import tags
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from tqdm import tqdm

from competition.durations import BAR
from competition.errors import DataError, ServiceError
from competition.paths import wheels_cache
from submissions.kernel.packages import Needs, closure, environment_of, image_packages

PLATFORMS = (
    "manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_26_x86_64", "manylinux_2_24_x86_64",
    "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_12_x86_64", "manylinux2010_x86_64",
    "manylinux_2_5_x86_64", "manylinux1_x86_64", "linux_x86_64",
)  # fmt: skip
"""What the image's glibc runs, newest first."""


def collect(needs: Needs, folder: Path, python: str) -> dict[str, str]:
    """Put the wheels of `needs.shipped` into `folder`; returns package -> name of its file.

    Raises:
        ServiceError: if one can be fetched neither as a wheel nor as pure Python.
        DataError: if a wheel needs a package that neither travels nor is in the image.
    """
    folder.mkdir(parents=True)
    files = {}
    bar = tqdm(
        needs.shipped.items(), "wheels", disable=not sys.stderr.isatty(), bar_format=BAR + "{postfix}", leave=False
    )
    for name, version in bar:
        bar.set_postfix_str(name)
        wheel = find(name, version, python)
        shutil.copyfile(wheel, folder / wheel.name)
        files[name] = wheel.name
    check_closed(needs.roots, folder, python)
    return files


def find(name: str, version: str, python: str) -> Path:
    """A wheel for a Python such as 3.12, in the cache, where it is put if it is not there yet.

    Raises:
        ServiceError: if it can be fetched neither as a wheel nor as pure Python.
    """
    cache = wheels_cache()
    cache.mkdir(parents=True, exist_ok=True)
    if cached(name, version, cache, python) is None:
        fetch(name, version, cache, python)
    wheel = cached(name, version, cache, python)
    if wheel is None:
        raise ServiceError(
            f"{name} {version} must be there as a wheel for Python {python} on Linux; pip fetched another one. "
            "Install a version that has one, or do without the stage that imports it."
        )
    return wheel


def cached(name: str, version: str, cache: Path, python: str) -> Path | None:
    """A wheel of the cache that the image's Python takes."""
    taken = set(_tags(python))
    for path in sorted(cache.glob("*.whl")):
        try:
            found, number, _, its = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        if found == name and str(number) == version and its & taken:
            return path
    return None


def _tags(python: str) -> list[tags.Tag]:
    numbers = tuple(int(part) for part in python.split("."))
    own = tags.cpython_tags(numbers, platforms=PLATFORMS)
    return [*own, *tags.compatible_tags(numbers, f"cp{python.replace('.', '')}", PLATFORMS)]


def fetch(name: str, version: str, cache: Path, python: str) -> None:
    """Put a wheel into the cache, whole or not at all; one is built where there is only the source.

    Raises:
        ServiceError: if pip fails, or what it builds is not pure Python.
    """
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
        wanted = [f"{name}=={version}", "--no-deps"]
        failed = _pip("download", *wanted, "--only-binary=:all:", "--python-version", python, *platforms, "-d", folder)
        if failed:
            # The source says the same to every Python: pure Python is all that can be built for another machine.
            failed = _pip("wheel", *wanted, "-w", folder) and failed
        wheels = list(Path(folder).glob("*.whl"))
        if failed or len(wheels) != 1:
            raise ServiceError(
                f"{name} {version} must be fetched by pip for the notebook, and could not be: {failed or 'no wheel'}. "
                "Look at the network and at pip's index, and run again; what was fetched is kept."
            )
        os.replace(wheels[0], cache / wheels[0].name)


def _pip(*arguments: str) -> str:
    """Run pip; returns the last line of what it says where it fails, else nothing."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, *arguments], capture_output=True, text=True, check=False)
    return ((done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]) if done.returncode else ""


def check_closed(roots: list[str], folder: Path, python: str) -> None:
    """Check by the wheels' own metadata that what they need is among them, in range, or in the image.

    Raises:
        DataError: names the first package that is lacking.
    """
    wheels: dict[str, tuple[str, list[Requirement]]] = {}
    for path in sorted(folder.glob("*.whl")):
        own_name, version, _, _ = parse_wheel_filename(path.name)
        wheels[own_name] = (str(version), requirements_of(path))
    image = image_packages() - set(wheels)

    def declared_by(name: str) -> list[Requirement]:
        return wheels[name][1] if name in wheels else []

    shipped, declared = closure(roots, image, environment_of(python), declared_by)
    for name in sorted(shipped):
        wanted = declared.get(canonicalize_name(name), "")
        if name not in wheels or not SpecifierSet(wanted).contains(wheels[name][0], prereleases=True):
            found = f"{wheels[name][0]} travels" if name in wheels else "it neither travels nor is in the image"
            raise DataError(
                f"every package that the notebook needs must travel or be in the image; {name}{wanted} is needed, and "
                f"{found}. Install packages here that fit together (./run.sh in an environment of its own does)."
            )


def requirements_of(wheel: Path) -> list[Requirement]:
    """What a wheel declares in its METADATA.

    Raises:
        DataError: if it is no wheel.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            inside = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
            (name,) = [name for name in inside if name.count("/") == 1]
            header = BytesHeaderParser().parsebytes(archive.read(name))
    except (zipfile.BadZipFile, ValueError) as error:
        raise DataError(f"{wheel} must be a wheel with METADATA ({error}); delete it and run again.") from None
    return [Requirement(text) for text in header.get_all("Requires-Dist") or []]
