"""Progress of a running job, in files of its folder, which local, Ray and sharded runs read.

progress.json    finished steps, all steps and seconds, at most once a second
losses.csv       losses and held-out scores of a neural stage (`models/training/loss_log.py`)
"""

import time
from pathlib import Path

from core.files import read_json, write_json
from models.job_folder import PROGRESS
from models.training.loss_log import read_losses

SECONDS_BETWEEN = 1.0
"""Minimum time between two writes."""


class ProgressFile:
    """Writes the progress of one job; an instance is the `progress` of its `Context`.

    Args:
        title: title of the job, for the line about resuming from a checkpoint.
    """

    def __init__(self, folder: Path, title: str) -> None:
        self.path = folder / PROGRESS
        self.resumed = title if self.path.exists() else ""
        self.started = time.monotonic() - seconds_before(folder)
        self.written = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Report the number of finished steps and of all steps."""
        if self.resumed:
            print(f"{self.resumed} continues at step {done} of {total}", flush=True)
            self.resumed = ""
        now = time.monotonic()
        if now - self.written >= SECONDS_BETWEEN:
            self.written = now
            write_json(self.path, {"done": done, "total": total, "seconds": round(now - self.started, 1)})


def read_progress(folder: Path) -> dict[str, float]:
    """Return the last report of the running job of a folder; zeros without one."""
    if (folder / PROGRESS).exists():
        try:
            progress = read_json(folder / PROGRESS)
            return {name: float(progress[name]) for name in ("done", "total", "seconds")}
        except Exception:  # the job was published meanwhile, or user-defined code wrote the file
            pass
    return {"done": 0, "total": 1, "seconds": 0.0}


def share_done(folder: Path) -> float:
    """Return the share of its steps that a running job has done."""
    progress = read_progress(folder)
    return progress["done"] / max(1.0, progress["total"])


def describe_loss(folder: Path) -> str:
    """Return the last epoch, loss and held-out score of a running neural job; empty if there are none yet."""
    try:
        records = read_losses(folder)
    except Exception:  # user-defined code may write a file of this name
        return ""
    if not records:
        return ""
    phase = "pretrain " if records[-1].phase == "pretrain" else ""
    line = f"{phase}epoch {records[-1].epoch}, loss {records[-1].loss:.4g}"
    scored = [record for record in records if record.held_out_score is not None]
    if scored:
        line += f", held-out score {scored[-1].held_out_score:.4g} after epoch {scored[-1].epoch}"
    return line


def seconds_before(folder: Path) -> float:
    """Return the seconds that an earlier attempt spent until its last checkpoint; 0 without one."""
    return read_progress(folder)["seconds"]
