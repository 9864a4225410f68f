"""Which code this is, for what has to be made again one day: the ledger, the handover."""

import subprocess

from competition.files import digest, sha256_of
from competition.paths import PROJECT

ROOMS = ("competition", "folds", "models", "submissions")


def revision() -> str:
    """Which code this is: git's short hash, `-dirty` where files differ from it; without git a digest of the code."""
    try:
        _git("ls-files", "--error-unmatch", "run.sh")  # another project's repository may lie around this one
        return _git("describe", "--always", "--dirty", "--exclude=*", "--abbrev=10").strip()
    except (OSError, subprocess.CalledProcessError):
        files = sorted(file for package in ROOMS for file in (PROJECT / package).rglob("*.py"))
        return f"code-{digest({str(file.relative_to(PROJECT)): sha256_of(file) for file in files}, 10)}"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PROJECT), *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout
