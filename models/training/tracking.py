"""Logs the losses of jobs to a tracker of accelerate: `--tracker tensorboard|wandb|mlflow`."""

import os
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from core.settings import TRACKER_VARIABLE


def tracker_arguments(job_folder: Path) -> dict[str, Any]:
    """Return the arguments of Accelerator for the tracker of `--tracker`; none without that option.

    Files of trackers are in work/NAME/trackers, one log directory for all jobs.
    """
    tracker = os.environ.get(TRACKER_VARIABLE)
    if not tracker:
        return {}
    return {"log_with": tracker, "project_dir": _competition_folder(job_folder) / "trackers"}


def start_tracker(accelerator: Accelerator, job_folder: Path) -> None:
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
