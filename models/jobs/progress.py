"""Progress of a running job, in files of its folder, which local, Ray and sharded runs read.

progress.json    finished steps, all steps and seconds, at most once a second, from the start of the fit
losses.csv       losses and held-out scores of a neural stage (`models/training/loss_log.py`)
"""

import math
import time
from pathlib import Path

from core.files import read_json, write_json
from models.job_folder import PROGRESS
from models.training.loss_log import read_losses

SECONDS_BETWEEN = 1.0
"""Minimum time between two writes."""
NOTHING_DONE = {
    "done": 0.0,
    "total": 1.0,
    "to_predict": 0.0,
    "seconds": 0.0,
    "before": 0.0,
    "started": math.inf,
}
"""Progress of a job that has not started."""


class ProgressFile:
    """Writes the progress of one job; an instance is the `progress` of its `Context`.

    Args:
        title: title of the job, for the line about resuming from a checkpoint.
        share_to_predict: share of all steps that take as long as the predictions after the fit.
    """

    def __init__(self, folder: Path, title: str, share_to_predict: float = 0.0) -> None:
        self.path = folder / PROGRESS
        self.resumed = title if self.path.exists() else ""
        self.share_to_predict = share_to_predict
        self.before = read_progress(folder)["seconds"]
        self.started = time.time()
        self.clock = time.monotonic()  # which stands still while a laptop sleeps
        self._write(0, 1)

    def __call__(self, done: int, total: int) -> None:
        """Report the number of finished steps and of all steps."""
        if self.resumed:
            print(f"{self.resumed} continues at step {done} of {total}", flush=True)
            self.resumed = ""
        if time.monotonic() - self.written >= SECONDS_BETWEEN:
            self._write(done, total)

    def _write(self, done: int, total: int) -> None:
        self.written = time.monotonic()
        seconds = round(self.before + self.written - self.clock, 1)
        record = {
            "done": done,
            "total": total,
            "to_predict": self.share_to_predict * total,
            "seconds": seconds,
            "before": self.before,
            "started": self.started,
        }
        write_json(self.path, record)


def read_progress(folder: Path) -> dict[str, float]:
    """Return the last report of the running job of a folder, or of the attempt that it will continue.

    Its keys are `done` and `total` steps, `to_predict`, the steps that take as long as the predictions after
    them, `seconds` of all attempts, `before`, the seconds of earlier attempts, and `started`, time.time() at the
    start of the fit. Without a report nothing was done, and nothing has started.
    """
    try:
        progress = read_json(folder / PROGRESS)
        return {name: float(progress[name]) for name in NOTHING_DONE}
    except Exception:  # the file is missing, the job was published meanwhile, or user-defined code wrote it
        return NOTHING_DONE


def describe_loss(folder: Path) -> str:
    """Return the last epoch, loss and held-out score of a running neural job; empty if there are none yet."""
    try:
        records = read_losses(folder)
    except Exception:  # user-defined code may write a file of this name
        return ""
    if not records:
        return ""
    line = f"epoch {records[-1].epoch}, loss {records[-1].loss:.4g}"
    scored = [record for record in records if record.held_out_score is not None]
    if scored:
        line += f", held-out score {scored[-1].held_out_score:.4g} after epoch {scored[-1].epoch}"
    return line
