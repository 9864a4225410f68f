"""The program: its commands, and what the longer ones do."""

from importlib.util import find_spec
from pathlib import Path

NEEDED = ("core", "competition", "folds", "models", "submissions")
"""Packages that this one imports. The folder of a script, which Python searches first, may have one of that name."""


def _require_own_packages() -> None:
    """Raise an ImportError if Python finds, or has imported, another package of such a name."""
    project = Path(__file__).resolve().parents[1]
    for name in NEEDED:
        spec = find_spec(name)
        if spec is None:
            continue
        places = spec.submodule_search_locations or [str(spec.origin)]
        found = Path(next(iter(places))).resolve()
        if found != project / name:
            raise ImportError(
                f"pipeline needs {project / name}, but Python finds {name!r} in {found}. Rename the latter; or, if "
                f"your code does not import it, start with: import sys; sys.path.insert(0, {str(project)!r})"
            )


_require_own_packages()
