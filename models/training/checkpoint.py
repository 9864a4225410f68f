"""The state of a training run at the end of an epoch, from which a killed run goes on to the same bytes."""

from __future__ import annotations

import io
import time
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from competition.errors import DataError
from competition.files import write_atomically

SECONDS_BETWEEN = 30.0
"""Least time between two checkpoints: what a kill can lose, and far more than writing one takes."""


class Checkpoint:
    """One file beside a job's products; it is gone once the job is published.

    Args:
        path: of the file; what an earlier process left there is what `load` gives.
        parts: objects with state_dict and load_state_dict, by name.
    """

    def __init__(self, path: Path, parts: dict[str, Any]) -> None:
        self.path, self.parts = path, parts
        self.started = self.written = time.monotonic()
        self.seconds_before = 0.0

    def load(self) -> dict[str, Any] | None:
        """Restore all parts and the generators; the facts that were saved with them, or None without a file.

        Raises:
            DataError: if the file was cut.
        """
        if not self.path.exists():
            return None
        state = _read(self.path)
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        torch.set_rng_state(state["generator"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["gpu_generators"])
        self.seconds_before = state["seconds"]
        facts: dict[str, Any] = state["facts"]
        return facts

    def save(self, facts: dict[str, Any]) -> None:
        """Write the state, if the last time was long enough ago."""
        if time.monotonic() - self.written < SECONDS_BETWEEN:
            return
        buffer = io.BytesIO()
        torch.save(
            {
                "parts": {name: part.state_dict() for name, part in self.parts.items()},
                "generator": torch.get_rng_state(),
                "gpu_generators": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
                "facts": facts,
                "seconds": self.seconds_before + time.monotonic() - self.started,
            },
            buffer,
        )
        write_atomically(self.path, buffer.getvalue())
        self.written = time.monotonic()


def seconds_in(path: Path) -> float:
    """Seconds of training that a checkpoint holds."""
    return float(_read(path, mmap=True)["seconds"])


def _read(path: Path, mmap: bool = False) -> dict[str, Any]:
    """What `save` wrote.

    Raises:
        DataError: if the file was cut, as a copy from another machine may be.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (RuntimeError, UnpicklingError, EOFError, OSError) as error:
        why = str(error).partition("\n")[0]
        raise DataError(
            f"{path} must be a whole checkpoint, and is not ({why}); delete it, and its fold begins anew."
        ) from None
    return state
