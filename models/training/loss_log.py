"""The file losses.csv with the training loss and the held-out score of a neural job, written while it trains.

The driver reads it, so this module does not import torch.
"""

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

LOSSES = "losses.csv"
SECONDS_BETWEEN_ROWS = 10.0


@dataclass(frozen=True)
class LossRecord:
    """A row of losses.csv, which is also sent to the tracker. Another number is one more field.

    Attributes:
        phase: pretrain or train.
        epoch: number of the epoch, from 1 in each phase.
        step: optimizer steps so far, including the pretrain phase.
        loss: mean since the previous row; in the last row of an epoch the mean of the epoch.
        learning_rate: rate of the next step.
        seconds: training time, including earlier attempts of a resumed job.
        held_out_score: metric of the competition on the held-out fold, in the last row of an epoch; None in other
            rows, in a refit, and if the metric cannot score the fold.
    """

    phase: str
    epoch: int
    step: int
    loss: float
    learning_rate: float
    seconds: float
    held_out_score: float | None = None


HEADER = ",".join(field.name for field in fields(LossRecord)) + "\n"


class LossLog:
    """Writes losses.csv line by line. A checkpoint contains its rows, so that a resumed job has each step once.

    Args:
        track: called with each record, also with those that a checkpoint restores.
    """

    def __init__(self, folder: Path, track: Callable[[LossRecord], None]) -> None:
        self.path = folder / LOSSES
        self.track = track
        self.records: list[LossRecord] = []
        self.started = self.written = time.monotonic()
        self.path.write_text(HEADER, encoding="utf-8")

    @property
    def last_step(self) -> int:
        """Optimizer steps at the last row."""
        return self.records[-1].step if self.records else 0

    def due(self) -> bool:
        """Whether the last row was written SECONDS_BETWEEN_ROWS ago."""
        return time.monotonic() >= self.written + SECONDS_BETWEEN_ROWS

    def write(self, **values: Any) -> None:
        """Append a record; `seconds` is set here."""
        self._append(LossRecord(**values, seconds=round(time.monotonic() - self.started, 1)))

    def _append(self, record: LossRecord) -> None:
        self.records.append(record)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(",".join("" if value is None else str(value) for value in astuple(record)) + "\n")
        self.track(record)
        self.written = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Return the rows and the training time so far."""
        return {"rows": list(map(astuple, self.records)), "seconds": time.monotonic() - self.started}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Append the rows of a checkpoint, except those that are already in the file."""
        for row in state["rows"][len(self.records) :]:
            self._append(LossRecord(*row))
        self.started = time.monotonic() - state["seconds"]


def read_losses(folder: Path) -> list[LossRecord]:
    """Return the complete rows of losses.csv of a job, which may be training; [] without the file."""
    try:
        lines = (folder / LOSSES).read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    records = []
    for line in lines[1:]:
        if line.endswith("\n"):
            phase, epoch, step, *numbers = line.rstrip("\n").split(",")
            values = [float(number) if number else None for number in numbers]
            records.append(LossRecord(phase, int(epoch), int(step), *values))  # type: ignore[arg-type]
    return records
