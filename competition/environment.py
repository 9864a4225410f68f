"""Check the interpreter in use against the ranges of pyproject.toml: `python competition/environment.py`.

For interpreters that are not ours to install into (a virtual environment of yours, conda, a Kaggle kernel).
Standard library only, since nothing else may be there.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path


def mismatches(requirements: list[str], requires_python: str) -> list[str]:
    """What does not fit: one line per requirement such as `numpy>=2,<2.3`, what was found, what is needed."""
    found = []
    version = ".".join(str(part) for part in sys.version_info[:3])
    if not within(version, requires_python):
        found.append(f"Python {version}, needed {requires_python}")
    for requirement in requirements:
        match = re.match(r"([A-Za-z0-9_.-]+)(.*)", requirement)
        assert match is not None
        name, wanted = match.groups()
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            found.append(f"{name} is missing, needed {name}{wanted}")
            continue
        if not within(version, wanted):
            found.append(f"{name} {version}, needed {wanted}")
    return found


def within(version: str, wanted: str) -> bool:
    """Whether a version such as 2.13.0+cpu fits a range such as >=2.10,<3."""
    for condition in filter(None, wanted.split(",")):
        match = re.match(r"(>=|<|==)\s*([\d.]+)", condition.strip())
        assert match is not None, f"a range in pyproject.toml must use >=, < or ==; found {condition!r}"
        sign, bound = match.groups()
        a, b = _numbers(version), _numbers(bound)
        width = max(len(a), len(b))
        a, b = a + [0] * (width - len(a)), b + [0] * (width - len(b))
        if not {">=": a >= b, "<": a < b, "==": a == b}[sign]:
            return False
    return True


def _numbers(version: str) -> list[int]:
    match = re.match(r"[\d.]+", version)
    return [int(part) for part in (match.group(0) if match else "0").strip(".").split(".")]


def main() -> None:
    """Command line: exit status 2 with the list of what does not fit."""
    file = Path(__file__).resolve().parents[1] / "pyproject.toml"
    project = tomllib.loads(file.read_text())["project"]
    found = mismatches(project["dependencies"], project["requires-python"])
    if found:
        what_to_do = (
            "Where there is internet, make a data set with the wheels of what the image lacks: ./run.sh kernel NAME "
            "--training; its notebook installs them. (The pins of requirements.txt would replace the image's torch.)"
            if os.environ.get("KAGGLE_KERNEL_RUN_TYPE")
            else f"Install them yourself (pip install -r {file.parent / 'requirements.txt'}), or leave the environment "
            "(deactivate) and run again: ./run.sh then makes its own."
        )
        print(
            "This interpreter must have the packages of pyproject.toml, and does not:\n  "
            + "\n  ".join(found)
            + f"\n{what_to_do}",
            file=sys.stderr,
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
