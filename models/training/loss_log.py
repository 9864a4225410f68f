"""The file losses.csv with the training loss and the held-out score of a neural job, written while it trains.

With `--tracker tensorboard|wandb|mlflow` its rows are also sent to a tracker of accelerate. The driver
reads the file, so this module does not import torch.
"""

import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

from core.errors import DataError
from core.settings import TRACKER_VARIABLE

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
        held_out_score: metric of the competition on the held-out fold, in the last row of an epoch; None
            in other rows, in a refit, and if the metric cannot score the fold.
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

    def write(
        self,
        phase: str,
        epoch: int,
        step: int,
        loss: float,
        learning_rate: float,
        held_out_score: float | None = None,
    ) -> None:
        """Append a record; its arguments are fields of `LossRecord`.

        Raises:
            DataError: if the loss is not finite.
        """
        if not math.isfinite(loss):
            raise DataError(f"the training loss is {loss} in epoch {epoch}; lower the stage's learning_rate.")
        seconds = round(time.monotonic() - self.started, 1)
        self._append(LossRecord(phase, epoch, step, loss, learning_rate, seconds, held_out_score))

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


def track(accelerator: Any, record: LossRecord) -> None:
    """Send a row of losses.csv to the tracker of an accelerator."""
    values = asdict(record)
    phase, step = values.pop("phase"), values.pop("step")
    numbers = {f"{phase}/{name}": value for name, value in values.items() if value is not None}
    accelerator.log(numbers, step=step)


def tracker_arguments(job_folder: Path) -> dict[str, Any]:
    """Return the arguments of Accelerator for the tracker of `--tracker`; none without that option.

    Files of trackers are in work/NAME/trackers, one log directory for all jobs.
    """
    tracker = os.environ.get(TRACKER_VARIABLE)
    if not tracker:
        return {}
    return {"log_with": tracker, "project_dir": _competition_folder(job_folder) / "trackers"}


def start_tracker(accelerator: Any, job_folder: Path) -> None:
    """Start a run with the name STAGE/KEY/seed_S/fold_K, which is the folder of the job."""
    if not accelerator.log_with:
        return
    root = _competition_folder(job_folder)
    logs = root / "trackers"
    run = str(job_folder.absolute().relative_to(root / "models")).replace("/.", "/")
    project = root.name
    if str(accelerator.log_with[0]) == "tensorboard":
        project = run  # a folder below the log directory
        shutil.rmtree(logs / run, ignore_errors=True)  # of an attempt that was killed
    logs.mkdir(parents=True, exist_ok=True)
    run_names = {"wandb": {"name": run, "dir": logs}, "mlflow": {"run_name": run}}
    accelerator.init_trackers(project, init_kwargs=run_names)


def _competition_folder(job_folder: Path) -> Path:
    """Return the folder of the competition, given work/NAME/models/STAGE/KEY/seed_S/fold_K."""
    return job_folder.absolute().parents[4]
