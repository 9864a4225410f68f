"""A user's stage that goes wrong in one fold, in the way that its settings name."""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition.dataset import Dataset
from core.errors import ConfigError
from core.files import write_json
from models.api import Context, Stage


class Unpicklable(Exception):
    """An exception that cannot be made again from its arguments, as those of HTTP clients."""

    def __init__(self, text: str, *, response: int) -> None:
        super().__init__(text)
        self.response = response


class Failing(Stage):
    """Predicts zeros, except in one fold."""

    how: str
    fold: int = 2
    mend: str = ""
    """A file that, if it exists, lets it pass."""

    def fit(self, train: Dataset, folder: Path, context: Context) -> None:
        """Fail if this is the job of the fold."""
        write_json(folder / "model.json", {})
        is_mended = bool(self.mend) and Path(self.mend).exists()
        if folder.name == f".fold_{self.fold}" and not is_mended:
            FAILURES[self.how]()

    def predict(self, rows: Dataset, folder: Path, context: Context) -> NDArray[np.float64]:
        """Return zeros for every row."""
        return np.zeros((len(rows), len(context.task.outputs)))


def _raise() -> None:
    raise ValueError("fold 2 has\nno molecules")


def _raise_config_error() -> None:
    raise ConfigError("lower the learning_rate")


def _raise_unpicklable() -> None:
    raise Unpicklable("HTTP 404", response=404)


def _interrupt() -> None:
    raise KeyboardInterrupt


class _Silent(Exception):
    """An exception without a message that could be printed."""

    def __str__(self) -> str:
        raise SystemExit(9)


def _raise_silent() -> None:
    raise _Silent


def _leave_traces() -> None:
    os.chdir("/")
    os.environ.clear()
    raise ValueError("changed the folder and the environment")


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _segfault() -> None:
    ctypes.string_at(0)


FAILURES: dict[str, Any] = {
    "raises": _raise,
    "config": _raise_config_error,
    "unpicklable": _raise_unpicklable,
    "interrupts": _interrupt,
    "silent": _raise_silent,
    "leaves_traces": _leave_traces,
    "exits": lambda: sys.exit(7),
    "leaves": lambda: os._exit(0),
    "killed": _kill,
    "segfault": _segfault,
    "hangs": lambda: time.sleep(3600),
}
