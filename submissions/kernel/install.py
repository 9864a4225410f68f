"""What the notebook runs first: is the pack whole, and are its packages there: `python -m submissions.kernel.install`.

Nothing beyond the standard library and `packaging`, since what the pack brings may still be missing. Packages of the
image are only held against the ranges of the pack; those that the pack brings are installed from its files, and only
where the image has none in range.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from typing import Any

from packaging.specifiers import SpecifierSet

from competition import command
from competition.errors import DataError
from competition.paths import PROJECT, Pack


def facts_of(pack: Pack) -> dict[str, Any]:
    """Content of pack.json.

    Raises:
        DataError: if it is not there.
    """
    if not pack.facts.is_file():
        raise DataError(f"{pack.facts} must be there, beside the folder of this code; attach the whole pack.")
    return dict(json.loads(pack.facts.read_text()))


def check_files(pack: Pack, facts: dict[str, Any]) -> None:
    """Check that every file of the pack is as it was packed.

    Raises:
        DataError: names a file that is missing or has changed.
    """

    def state(name: str) -> str:
        path, expected = pack.root / name, facts["files"][name]
        if not path.is_file():
            return "is missing"
        if path.stat().st_size != expected["size"]:
            return f"has {path.stat().st_size} bytes instead of {expected['size']}"
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        return "" if found == expected["sha256"] else "has changed"

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing lets other threads run
        states = dict(zip(facts["files"], pool.map(state, facts["files"]), strict=True))
    wrong = [f"{name} {found}" for name, found in states.items() if found]
    if wrong:
        more = f" (and {len(wrong) - 1} more files)" if len(wrong) > 1 else ""
        raise DataError(
            f"{pack.root} must be the pack as ./run.sh kernel wrote it, but {wrong[0]}{more}. Upload it again."
        )


def in_range(name: str, wanted: str) -> bool:
    """Whether a package is installed, in a version of the range."""
    try:
        return SpecifierSet(wanted).contains(metadata.version(name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False


def lacking(facts: dict[str, Any]) -> list[str]:
    """Packages of the pack that are not installed in a version of their range."""
    return [name for name, wheel in facts["wheels"].items() if not in_range(name, wheel["range"])]


def check_packages(facts: dict[str, Any]) -> None:
    """Check Python and the packages of image and pack by their ranges.

    Raises:
        DataError: with all that do not fit.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    wrong = [] if version == facts["python"] else [f"Python {version}, needed {facts['python']}"]
    for name, wanted in {**facts["image"], **{n: facts["wheels"][n]["range"] for n in lacking(facts)}}.items():
        if not in_range(name, wanted):
            try:
                found = f"{name} {metadata.version(name)}"
            except metadata.PackageNotFoundError:
                found = f"no {name}"
            wrong.append(f"{found}, needed {name}{wanted}")
    if wrong:
        raise DataError(
            f"this machine must have the packages that the pack was made for; found {'; '.join(wrong)}. "
            "Choose another notebook image, or make the pack again for this one."
        )


def install(pack: Pack, facts: dict[str, Any]) -> list[str]:
    """Install what is lacking from the wheels of the pack; returns the names.

    Raises:
        DataError: if a wheel is not there, or pip fails.
    """
    names = lacking(facts)
    files = [pack.wheels / facts["wheels"][name]["file"] for name in names]
    for file in files:
        if not file.is_file():
            raise DataError(f"the package {file.name} must be in {file.parent}; upload the whole pack again.")
    if files:
        # Nothing else is looked at: the pack was checked to be closed when it was made.
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-warn-conflicts"]
        done = subprocess.run([*pip, *map(str, files)], capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
            raise DataError(f"pip must install the wheels of {pack.wheels}, and fails: {last}")
    return names


def main() -> None:
    """Command line."""
    pack = Pack(PROJECT.parent)
    facts = facts_of(pack)
    names = install(pack, facts)
    check_packages(facts)
    print(f"installed from the pack: {', '.join(names) or 'nothing, the image has all'}")


if __name__ == "__main__":
    command.run(main)
