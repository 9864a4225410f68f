"""Tasks on a Ray cluster, for `--executor ray`.

Every machine of the cluster has this project, its packages and the output folder at the same paths. If a
machine is lost, Ray starts its tasks again on another one, where their jobs continue from the last
checkpoint.
"""

import importlib.util
import logging
import os
import socket
import sys
import time
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from core.errors import ConfigError, ServiceError
from core.files import PROJECT, work_root
from core.settings import TRACKER_VARIABLE
from core.workers import WORKER_ENVIRONMENT
from models.hardware import Card
from models.jobs.local import LocalExecutor
from models.jobs.scheduler import POLL, Executor, JobResult, Resources, Task, run_task

RETRIES = 5
"""Times that Ray starts a task again because its machine or its worker was lost."""
RAY_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # messages of a lost machine, which are in the logs of Ray
    "RAY_task_oom_retries": "1",
}
"""Variables that Ray reads when it is imported."""


class RayExecutor:
    """Executor on a Ray cluster.

    Args:
        n_workers: CPUs that tasks may use together; None for all CPUs of the cluster.

    $RAY_ADDRESS is HOST:PORT of a cluster, or auto for a cluster on this machine. If it is not set, a cluster
    of this machine is started, which ends with the run.
    """

    max_threads = 1
    cards: list[Card] | None = None

    def __init__(self, n_workers: int | None = None) -> None:
        address = require_cluster()
        os.environ.update(RAY_SETTINGS)
        import ray

        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        options["runtime_env"] = {"env_vars": environment()}
        if address is None:
            options |= {"num_cpus": n_workers, "include_dashboard": False}
        try:
            ray.init(address or "local", **options)
        except Exception as error:  # this class itself if its processes do not start in time
            where = f"at {address}" if address else "of this machine"
            raise ServiceError(f"the Ray cluster {where} does not take this run: {error}") from None
        self.ray = ray
        self.n_workers = n_workers
        self.remote = ray.remote(max_retries=RETRIES)(run_task)
        self.running: dict[Task, tuple[Any, Resources, Future[JobResult]]] = {}
        self.announced: list[dict[str, float]] = []
        self.size = Resources(0, 0)
        self.counted = -POLL

    def capacity(self) -> Resources:
        """Return the CPUs that tasks may use and the number of GPUs; a change is printed.

        If the cluster does not answer, they stay unchanged, and tasks fail when they are submitted.
        """
        if time.monotonic() - self.counted >= POLL:
            try:
                total = self.ray.cluster_resources()
            except Exception:
                total = {"CPU": self.size.cpus, "GPU": self.size.gpus}
            before = self.size
            self.size = Resources(int(total.get("CPU", 0)), int(total.get("GPU", 0)))
            self.counted = time.monotonic()
            if before not in (Resources(0, 0), self.size):
                message = f"the cluster has {self.size.cpus} CPUs and {self.size.gpus} GPUs now"
                tqdm.write(message, file=sys.stdout)  # above the progress bar of the jobs
        return Resources(self.n_workers or max(1, self.size.cpus), self.size.gpus)

    def fits(self, resources: Resources) -> bool:
        """Return whether a task that asks for this could start now."""
        for task, (_, _, future) in list(self.running.items()):
            if future.done():
                del self.running[task]
        taken = [placed for _, placed, _ in self.running.values()]
        capacity = self.capacity()
        gpus = resources.gpus if capacity.gpus else 0.0
        has_cpus = sum(placed.cpus for placed in taken) + resources.cpus <= capacity.cpus
        return has_cpus and sum(placed.gpus for placed in taken) + gpus <= capacity.gpus

    def submit(self, task: Task) -> "Future[JobResult]":
        """Start a task on some machine of the cluster."""
        gpus = task.resources.gpus if self.capacity().gpus else 0.0
        options: dict[str, Any] = {"num_cpus": task.resources.cpus, "num_gpus": gpus}
        if self.capacity().gpus and not gpus:  # Ray would let it see all cards
            options["runtime_env"] = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}
        reference = self.remote.options(**options).remote(task.name, task.function, task.arguments, gpus > 0)
        future: Future[JobResult] = reference.future()
        self.running[task] = (reference, Resources(task.resources.cpus, gpus), future)
        return future

    def cancel(self, task: Task) -> None:
        """End a running task at once, together with its worker."""
        if task in self.running:  # else it has just ended
            reference, _, _ = self.running.pop(task)
            with suppress(Exception):  # of a cluster that does not answer
                self.ray.cancel(reference, force=True)

    def announce(self, waiting: list[Task]) -> None:
        """Tell a cluster that can grow the resources of all tasks."""
        tasks = [*self.running, *waiting]
        bundles = [{"CPU": float(task.resources.cpus), "GPU": task.resources.gpus} for task in tasks]
        if bundles != self.announced:
            self.announced = bundles
            from ray.autoscaler.sdk import request_resources

            with suppress(Exception):  # of a cluster that does not answer
                request_resources(
                    bundles=[{name: n for name, n in bundle.items() if n} for bundle in bundles]
                )

    def close(self) -> None:
        """End the tasks that run, withdraw the announcement and leave the cluster."""
        for task in list(self.running):
            self.cancel(task)
        self.announce([])
        self.ray.shutdown()


def make_executor(executor: str, n_workers: int | None) -> Executor:
    """Return the executor of `--executor`."""
    return LocalExecutor(n_workers) if executor == "local" else RayExecutor(n_workers)


def require_cluster() -> str | None:
    """Return HOST:PORT of the cluster at $RAY_ADDRESS; None to start one for the run.

    Raises:
        ServiceError: if no cluster answers. Ray would try for minutes.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "--executor ray needs the package ray, which is not installed; pip install -r "
            "requirements-ray.txt into this environment, or leave it (deactivate, or conda deactivate), and "
            "./run.sh installs it."
        )
    address = os.environ.get("RAY_ADDRESS") or "local"
    if address in ("local", "auto"):
        return None if address == "local" else address  # of auto, Ray says at once whether one runs here
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise ServiceError(
            f"no Ray cluster answers at {address!r} ({error}). Set RAY_ADDRESS to its HOST:PORT, such as "
            "10.0.0.5:6379, or start one there (ray start --head)."
        ) from None
    return address


def environment() -> dict[str, str]:
    """Return the environment variables of workers on all machines of a cluster."""
    folders = ("WEIGHTS_DIR", "UNIMOL_WEIGHT_DIR", "HF_HOME")
    texts = ("HF_HUB_OFFLINE", "HF_ENDPOINT", TRACKER_VARIABLE)
    variables = {name: os.environ[name] for name in texts if name in os.environ}
    variables |= {name: str(Path(os.environ[name]).resolve()) for name in folders if name in os.environ}
    search = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))
    variables |= {"WORK_DIR": str(work_root().resolve()), "PYTHONPATH": search}
    return {**WORKER_ENVIRONMENT, **variables}
