"""The folder of a job: worked on under another name, published by one rename, whole, once, or not at all.

    seed_<s>/.fold_<k>.<attempt>/    of a worker that is at it, or was when it was killed
    seed_<s>/fold_<k>/               published: weights, predictions, and report.json with sizes and sha256

A later attempt goes on from the checkpoint of an earlier one, whose folder it takes by a rename. Should that one's
worker live after all, as that of a lost machine may, its mark is gone, and what it writes is never published.
"""

from __future__ import annotations

import errno
import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from competition.errors import DataError
from competition.files import read_json, sha256_of, write_json
from models.jobs.plan import REPORT, Job

CHECKPOINTS = "checkpoint*.pt"
MARK = ".attempt"
"""A file that only a folder has in which one attempt wrote everything."""


def begin(folder: Path) -> Path:
    """A folder for one attempt at the job of `folder`, empty but for the checkpoints of the one that came furthest."""
    attempt = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}")
    for earlier in sorted(unfinished(folder), key=_last_checkpoint, reverse=True):
        if attempt.exists():
            shutil.rmtree(earlier, ignore_errors=True)
        else:
            with suppress(FileNotFoundError):  # another attempt has just taken it
                earlier.rename(attempt)
    attempt.mkdir(parents=True, exist_ok=True)
    for path in attempt.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif not path.match(CHECKPOINTS):
            path.unlink()
    (attempt / MARK).touch()
    return attempt


def unfinished(folder: Path) -> list[Path]:
    """Folders of attempts at the job of `folder`; also `folder` itself where it is there without a report."""
    here = [folder] if folder.exists() and not (folder / REPORT).exists() else []
    return sorted(folder.parent.glob(f".{folder.name}.*")) + here


def _last_checkpoint(attempt: Path) -> float:
    """When the last checkpoint was written, by the clock of the file system; 0 without one."""
    return max((path.stat().st_mtime for path in attempt.glob(CHECKPOINTS)), default=0.0)


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Write report.json, last, with the size and digest of every other file.

    The predictions for test tables have digests of their own, since more of them may follow.
    """
    files = {
        str(path.relative_to(folder)): {"size": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name[0] != "." and "test" not in path.relative_to(folder).parts[:1]
    }
    write_json(folder / REPORT, {**report, "files": files})


def publish(attempt: Path, folder: Path) -> None:
    """Rename a finished attempt to the folder of its job. Of two the first is published, the other thrown away."""
    try:
        (attempt / MARK).unlink()  # who takes the folder from here on leaves nothing to rename
        attempt.rename(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not (folder / REPORT).exists():
            raise
    for left in unfinished(folder) if (folder / REPORT).exists() else [attempt]:
        shutil.rmtree(left, ignore_errors=True)


def verify(job: Job) -> dict[str, Any]:
    """Report of a finished job whose files are all as they were written.

    Raises:
        DataError: for a missing or changed file.
    """
    report: dict[str, Any] = read_json(job.folder / REPORT, "files", "seconds")
    for name, expected in report["files"].items():
        path = job.folder / name
        if not path.is_file() or path.stat().st_size != expected["size"] or sha256_of(path) != expected["sha256"]:
            state = "has changed" if path.is_file() else "is gone"
            raise DataError(f"{path} {state} since the job wrote it; delete the folder {job.folder} to train it again.")
    return report
