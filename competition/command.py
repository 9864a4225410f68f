"""What every command line shares: its options, how it ends, and the lock on a competition's products."""

from __future__ import annotations

import argparse
import errno
import fcntl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from competition.durations import seconds_of
from competition.errors import ConfigError, DataError, UserError
from competition.paths import DEFAULT_COMPETITION, Paths, holdout_yaml

FULL_OR_CLOSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.EISDIR)
"""What the system says of a folder that takes no new files."""


class Parser(argparse.ArgumentParser):
    """With --holdout, a command is about the competition without the rows that are kept out."""

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """The options; `competition` is what to work on, and `held_out_of` what was named."""
        options = super().parse_args(*args, **kwargs)
        options.held_out_of = options.competition
        if options.holdout:
            options.competition = str(holdout_yaml(options.competition, options.holdout))
        return options


def parser(description: str | None, verb: str | None = None) -> Parser:
    """Options that every step of `./run.sh full` takes.

    Args:
        description: the module's docstring.
        verb: of run.sh, where the module has another name.
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
    options.add_argument("--seed", type=int, help="replaces competition.seed of the YAML")
    options.add_argument("--workers", type=int, help="jobs side by side (default: one per core or GPU)")
    options.add_argument("--reuse", action="store_true", help="accept finished jobs of other code; tables mark them")
    options.add_argument(
        "--budget",
        type=seconds_of,
        metavar="TIME",
        help="seconds, or such as 30s, 90m, 2h, for full and train: what cannot finish in it is not started, and a "
        "stage without all its jobs is left out of blend, stack and report",
    )
    options.add_argument(
        "--holdout",
        type=_share,
        metavar="SHARE",
        help="for full: keep this share of the training rows, such as 0.2, out of everything, and score the finished "
        "submission on it (holdout_score); a competition of its own, NAME_holdout20",
    )
    return options


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0.05 <= share <= 0.5:
        raise ConfigError(f"--holdout must be a share from 0.05 to 0.5 of the training rows; found {text!r}.")
    return share


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
        message = f"the folder for products must take new files; {error}. Make room, or set WORK_DIR to another folder."
        sys.exit(_fail("DataError", message))


def _fail(kind: str, message: object) -> int:
    print(f"{kind}: {message}", file=sys.stderr)
    return 2


@contextmanager
def locked(paths: Paths) -> Iterator[None]:
    """Hold a competition's products for one command; the lock goes when the process ends, however it ends.

    Raises:
        DataError: if another command holds it.
    """
    paths.root.mkdir(parents=True, exist_ok=True)
    with paths.lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{paths.root} is in use by another command; wait for it or stop it.") from None
        yield
