"""Command lines: shared options, exit status, and the lock on the outputs of a competition."""

import argparse
import errno
import fcntl
import importlib.util
import math
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.errors import ConfigError, DataError, UserError
from core.files import work_root
from core.paths import DEFAULT_COMPETITION, Paths, holdout_yaml
from core.settings import TRACKER_VARIABLE, Overrides, parse_duration, parse_setting, parse_stages

NOT_WRITABLE = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR,
    errno.ENOLCK, errno.EOPNOTSUPP,
)  # fmt: skip
"""Error numbers of the system for a folder in which files cannot be written or locked."""
NO_BUDGET = math.inf
"""Value of `--budget none`."""
OWN_TRAINING_LOCKS: set[Path] = set()
"""Training locks that this process holds."""


def _share(text: str) -> float:
    if not re.fullmatch(r"0?\.[0-9]+", text) or not 0.05 <= float(text) <= 0.5:
        raise ConfigError(f"--holdout takes a share of the training rows from 0.05 to 0.5; got {text!r}.")
    return float(text)


def _shard(text: str) -> tuple[int, int]:
    i, n = map(int, text.split("/")) if re.fullmatch(r"[0-9]+/[0-9]+", text) else (0, 0)
    if not 1 <= i <= n:
        raise ConfigError(f"--shard takes I/N, such as 1/4 to 4/4 for four machines; got {text!r}.")
    return i, n


def _workers(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text):
        raise ConfigError(f"--workers takes a whole number from 1; got {text!r}.")
    return int(text)


def _budget(text: str) -> float:
    return NO_BUDGET if text == "none" else parse_duration(text)


SHARED: dict[str, dict[str, Any]] = {
    "seed": {"type": int, "help": "Seed of the competition; replaces competition.seed of the YAML."},
    "set": {
        "type": parse_setting,
        "action": "append",
        "metavar": "KEY=VALUE",
        "help": "Replace a setting of the YAML, such as stages.gnn.epochs=100. May be repeated.",
    },
    "stages": {
        "type": parse_stages,
        "metavar": "NAMES",
        "help": "Use only these stages of the YAML, such as gnn,lightgbm.",
    },
    "workers": {
        "type": _workers,
        "help": "Number of cores that jobs may use together (default: all).",
    },
    "holdout": {
        "type": _share,
        "metavar": "SHARE",
        "help": "Keep this share of the training rows, such as 0.2, out of everything, and score the finished "
        "submission on them (holdout_score). This makes a competition NAME_holdout20; other commands take "
        "the same option to work on it.",
    },
    "reuse": {
        "action": "store_true",
        "help": "Keep finished jobs whose code or libraries have changed since; tables mark them. By default "
        "they are trained again, and check lists them.",
    },
    "budget": {
        "type": _budget,
        "metavar": "TIME",
        "help": "For full: time that the whole command may take, such as 90m or 2h (default: budget of the "
        "YAML; none: no limit). Epochs are reduced, stages left out and seeds added so that what is started "
        "is also finished, and a submission is written whenever a stage is finished.",
    },
    "fail-fast": {"action": "store_true", "help": "Stop at the first job that fails."},
    "skip-failed": {
        "action": "store_true",
        "help": "Leave out jobs that failed in an earlier run. By default they are tried again, last.",
    },
    "job-timeout": {
        "type": parse_duration,
        "default": math.inf,
        "metavar": "TIME",
        "help": "Fail jobs that are not finished after this time, such as 2h.",
    },
    "shard": {
        "type": _shard,
        "metavar": "I/N",
        "help": "For train: do share I of N of the jobs, on one of N machines with the same WORK_DIR.",
    },
    "executor": {
        "choices": ["local", "ray"],
        "default": "local",
        "help": "Where full and train run jobs: processes of this machine (default), or a Ray cluster.",
    },
    "ray-address": {
        "metavar": "HOST:PORT",
        "help": "Address of the Ray cluster (default: $RAY_ADDRESS, or a cluster that is started for the run).",
    },
    "tracker": {
        "choices": ["tensorboard", "wandb", "mlflow"],
        "help": "Log the losses of neural stages to this tracker; its files are in work/NAME/trackers.",
    },
    "from": {
        "type": Path,
        "metavar": "FOLDER",
        "dest": "earlier_run",
        "help": "For full and train: continue from the jobs and caches of an earlier run, such as an attached "
        "notebook output.",
    },
}
"""Options of every step of `./run.sh full`, which passes all of its options to each step."""


class Parser(argparse.ArgumentParser):
    """Parser of a command about a competition.

    With --holdout, the competition is the one without the held-out rows.
    """

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Return the options.

        `competition` is the competition to work on, `held_out_of` the one on the command line, and
        `overrides` has the settings of the command line.
        """
        options = super().parse_args(*args, **kwargs)
        tracker = options.tracker
        if tracker is not None:
            if importlib.util.find_spec(tracker) is None:
                raise ConfigError(
                    f"--tracker {tracker} needs a package: pip install {tracker} in this environment."
                )
            os.environ[TRACKER_VARIABLE] = tracker
        values = dict(options.set)
        if options.seed is not None:
            values["competition.seed"] = options.seed
        options.overrides = Overrides(values, options.stages)
        options.held_out_of = options.competition
        if options.holdout:
            if options.overrides.tables:
                raise ConfigError(
                    f"--holdout makes its own tables, so {options.overrides.tables[0]} cannot be set with it. "
                    "Change it in the YAML."
                )
            options.competition = str(holdout_yaml(options.competition, options.holdout))
        return options


def parser(description: str | None, verb: str | None = None, takes: Sequence[str] = tuple(SHARED)) -> Parser:
    """Return a parser with the competition and the shared options.

    Args:
        description: docstring of the module.
        verb: command of run.sh, if the module has another name.
        takes: shared options of the command. A step of `./run.sh full` has to take all of them.
    """
    options = Parser(
        prog=f"./run.sh {verb or Path(sys.argv[0]).stem}",
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    competition_help = "name in competition/configs/, or a YAML file (default: %(default)s)"
    options.add_argument("competition", nargs="?", default=DEFAULT_COMPETITION, help=competition_help)
    options.set_defaults(seed=None, set=[], stages=(), workers=None, holdout=None, tracker=None)
    for name in takes:
        options.add_argument(f"--{name}", **SHARED[name])
    return options


def run(main: Callable[[], int | None]) -> None:
    """Run a command and exit with the status that it returns.

    0: everything was done. 3: the submission is valid, but something failed and was left out. 2: an error of
    the user, reported in one sentence, or a full disk. 1: there is nothing to submit. 130: Ctrl-C.
    """
    try:
        status = main()
        if status:
            sys.exit(status)
        return
    except UserError as error:
        message = f"{type(error).__name__}: {error}"
        status = error.status
    except KeyboardInterrupt:
        message = "\nInterrupted. Finished jobs are kept; the same command continues from there."
        status = 130
    except BrokenPipeError:
        sys.exit(141)
    except OSError as error:
        has_no_folder = error.errno == errno.ENOENT and not work_root().exists()
        if error.errno not in NOT_WRITABLE and not has_no_folder:
            raise
        message = f"DataError: {_describe_not_writable(error)}"
        status = 2
    print(message, file=sys.stderr)
    sys.exit(status)


def _describe_not_writable(error: OSError) -> str:
    """Return what to do about a file that cannot be written, inside or outside the work folder."""
    folder = work_root().resolve()
    file = Path(os.fsdecode(error.filename2 or error.filename or folder)).resolve()
    if file.is_relative_to(folder) or folder.is_relative_to(file):
        advice = "Make room, or set WORK_DIR to another folder; finished jobs are kept."
        return f"no file can be written in the work folder {folder} ({error}). {advice}"
    return f"{file} cannot be written ({error.strerror}). Choose another path, or make room."


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
                message = f"{paths.root} is in use ({holder}). Wait for that command, or stop it."
                raise DataError(message) from None
            print(f"waiting for {holder} to release {paths.root}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"{Path(sys.argv[0]).stem} on {socket.gethostname()}, process {os.getpid()}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


@contextmanager
def training(paths: Paths, shard: tuple[int, int] | None = None) -> Iterator[None]:
    """Lock the tables and jobs of a competition, or shard I/N of its jobs, for one driver.

    `locked` guards tables and runs for a short time, so that predict and submit work while a driver trains.
    """
    i, n = shard or (1, 1)
    lock = paths.training_lock(i, n)
    require_no_training(paths, except_shards_of=n)
    with locked(paths, lock):
        OWN_TRAINING_LOCKS.add(lock)
        try:
            yield
        finally:
            OWN_TRAINING_LOCKS.remove(lock)


def require_no_training(paths: Paths, except_shards_of: int = 0) -> None:
    """Raise a DataError if another driver trains, since jobs depend on the tables and folds.

    Args:
        except_shards_of: drivers of this number of shards are accepted.
    """
    allowed = {*paths.root.glob(f"train_*_of_{except_shards_of}.lock"), *OWN_TRAINING_LOCKS}
    for lock in set(paths.root.glob("train_*.lock")) - allowed:
        with locked(paths, lock):
            pass
