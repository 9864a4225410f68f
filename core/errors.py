"""Errors that the user can fix. Every message says what is wrong, where, and what to do.

Commands print these errors without a traceback and exit with their status (`core.cli.run`). Any other
exception is a bug and keeps its traceback.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

PIP_INSTALL = f"{sys.executable} -m pip install"
"""Command for a missing package, which run.sh does not install."""


class Mistake(NamedTuple):
    """A mistake for programs, with its place as far as the message gives it; the row as in the message."""

    message: str
    setting: str | None = None
    file: str | None = None
    row: Any = None
    id: str | None = None
    column: str | None = None
    value: str | None = None
    remedy: str | None = None


class UserError(Exception):
    """Base class of all errors that the user can fix.

    Attributes:
        mistakes: each mistake; by default one for each line of the message.
    """

    status = 2
    """Exit status of the command."""

    def __init__(self, message: str, mistakes: Sequence[Mistake] = ()) -> None:
        super().__init__(message)
        self.mistakes = mistakes or [Mistake(line) for line in message.splitlines()]


class ConfigError(UserError):
    """A setting is invalid, or something that it refers to."""


class DataError(UserError):
    """A table, a label, a molecule, or a file of an earlier step is invalid."""


class SubmissionError(UserError):
    """A submission does not match the sample."""


class NothingToSubmit(UserError):
    """No stage is finished, so nothing can be submitted; the message ends with a table of why."""

    status = 1

    def __init__(self, left_out: str) -> None:
        super().__init__(f"no stage has finished.\n{left_out}", [Mistake("no stage has finished")])


class ServiceError(UserError):
    """A platform refused, failed, or could not be reached."""


MAX_LISTED = 5
"""Values that a message lists."""


def join_first(values: Iterable[Any], form: Callable[[Any], str] = repr) -> str:
    """Return the first values as text, and how many more there are."""
    values = list(values)
    more = f" and {len(values) - MAX_LISTED} more" if len(values) > MAX_LISTED else ""
    return (", ".join(map(form, values[:MAX_LISTED])) or "none") + more
