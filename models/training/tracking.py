"""Shows the losses of jobs in one of accelerate's trackers: `--tracker tensorboard|wandb|mlflow`."""

import os
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from competition.command import TRACKER_VARIABLE


def tracker_arguments(job_folder: Path) -> dict[str, Any]:
    """Arguments of Accelerator for the tracker of `--tracker`; none without that option.

    Files of trackers are in work/NAME/trackers, one log directory for all jobs.
    """
    tracker = os.environ.get(TRACKER_VARIABLE)
    if not tracker:
        return {}
    return {"log_with": tracker, "project_dir": _competition_folder(job_folder) / "trackers"}


def start_tracker(accelerator: Accelerator, job_folder: Path) -> None:
    """Start a run that is named STAGE/KEY/seed_S/fold_K after the folder of the job."""
    if not accelerator.log_with:
        return
    tracker = str(accelerator.log_with[0])
    root = _competition_folder(job_folder)
    logs = root / "trackers"
    run = str(job_folder.absolute().relative_to(root / "models")).replace("/.", "/")
    if tracker == "tensorboard":
        shutil.rmtree(logs / run, ignore_errors=True)  # of an attempt that was killed
        accelerator.init_trackers(run)
    elif tracker == "wandb":
        logs.mkdir(parents=True, exist_ok=True)
        accelerator.init_trackers(root.name, init_kwargs={"wandb": {"name": run, "dir": logs}})
    else:
        accelerator.init_trackers(root.name, init_kwargs={"mlflow": {"run_name": run}})


def _competition_folder(job_folder: Path) -> Path:
    """work/NAME of work/NAME/models/STAGE/KEY/seed_S/fold_K."""
    return job_folder.absolute().parents[4]
