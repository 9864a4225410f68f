"""Checkpoints by time, inside epochs too, from which a killed run goes on to the same predictions."""

import os
import time
from pathlib import Path
from typing import Any

import torch

SECONDS_BETWEEN = 30.0
"""Least time between two checkpoints."""
WRITES_BETWEEN = 20
"""The same as a multiple of the time that the last write took, so that at most 5 % of the time is spent on
writing.
"""


class Checkpoint:
    """A file next to a job's outputs, deleted before the job is published.

    Args:
        parts: objects with state_dict and load_state_dict by name; None for those that a run does not have.
    """

    def __init__(self, path: Path, parts: dict[str, Any]) -> None:
        self.path = path
        self.parts = {name: part for name, part in parts.items() if part is not None}
        self.next_write = time.monotonic() + SECONDS_BETWEEN

    def load(self) -> tuple[int, int, torch.Tensor] | None:
        """Restore all parts and the random generators from the file that an earlier process left.

        Returns:
            The arguments of `save`; None if there is no file.
        """
        if not self.path.exists():
            return None
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        for name in self.parts.keys() & state["parts"].keys():  # a GPU may have a scaler where a CPU had none
            self.parts[name].load_state_dict(state["parts"][name])
        torch.set_rng_state(state["generator"])
        torch.cuda.set_rng_state_all(state["gpu_generators"])
        return state["position"]

    def due(self) -> bool:
        """Whether the last write was long enough ago."""
        return time.monotonic() >= self.next_write

    def save(self, epoch: int, n_done: int, loss_sum: torch.Tensor) -> None:
        """Write the state of all parts and of the random generators.

        Args:
            epoch: number of the current epoch, from 0.
            n_done: steps of this epoch that are done.
            loss_sum: sum of their losses.
        """
        started = time.monotonic()
        state = {
            "position": (epoch, n_done, loss_sum),
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "generator": torch.get_rng_state(),
            "gpu_generators": torch.cuda.get_rng_state_all(),
        }
        temporary = self.path.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, self.path)
        finished = time.monotonic()
        self.next_write = finished + max(SECONDS_BETWEEN, WRITES_BETWEEN * (finished - started))
