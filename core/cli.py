"""How a command ends: its exit status, and the locks on the outputs of a competition."""

import errno
import fcntl
import json
import os
import signal
import socket
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.errors import DataError, Mistake, UserError
from core.files import plain, work_root
from core.paths import Paths

NOT_WRITABLE = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR,
    errno.ENOLCK, errno.EOPNOTSUPP,
)  # fmt: skip
"""Error numbers of the system for a folder in which files cannot be written or locked."""
ENDS = (UserError, KeyboardInterrupt, OSError)
"""Errors that may end a command without a traceback."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end a command as Ctrl-C does. Batch systems send SIGTERM before their time limit."""
HELD_TRAINING_LOCKS: dict[Path, int] = {}
"""Training locks that this process holds -> the thread that works under each; `fit` runs in any thread."""


def run(main: Callable[[], int | None]) -> None:
    """Run a command and exit with the status that it returns.

    0: everything was done. 3: the submission is valid, but something failed and was left out. 2: an error of
    the user, reported in one sentence, or a full disk. 1: there is nothing to submit. 130: one of SIGNALS.
    """
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, signal.default_int_handler)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # one may have come while modules were imported
        status = main()
    except BrokenPipeError:
        sys.exit(141)
    except ENDS as error:
        status, message = explain(error)
        print(message, file=sys.stderr)
        if "--json" in sys.argv:  # before the options were read
            print(json.dumps({"status": status, "seconds": 0.0, "mistakes": _error_records(error, message)}))
    if status:
        sys.exit(status)


def run_for_programs(command: Callable[[Namespace], int | None], options: Namespace) -> int:
    """Run a command, and write one line of JSON to stdout at the end; everything else goes to stderr.

    The line has the exit status, which is returned, the seconds, and `options.result`, which the command
    fills, or the mistakes of the user.
    """
    started = time.monotonic()
    stdout = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # of worker processes too
    try:
        status = command(options) or 0
        result = options.result
    except ENDS as error:
        status, message = explain(error)
        print(message, file=sys.stderr)
        result = {**options.result, "mistakes": _error_records(error, message)}
    seconds = round(time.monotonic() - started, 1)
    print(json.dumps(plain({"status": status, "seconds": seconds, **result})), file=stdout, flush=True)
    return status


def _error_records(error: BaseException, message: str) -> list[dict[str, Any]]:
    """Return the mistakes of the user, or the message of another error, as records."""
    records = error.mistakes if isinstance(error, UserError) else [Mistake(message.strip())]
    return [record._asdict() for record in records]


def explain(error: BaseException) -> tuple[int, str]:
    """Return the exit status after an error, and what is printed; a bug is raised again."""
    if isinstance(error, UserError):
        return error.status, f"{type(error).__name__}: {error}"
    if isinstance(error, KeyboardInterrupt):
        return 130, "\nInterrupted. Finished jobs are kept; the same command continues from there."
    if isinstance(error, OSError):
        has_no_folder = error.errno == errno.ENOENT and not work_root().exists()
        if error.errno in NOT_WRITABLE or has_no_folder:
            return 2, f"DataError: {_describe_not_writable(error)}"
    raise error


def _describe_not_writable(error: OSError) -> str:
    """Return what to do about a file that cannot be written, inside or outside the work folder."""
    folder = work_root().resolve()
    file = Path(os.fsdecode(error.filename2 or error.filename or folder)).resolve()
    if file.is_relative_to(folder) or folder.is_relative_to(file):
        advice = "Make room, or set WORK_DIR to another folder; finished jobs are kept."
        return f"no file can be written in the work folder {folder} ({error}). {advice}"
    return f"{file} cannot be read or written ({error.strerror}). Choose another path, or make room."


@contextmanager
def locked(paths: Paths, lock: Path | None = None, wait: bool = False) -> Iterator[None]:
    """Lock the outputs of a competition for one command; the lock ends with the process, in any case.

    Args:
        lock: another file to lock.
        wait: whether to wait for another command that holds the lock, after printing which it is.

    Raises:
        DataError: if another command holds the lock and `wait` is false.
    """
    path = lock or paths.lock
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read()
            if not wait:
                advice = "Wait for that command, stop it, or use another name."
                raise DataError(f"{paths.root} is in use ({holder}). {advice}") from None
            print(f"waiting for {holder} to release {paths.root}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"{_command()} on {socket.gethostname()}, process {os.getpid()}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _command() -> str:
    """Return the command of this process, or the name of a script that calls `fit`."""
    script = Path(*sys.argv[:1]).name
    is_command = script == "__main__.py"  # `python -m pipeline COMMAND`
    return " ".join(sys.argv[1:2]) if is_command else script


@contextmanager
def training(paths: Paths, shard: tuple[int, int] | None = None) -> Iterator[None]:
    """Lock the tables and jobs of a competition, or shard I/N of its jobs, for one driver.

    `locked` guards tables and runs for a short time, so that submit works while a driver trains. A thread that
    holds the lock gets it again: `fit` holds it around `full`.
    """
    i, n = shard or (1, 1)
    lock = paths.training_lock(i, n)
    if _is_held_here(lock):
        yield
        return
    require_no_training(paths, except_shards_of=n)
    with locked(paths, lock):
        HELD_TRAINING_LOCKS[lock] = threading.get_ident()
        try:
            yield
        finally:
            del HELD_TRAINING_LOCKS[lock]


def require_no_training(paths: Paths, except_shards_of: int = 0) -> None:
    """Raise a DataError if another driver trains, since jobs depend on the tables and folds.

    Args:
        except_shards_of: drivers of this number of shards are accepted.
    """
    allowed = {*paths.root.glob(f"train_*_of_{except_shards_of}.lock")}
    for lock in set(paths.root.glob("train_*.lock")) - allowed:
        if not _is_held_here(lock):
            with locked(paths, lock):
                pass


def _is_held_here(lock: Path) -> bool:
    """Return whether this thread holds a training lock."""
    return HELD_TRAINING_LOCKS.get(lock) == threading.get_ident()
