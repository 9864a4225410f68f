"""A job is worked on in a folder of its own, which becomes the job's folder by one rename: whole, once, or not at all.

    seed_<s>/.fold_<k>.<attempt>/    of a worker that is at it, or was when it was killed
    seed_<s>/fold_<k>/               published

However many workers are at one job, each writes into its own folder, the first rename wins and the others are thrown
away. An attempt goes on from the checkpoint of an earlier one, whose folder it takes by a rename; should that one's
worker live after all, its mark is gone with the folder, so that what it writes from then on is never published.
"""

from __future__ import annotations

import errno
import shutil
import uuid
from pathlib import Path

from competition.errors import DataError
from models.jobs.plan import REPORT

CHECKPOINTS = "checkpoint*.pt"
PROBE = 2**16
"""Bytes: less than that are left on a disk that is called full."""
MARK = ".attempt"
"""A file that only a folder has in which one attempt wrote everything."""


def begin(folder: Path) -> Path:
    """A folder for one attempt at the job of `folder`, empty but for the checkpoints of the one that came furthest."""
    attempt = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}")
    for earlier in sorted(unfinished(folder), key=_last_checkpoint, reverse=True):
        if attempt.exists() or not _renamed(earlier, attempt):
            shutil.rmtree(earlier, ignore_errors=True)
    clear(attempt)
    (attempt / MARK).touch()
    return attempt


def unfinished(folder: Path) -> list[Path]:
    """Folders of attempts at the job of `folder`; also `folder` itself where it is there and was never published."""
    here = [folder] if folder.exists() and not (folder / REPORT).exists() else []
    return sorted(folder.parent.glob(f".{folder.name}.*")) + here


def is_whole(attempt: Path) -> bool:
    """Whether all that was written to the folder of an attempt is still in it."""
    return (attempt / MARK).exists()


def require_room(attempt: Path) -> None:
    """Check that the folder of an attempt that has failed takes new files: libraries say why in words of their own.

    Raises:
        OSError: if it does not.
    """
    probe = attempt / ".probe"
    try:
        probe.write_bytes(bytes(PROBE))
    finally:
        probe.unlink(missing_ok=True)


def finish(attempt: Path, folder: Path) -> bool:
    """Publish the folder of an attempt as that of its job; whether it was the first to be published.

    Raises:
        DataError: if something that is no finished job is in the way.
    """
    try:
        (attempt / MARK).unlink()  # who takes the folder from here on leaves nothing to rename
        attempt.rename(folder)
    except FileNotFoundError:
        first = False
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not (folder / REPORT).exists():
            raise DataError(f"{folder} must be a finished job or not be there; delete it and run again.") from None
        first = False
    else:
        first = True
    for left in unfinished(folder) if first else [attempt]:
        shutil.rmtree(left, ignore_errors=True)
    return first


def clear(folder: Path) -> None:
    """An empty folder for an attempt, but for checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif not path.match(CHECKPOINTS):
            path.unlink()


def _renamed(earlier: Path, attempt: Path) -> bool:
    try:
        earlier.rename(attempt)
    except FileNotFoundError:  # taken by another in the meantime
        return False
    return True


def _last_checkpoint(attempt: Path) -> float:
    """When the last checkpoint was written, by the clock of the file system; 0 without one."""
    return max((path.stat().st_mtime for path in attempt.glob(CHECKPOINTS)), default=0.0)
