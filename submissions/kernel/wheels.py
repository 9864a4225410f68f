"""The packages that travel: what a bundle needs and the notebook's image (`image.txt`) has not, fetched by pip."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
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
GLIBC = (28, 27, 26, 24, 17, 12, 5)
PLATFORMS = [f"--platform=manylinux_2_{minor}_x86_64" for minor in GLIBC] + [
    f"--platform={name}_x86_64" for name in ("manylinux2014", "manylinux2010", "manylinux1", "linux")
]
"""What the image's glibc runs."""


def add_wheels(bundle: Bundle, kinds: set[str], python: str) -> dict[str, Any]:
    """Put requirements.txt and the wheels that it names into a bundle that has all else.

    Args:
        kinds: of the stages.
        python: of the notebook's image, such as 3.12.

    Returns:
        What the bundle's manifest says of packages: `python`, and `image`, the requirements that the image must meet.

    Raises:
        DataError: if a package is not installed here.
        ServiceError: if pip cannot fetch one.
    """
    ranges = {str(canonicalize_name(Requirement(text).name)): text for text in project_requirements()}
    roots = [text for name, text in ranges.items() if kinds & ONLY_FOR.get(name, kinds)]
    image = image_packages()
    if any(bundle.root.rglob("*.skops")):  # only its own version reads an estimator of scikit-learn for certain
        image.discard("scikit-learn")
    pins = pinned([*roots, *imported_by(bundle.user.rglob("*.py"))], image, python)
    print(f"collecting {len(pins)} packages for Python {python} ...", flush=True)
    write_atomically(bundle.requirements, "".join(f"{pin}\n" for pin in pins))
    download(bundle.requirements, bundle.wheels, python)
    return {"python": python, "image": [ranges[name] for name in sorted(image & set(ranges)) if ranges[name] in roots]}


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
    modules = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
    distributions = metadata.packages_distributions()
    return {name for module in modules for name in distributions.get(module, [])}


def pinned(roots: Iterable[str], image: set[str], python: str) -> list[str]:
    """What `roots` need beyond the image, themselves included, in the versions that are installed here.

    Raises:
        DataError: if a package is not installed here.
    """
    there = {"python_version": python, "python_full_version": f"{python}.0", "os_name": "posix", "extra": ""}
    there |= {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}
    pins = dict[str, str]()
    seen = set[str]()
    waiting = [Requirement(root) for root in roots]
    while waiting:
        part = waiting.pop()
        name = canonicalize_name(part.name)
        if name in image or str(part) in seen:
            continue
        seen.add(str(part))
        try:
            pins[name] = f"{name}=={metadata.version(name)}"
        except metadata.PackageNotFoundError:
            raise DataError(
                f"The package {name}, which the notebook needs, is not installed here, so its version is not known. "
                "Run ./run.sh check once, which installs what is missing, or install it."
            ) from None
        for need in map(Requirement, metadata.requires(name) or []):
            extras = [there | {"extra": extra} for extra in ("", *part.extras)]
            if need.marker is None or any(need.marker.evaluate(extra) for extra in extras):
                waiting.append(need)
    return sorted(pins.values())


def download(requirements: Path, folder: Path, python: str) -> None:
    """Put the wheels of a requirements file into `folder`: from the cache if it has them all, else through pip's index.

    A package that is published as source alone is built here, if it is pure Python.

    Raises:
        ServiceError: if pip fails, or a package cannot be built for another machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cache = wheels_cache()
    cache.mkdir(parents=True, exist_ok=True)
    target = ["--implementation=cp", f"--python-version={python}", *PLATFORMS]
    wanted = ["--no-deps", f"--requirement={requirements}", f"--dest={folder}", f"--find-links={cache}", *target]
    if not _pip("download", "--no-index", *wanted):
        return
    failed = _pip("download", *wanted)
    for source in _sources(folder):
        failed = failed or _pip("wheel", "--no-deps", f"--wheel-dir={folder}", str(source))
        source.unlink()
    own = [wheel.name for wheel in folder.glob("*-linux_*.whl")]  # built here, with compiled code
    if failed or own:
        raise ServiceError(
            f"pip cannot fetch the wheels for Python {python} on Linux: {failed or f'{own[0]} is for this machine'}. "
            "Look at the network and at pip's index, install a version here that has a wheel, or leave out the stage "
            "that needs the package."
        )
    for wheel in folder.glob("*.whl"):
        shutil.copy(wheel, cache)


def _sources(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.name.endswith((".tar.gz", ".zip")))


def _pip(*arguments: str) -> str:
    """Run pip; returns the last line of what it says where it fails, else nothing."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, *arguments], capture_output=True, text=True, check=False)
    return ((done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]) if done.returncode else ""
