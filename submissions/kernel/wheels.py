"""The packages that travel: what a bundle needs and the notebook's image (`image.txt`) has not, fetched by
pip.
"""

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from competition.errors import ServiceError
from competition.files import write_atomically
from competition.paths import PROJECT, Bundle

IMAGE = Path(__file__).with_name("image.txt")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
IMAGE_PYTHON = "3.12"
LINUX = [*(f"manylinux_2_{minor}" for minor in range(28, 4, -1)), "manylinux2014"]
"""The platforms that the image runs, whose glibc is 2.28 or later."""


def add_wheels(bundle: Bundle, estimators: set[str]) -> None:
    """Put requirements.txt and the wheels that it names into a bundle that has all else; the settings name
    these classes, those of packages other than scikit-learn by their dotted names.
    """
    image = image_packages()
    if any(
        bundle.root.rglob("*.skops")
    ):  # only its own version reads an estimator of scikit-learn for certain
        image.discard("scikit-learn")
    versions = versions_of(
        [*project_requirements(), *imported_by(bundle.user, estimators)], image, IMAGE_PYTHON
    )
    print(f"collecting {len(versions)} packages for Python {IMAGE_PYTHON} ...", flush=True)
    write_atomically(bundle.requirements, "".join(f"{name}=={versions[name]}\n" for name in sorted(versions)))
    download(bundle.requirements, bundle.wheels, IMAGE_PYTHON)


def project_requirements() -> list[str]:
    """The requirements of pyproject.toml, such as numpy>=2.0,<2.5."""
    return list(
        tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    )


def image_packages() -> set[str]:
    """Packages that the notebook's image has."""
    lines = IMAGE.read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(name) for line in lines for name in line.partition("#")[0].split()}


def imported_by(folder: Path, classes: set[str]) -> set[str]:
    """Distributions, installed here, that the code below a folder imports, wherever in its files, or of the
    classes.
    """
    modules = set(classes)
    for node in [
        node for file in folder.rglob("*.py") for node in ast.walk(ast.parse(file.read_text("utf-8")))
    ]:
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module or "")
    distributions = metadata.packages_distributions()
    return {found for module in modules for found in distributions.get(module.partition(".")[0], [])}


def versions_of(names: Iterable[str], without: set[str], python: str = PYTHON) -> dict[str, str]:
    """The packages `names` and all that they need on Linux but for those `without`: name -> version installed
    here.
    """
    linux = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}
    there = {"python_version": python, **linux}
    versions, waiting, seen = dict[str, str](), {Requirement(name) for name in names}, set[Requirement]()
    while waiting:
        part = waiting.pop()
        seen.add(part)
        name = canonicalize_name(part.name)
        with suppress(metadata.PackageNotFoundError):
            if name not in without:
                versions[name] = metadata.version(name)
                extras = [there | {"extra": extra} for extra in ("", *part.extras)]
                needs = {Requirement(text) for text in metadata.requires(name) or []} - seen
                waiting |= {
                    need for need in needs if not need.marker or any(map(need.marker.evaluate, extras))
                }
    return versions


def download(requirements: Path, folder: Path, python: str) -> None:
    """Put the wheels of a requirements file into `folder`; pure Python that is published as source is built
    here.
    """
    there = [
        "--implementation=cp",
        f"--python-version={python}",
        *(f"--platform={name}_x86_64" for name in LINUX),
    ]
    pip("download", python, "--no-deps", f"--requirement={requirements}", f"--dest={folder}", *there)
    for source in [path for path in folder.iterdir() if path.suffix != ".whl"]:
        pip("wheel", python, "--no-deps", f"--wheel-dir={folder}", str(source))
        source.unlink()
    if compiled := [wheel.name for wheel in folder.glob("*-linux_*.whl")]:
        raise ServiceError(
            f"{compiled[0]} was built for this machine; leave out the stage that needs the package."
        )


def pip(verb: str, python: str, *options: str) -> None:
    """Run a command of pip for the Python of the image."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", verb, *options]
    same_bytes = os.environ | {"SOURCE_DATE_EPOCH": "1000000000"}  # of a wheel that is built again
    done = subprocess.run(command, capture_output=True, text=True, env=same_bytes)
    if done.returncode:
        reason = (done.stderr.strip() or "no message").splitlines()[-1]
        raise ServiceError(
            f"pip cannot fetch the wheels for Python {python} on Linux: {reason}. Look at the network and "
            f"at pip's "
            "index, or install a version here that has a wheel."
        )
