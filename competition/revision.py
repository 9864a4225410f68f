"""Which code this is, for what has to be made again one day: the ledger, the handover."""

import subprocess

from competition.paths import PROJECT

PACKAGES = ("competition", "folds", "models", "submissions")
"""Folders of the code that makes and uses a run."""


def revision() -> str:
    """Git's short hash, `-dirty` where files differ from it; "unknown" where git does not track this code."""
    try:
        _git("ls-files", "--error-unmatch", "run.sh")  # another project's repository may lie around this one
        return _git("describe", "--always", "--dirty", "--exclude=*", "--abbrev=10").strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PROJECT), *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout
