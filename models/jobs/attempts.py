"""The folder of a job: worked on under another name, and published whole by one rename, or not at all.

seed_<s>/.fold_<k>/    of a worker that is at it, or was when it was killed
seed_<s>/fold_<k>/     published: weights, predictions, and report.json with sizes and sha256
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from competition.errors import DataError
from competition.files import read_json, sha256_of, write_json
from models.jobs.plan import REPORT, Job

CHECKPOINTS = "checkpoint*.pt"


def begin(folder: Path) -> Path:
    """The folder to work at a job in, empty but for the checkpoints of a run that was killed."""
    shutil.rmtree(folder, ignore_errors=True)  # without a report: a copy of it was cut short
    attempt = folder.with_name(f".{folder.name}")
    attempt.mkdir(parents=True, exist_ok=True)
    for path in attempt.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif not path.match(CHECKPOINTS):
            path.unlink()
    return attempt


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Write report.json, last, with the size and digest of every other file.

    The predictions for test tables are not in it, since more of them may follow.
    """
    files = {
        str(path.relative_to(folder)): {"size": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name[0] != "." and "test" not in path.relative_to(folder).parts[:1]
    }
    write_json(folder / REPORT, {**report, "files": files})


def verify(job: Job) -> dict[str, Any]:
    """Report of a finished job whose files are all as they were written.

    Raises:
        DataError: for a missing or changed file.
    """
    report: dict[str, Any] = read_json(job.folder / REPORT, "files", "seconds")
    for name, expected in report["files"].items():
        path = job.folder / name
        if not path.is_file() or path.stat().st_size != expected["size"] or sha256_of(path) != expected["sha256"]:
            raise DataError(
                f"{path} {'has changed' if path.is_file() else 'is gone'} since the job wrote it; delete the folder "
                f"{job.folder} to train it again."
            )
    return report
