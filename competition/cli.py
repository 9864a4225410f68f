"""What every command line shares: its options, how it ends, and the lock on a competition's products."""

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

from competition.durations import parse_duration
from competition.errors import ConfigError, DataError, UserError
from competition.overrides import Overrides, parse_setting, parse_stages
from competition.paths import DEFAULT_COMPETITION, Paths, holdout_yaml, work_root

FULL_OR_CLOSED = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENOLCK,
    errno.EOPNOTSUPP,
)  # fmt: skip
"""What the system says of a folder that takes no new files, or has no locks."""


NO_BUDGET = math.inf
"""Value of `--budget none`."""
TRACKER_VARIABLE = "LOSS_TRACKER"
"""Environment variable by which workers get the option --tracker."""


def _share(text: str) -> float:
    if not re.fullmatch(r"0?\.[0-9]+", text) or not 0.05 <= float(text) <= 0.5:
        raise ConfigError(f"--holdout takes a share of the training rows from 0.05 to 0.5; found {text!r}.")
    return float(text)


def _shard(text: str) -> tuple[int, int]:
    i, n = map(int, text.split("/")) if re.fullmatch(r"[0-9]+/[0-9]+", text) else (0, 0)
    if not 1 <= i <= n:
        raise ConfigError(f"--shard takes I/N, such as 1/4 to 4/4 for four machines; found {text!r}.")
    return i, n


def _workers(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text):
        raise ConfigError(f"--workers takes a whole number from 1; found {text!r}.")
    return int(text)


def _budget(text: str) -> float:
    return NO_BUDGET if text == "none" else parse_duration(text)


SHARED: dict[str, dict[str, Any]] = {
    "seed": {"type": int, "help": "seed of the competition; replaces competition.seed of the YAML"},
    "set": {"type": parse_setting, "action": "append", "default": [], "metavar": "KEY=VALUE",
            "help": "replace a setting of the YAML, such as stages.gnn.epochs=100; may be repeated"},
    "stages": {"type": parse_stages, "default": (), "metavar": "NAMES",
               "help": "use only these stages of the YAML, such as gnn,lightgbm"},
    "workers": {"type": _workers, "help": "jobs side by side (default: as many as the cores or GPUs allow)"},
    "holdout": {"type": _share, "metavar": "SHARE", "help": "full keeps this share of the training rows, such as "
                "0.2, out of everything, and scores the finished submission on it (holdout_score): a "
                "competition of "
                "its own, NAME_holdout20, which other verbs mean by the same option"},
    "reuse": {"action": "store_true", "help": "accept finished jobs of other code; tables mark them"},
    "retrain": {"action": "store_true", "help": "train jobs again whose code has changed, without asking"},
    "budget": {"type": _budget, "metavar": "TIME", "help": "for full: the time that the whole command may take, "
               "such as 90m or 2h (default: budget of the YAML; none: no limit). Epochs are reduced, stages left "
               "out and seeds added so that what starts also ends, and a submission is written as stages finish"},
    "fail-fast": {"action": "store_true", "help": "end the run at the first job that fails"},
    "skip-failed": {"action": "store_true", "help": "leave out jobs that failed in an earlier run; without it they are "
                    "tried again, last"},
    "job-timeout": {"type": parse_duration, "metavar": "TIME",
                    "help": "a job that is not finished after this time fails"},
    "shard": {"type": _shard, "metavar": "I/N",
              "help": "for train: machine I of N on one WORK_DIR does its share of the jobs"},
    "executor": {"choices": ["local", "ray"], "default": "local",
                 "help": "what full and train place jobs with: processes of this machine (default), or a Ray cluster"},
    "ray-address": {"metavar": "HOST:PORT",
                    "help": "of a Ray cluster (default: $RAY_ADDRESS, or one that is started for the run)"},
    "tracker": {"choices": ["tensorboard", "wandb", "mlflow"],
                "help": "shows the losses of neural stages while they train; its files are in work/NAME/trackers"},
    "from": {"type": Path, "metavar": "FOLDER", "dest": "earlier", "help": "for full and train: take over jobs and "
             "caches of an earlier run, such as an attached notebook output"},
}  # fmt: skip
"""Options that every step of `./run.sh full` takes, since it gives all of its own to each."""


class Parser(argparse.ArgumentParser):
    """With --holdout, a command is about the competition without the rows that are kept out."""

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """The options; `competition` is what to work on, and `held_out_of` what was named."""
        options = super().parse_args(*args, **kwargs)
        tracker = getattr(options, "tracker", None)
        if tracker is not None:
            if importlib.util.find_spec(tracker) is None:
                raise ConfigError(
                    f"--tracker {tracker} needs a package: pip install {tracker} in this environment."
                )
            os.environ[TRACKER_VARIABLE] = tracker
        values = dict(getattr(options, "set", []))
        if options.seed is not None:
            values["competition.seed"] = options.seed
        options.overrides = Overrides(values, getattr(options, "stages", ()))
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
    """The competition and options that commands share; a step of `./run.sh full` has to take all of them.

    Args:
        description: the module's docstring.
        verb: of run.sh, where the module has another name.
    """
    program, layout = f"./run.sh {verb or Path(sys.argv[0]).stem}", argparse.RawDescriptionHelpFormatter
    options = Parser(prog=program, description=description, allow_abbrev=False, formatter_class=layout)
    named = "name in competition/configs/, or a YAML file (default: %(default)s)"
    options.add_argument("competition", nargs="?", default=DEFAULT_COMPETITION, help=named)
    options.set_defaults(seed=None, workers=None, holdout=None)
    for name in takes:
        options.add_argument(f"--{name}", **SHARED[name])
    return options


def run(main: Callable[[], int | None]) -> None:
    """Run a command and exit with the status that it returns.

    0: everything was done. 3: there is a valid submission, without something that failed. 2: a user's
    mistake, in one
    sentence, or a full disk. 1: there is nothing to submit. 130: Ctrl-C.
    """
    try:
        if status := main():
            sys.exit(status)
        return
    except UserError as error:
        message, status = f"{type(error).__name__}: {error}", error.status
    except KeyboardInterrupt:
        message, status = "\nInterrupted. Finished jobs are kept; the same command goes on from there.", 130
    except BrokenPipeError:
        sys.exit(141)
    except OSError as error:
        cannot_be_made = error.errno == errno.ENOENT and not work_root().exists()
        if error.errno not in FULL_OR_CLOSED and not cannot_be_made:
            raise
        message, status = f"DataError: {_not_written(error)}", 2
    print(message, file=sys.stderr)
    sys.exit(status)


def _not_written(error: OSError) -> str:
    """Return what to do about a file that cannot be written, inside or outside the folder for products."""
    folder = work_root().resolve()
    file = Path(os.fsdecode(error.filename2 or error.filename or folder)).resolve()
    if file.is_relative_to(folder) or folder.is_relative_to(file):
        advice = "Make room, or set WORK_DIR to another folder; finished jobs are kept."
        return f"the folder for products, {folder}, takes no new files ({error}). {advice}"
    return f"{file} cannot be written ({error.strerror}). Choose another place for it, or make room."


@contextmanager
def locked(paths: Paths, lock: Path | None = None, wait: bool = False) -> Iterator[None]:
    """Hold a competition's products, or `lock`, for one command; the lock goes when the process ends, however
    it ends.

    Where another command has it, that is a DataError, or with `wait` it is named and waited for.
    """
    path = lock or paths.lock
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            by = file.read()
            if not wait:
                raise DataError(
                    f"{paths.root} is in use ({by}). Wait for that command, or stop it."
                ) from None
            print(f"waiting for {by}, which is at {paths.root}", flush=True)
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
    """Be the one driver at the jobs of a competition, or at one shard I/N of them beside the N - 1 others."""
    i, n = shard or (1, 1)
    require_no_training(paths, but_of=n)
    with locked(paths, paths.training_lock(i, n)):
        yield


def require_no_training(paths: Paths, but_of: int = 0) -> None:
    """Check that no driver trains, but of so many shards: jobs are named after the tables and folds as they
    are.
    """
    for lock in set(paths.root.glob("train_*.lock")) - set(paths.root.glob(f"train_*_of_{but_of}.lock")):
        with locked(paths, lock):
            pass
