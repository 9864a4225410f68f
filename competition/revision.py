"""Version of the code, for the ledger."""

import subprocess

from competition.paths import PROJECT

PACKAGES = ("competition", "folds", "models", "submissions")
"""Packages that make and use a run."""


def revision() -> str:
    """Return the short hash of git, with `-dirty` if files differ; "unknown" if git does not track this code."""
    try:
        # The folder may be inside the repository of another project.
        _git("ls-files", "--error-unmatch", "run.sh")
        return _git("describe", "--always", "--dirty", "--exclude=*", "--abbrev=10").strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PROJECT), *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout
