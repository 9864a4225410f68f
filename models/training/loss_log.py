"""The file losses.csv with the training loss and the held-out score of a neural job, written while it trains.

With `--tracker tensorboard|wandb|mlflow` its rows are also sent to a tracker of accelerate. The driver
reads the file, so this module does not import torch.
"""

import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from core.errors import DataError
from core.files import write_table
from core.settings import TRACKER_VARIABLE
from models.job_folder import LOSSES

SECONDS_BETWEEN_ROWS = 10.0


@dataclass(frozen=True)
class LossRecord:
    """A row of losses.csv, which is also sent to the tracker. Another number is one more field.

    Attributes:
        epoch: number of the epoch, from 1.
        step: optimizer steps so far.
        loss: mean of the epoch so far.
        learning_rate: rate of the next step.
        seconds: training time, including earlier attempts of a resumed job.
        held_out_score: score of the held-out fold (`CompetitionConfig.fold_scorer`), in the last row of some epochs;
            None in other rows, in a refit, and if the metric cannot score the fold.
    """

    epoch: int
    step: int
    loss: float
    learning_rate: float
    seconds: float
    held_out_score: float | None = None


class LossLog:
    """Writes losses.csv, as a whole for each row. A checkpoint contains its rows, so that a resumed job has
    each step once.

    Args:
        track: called with each record, also with those that a checkpoint restores.
    """

    def __init__(self, folder: Path, track: Callable[[LossRecord], None]) -> None:
        self.path = folder / LOSSES
        self.track = track
        self.records: list[LossRecord] = []
        self.started = self.written = time.monotonic()
        self.path.unlink(missing_ok=True)  # of an attempt that was killed

    def due(self) -> bool:
        """Whether the last row was written SECONDS_BETWEEN_ROWS ago."""
        return time.monotonic() >= self.written + SECONDS_BETWEEN_ROWS

    def write(self, **values: Any) -> None:
        """Add a row with the time so far, and write the file.

        Args:
            values: all other fields of `LossRecord`.

        Raises:
            DataError: if the loss is not finite.
        """
        record = LossRecord(seconds=round(time.monotonic() - self.started, 1), **values)
        if not math.isfinite(record.loss):
            raise DataError(
                f"the training loss is {record.loss} in epoch {record.epoch}; "
                "lower the stage's learning_rate."
            )
        self.records.append(record)
        self.track(record)
        write_table(self.path, pd.DataFrame(self.records))
        self.written = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Return the rows and the training time so far."""
        return {"rows": list(map(asdict, self.records)), "seconds": time.monotonic() - self.started}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Add the rows of a checkpoint."""
        for row in state["rows"]:
            self.records.append(LossRecord(**row))
            self.track(self.records[-1])
        write_table(self.path, pd.DataFrame(self.records))
        self.started = time.monotonic() - state["seconds"]


def read_losses(folder: Path) -> list[LossRecord]:
    """Return the rows of losses.csv of a job, which may be training; [] without the file."""
    if not (folder / LOSSES).exists():
        return []
    # Jobs of before December 2026 have one more column, in front.
    columns = [field.name for field in fields(LossRecord)]
    table = pd.read_csv(folder / LOSSES)[columns].astype(object)
    return [LossRecord(*row) for row in table.where(table.notna(), None).itertuples(index=False)]


def track(accelerator: Any, record: LossRecord) -> None:
    """Send a row of losses.csv to the tracker of an accelerator."""
    values = asdict(record)
    step = values.pop("step")
    numbers = {f"train/{name}": value for name, value in values.items() if value is not None}
    accelerator.log(numbers, step=step)


def tracker_arguments(job_folder: Path) -> dict[str, Any]:
    """Return the arguments of Accelerator for the tracker of `--tracker`; none without that option.

    Files of trackers are in work/NAME/trackers, one log directory for all jobs.

    Args:
        job_folder: work/NAME/models/STAGE/KEY/seed_S/fold_K, or a temporary one, which is not tracked.
    """
    tracker = os.environ.get(TRACKER_VARIABLE)
    parents = job_folder.absolute().parents
    if not tracker or len(parents) < 5 or parents[3].name != "models":
        return {}
    return {"log_with": tracker, "project_dir": parents[4] / "trackers"}


def start_tracker(accelerator: Any, job_folder: Path) -> None:
    """Start a run with the name STAGE/KEY/seed_S/fold_K, which is the folder of the job."""
    if not accelerator.log_with:
        return
    root = job_folder.absolute().parents[4]
    logs = root / "trackers"
    run = str(job_folder.absolute().relative_to(root / "models")).replace("/.", "/")
    project = root.name
    if str(accelerator.log_with[0]) == "tensorboard":
        project = run  # a folder below the log directory
        shutil.rmtree(logs / run, ignore_errors=True)  # of an attempt that was killed
    logs.mkdir(parents=True, exist_ok=True)
    run_names = {"wandb": {"name": run, "dir": logs}, "mlflow": {"run_name": run}}
    accelerator.init_trackers(project, init_kwargs=run_names)
