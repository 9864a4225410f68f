"""What every command line shares: its options, how it ends, and the lock on a competition's products."""

from __future__ import annotations

import argparse
import errno
import fcntl
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from competition.durations import seconds_of
from competition.errors import ConfigError, DataError, UserError
from competition.paths import DEFAULT_COMPETITION, Paths, holdout_yaml, work_root

EXECUTORS = ("local", "ray")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
FULL_OR_CLOSED = (*FULL, errno.EACCES, errno.ENOTDIR, errno.EISDIR)
"""What the system says of a folder that takes no new files."""


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0.05 <= share <= 0.5:
        raise ConfigError(f"--holdout must be a share from 0.05 to 0.5 of the training rows; found {text!r}.")
    return share


def _executor(text: str) -> str:
    if text not in EXECUTORS:
        raise ConfigError(f"--executor must be one of {', '.join(EXECUTORS)}; found {text!r}.")
    return text


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    i, n = (int(part) for part in match.groups()) if match else (0, 0)
    if not 1 <= i <= n:
        raise ConfigError(f"--shard must be I/N, such as 1/4 to 4/4 for four machines; found {text!r}.")
    return i, n


SHARED: dict[str, Any] = {
    "seed": {"type": int, "help": "replaces competition.seed of the YAML"},
    "workers": {"type": int, "help": "jobs side by side (default: one per core or GPU)"},
    "holdout": {
        "type": _share,
        "metavar": "SHARE",
        "help": "for full: keep this share of the training rows, such as 0.2, out of everything, and score the "
        "finished submission on it (holdout_score); a competition of its own, NAME_holdout20",
    },
    "reuse": {"action": "store_true", "help": "accept finished jobs of other code; tables mark them"},
    "budget": {
        "type": seconds_of,
        "metavar": "TIME",
        "help": "seconds, or such as 30s, 90m, 2h, for full and train: what cannot finish in it is not started, and "
        "a stage without all its jobs is left out of blend, stack and report",
    },
    "shard": {
        "type": _shard,
        "metavar": "I/N",
        "help": "machine I of N on one WORK_DIR: train does its share of the jobs, full begins with it",
    },
    "executor": {
        "type": _executor,
        "default": EXECUTORS[0],
        "help": "what full and train place jobs with: local, processes of this machine (default), or ray, a cluster",
    },
    "ray-address": {
        "metavar": "HOST:PORT",
        "help": "of a Ray cluster (default: $RAY_ADDRESS, or one that is started for the run)",
    },
    "from": {
        "type": Path,
        "metavar": "FOLDER",
        "dest": "earlier",
        "help": "for full and train: take over jobs and caches of an earlier run, such as an attached notebook output",
    },
}
"""Options that every step of `./run.sh full` takes, since it gives all of its own to each."""


class Parser(argparse.ArgumentParser):
    """With --holdout, a command is about the competition without the rows that are kept out."""

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """The options; `competition` is what to work on, and `held_out_of` what was named."""
        options = super().parse_args(*args, **kwargs)
        options.held_out_of = options.competition
        if options.holdout:
            options.competition = str(holdout_yaml(options.competition, options.holdout))
        return options


def parser(description: str | None, verb: str | None = None, takes: Sequence[str] | None = None) -> Parser:
    """The competition and options that commands share.

    Args:
        description: the module's docstring.
        verb: of run.sh, where the module has another name.
        takes: which of the shared options; None for all, which a step of `./run.sh full` has to take.
    """
    options = Parser(
        prog=f"./run.sh {verb or Path(sys.argv[0]).stem}",
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument(
        "competition",
        nargs="?",
        default=DEFAULT_COMPETITION,
        help="name in competition/configs/, or a YAML file (default: %(default)s)",
    )
    options.set_defaults(seed=None, workers=None, holdout=None)
    for name in SHARED if takes is None else takes:
        options.add_argument(f"--{name}", **SHARED[name])
    return options


def run(main: Callable[[], None]) -> None:
    """Run a command: a user's mistake is one sentence and status 2, Ctrl-C a word and 130."""
    try:
        main()
    except UserError as error:
        sys.exit(_fail(type(error).__name__, error))
    except KeyboardInterrupt:
        print("\nInterrupted. Finished jobs are kept; the same command goes on from there.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
    except OSError as error:
        if error.errno not in FULL_OR_CLOSED:
            raise
        sys.exit(_fail("DataError", takes_no_files(error)))


def takes_no_files(error: OSError) -> str:
    """What is said of a folder for products that is full or read-only."""
    return (
        f"the folder for products, {work_root()}, must take new files; {error}. Make room, or set WORK_DIR to another "
        "folder; finished jobs are kept."
    )


def _fail(kind: str, message: object) -> int:
    print(f"{kind}: {message}", file=sys.stderr)
    return 2


@contextmanager
def locked(paths: Paths, lock: Path | None = None, wait: bool = False) -> Iterator[None]:
    """Hold a competition's products for one command; the lock goes when the process ends, however it ends.

    Args:
        lock: another file than that of the products, for a command that leaves them alone.
        wait: until another command has ended, with a line that names it.

    Raises:
        DataError: if another command holds it.
    """
    with _opened(lock or paths.lock) as file:
        if not _taken(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
            by = file.read().strip() or "another command"
            if not wait:
                raise DataError(f"{paths.root} is in use by another command ({by}); wait for it or stop it.")
            print(f"waiting for {by}, which is at {paths.root}", flush=True)
            _taken(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"{Path(sys.argv[0]).stem} on {socket.gethostname()}, process {os.getpid()}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


@contextmanager
def tables_in_use(paths: Paths) -> Iterator[None]:
    """While this lasts, no command of any machine changes the tables and folds; several at a time may say so."""
    with _opened(paths.tables_lock) as file:
        _taken(file, fcntl.LOCK_SH)
        yield


@contextmanager
def tables_to_change(paths: Paths) -> Iterator[None]:
    """While this lasts, no command reads the tables and folds for jobs.

    Raises:
        DataError: if one does now: its jobs are named after these tables.
    """
    with _opened(paths.tables_lock) as file:
        if not _taken(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
            raise DataError(
                f"{paths.root} is in use by another command, which trains on other tables or folds than those of the "
                "YAML, its files and --seed now; wait for it or stop it."
            )
        yield


def _opened(lock: Path) -> TextIO:
    lock.parent.mkdir(parents=True, exist_ok=True)
    return lock.open("a+")


def _taken(file: TextIO, operation: int) -> bool:
    """Lock an open file; whether it is now.

    Raises:
        DataError: if the file system has no locks.
    """
    try:
        fcntl.flock(file, operation)
    except BlockingIOError:
        file.seek(0)
        return False
    except OSError as error:
        raise DataError(
            f"the file system of {file.name} must let files be locked; {error}. Mount it with locks (flock), or set "
            "WORK_DIR to another folder."
        ) from None
    return True
