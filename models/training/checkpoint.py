"""The state of a training run at the end of an epoch, from which a killed run goes on to the same predictions."""

import io
import time
from pathlib import Path
from typing import Any

import torch

from competition.files import write_atomically

SECONDS_BETWEEN = 30.0
"""Least time between two checkpoints: what a kill can lose, and far more than writing one takes."""


class Checkpoint:
    """One file beside a job's products, gone once the job is published; what an earlier process left is what `load`
    gives. `parts` are objects with state_dict and load_state_dict by name, None where a run has none.
    """

    def __init__(self, path: Path, parts: dict[str, Any]) -> None:
        self.path = path
        self.parts = {name: part for name, part in parts.items() if part is not None}
        self.started = self.written = time.monotonic()

    def load(self) -> Any:
        """Restore all parts and the generators; what was saved beside them, or None without a file."""
        if not self.path.exists():
            return None
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        for name in self.parts.keys() & state["parts"].keys():  # a GPU may have a scaler where a CPU had none
            self.parts[name].load_state_dict(state["parts"][name])
        torch.set_rng_state(state["generator"])
        torch.cuda.set_rng_state_all(state["gpu_generators"])
        self.started -= state["seconds"]
        return state["beside"]

    def save(self, beside: Any) -> None:
        """Write the state, if the last time was long enough ago."""
        if time.monotonic() - self.written < SECONDS_BETWEEN:
            return
        state = {
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "generator": torch.get_rng_state(),
            "gpu_generators": torch.cuda.get_rng_state_all(),
            "seconds": time.monotonic() - self.started,
            "beside": beside,
        }
        torch.save(state, buffer := io.BytesIO())
        write_atomically(self.path, buffer.getvalue())
        self.written = time.monotonic()


def seconds_in(path: Path) -> float:
    """Seconds of training that a checkpoint holds."""
    return float(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["seconds"])
