"""The same tasks on a Ray cluster, for `--executor ray`: one CPU each, and one GPU where the cluster has GPUs.

Every machine of the cluster has this project, its packages and the folder for products at the same paths. A task whose
machine is lost is started again on another one, where its job goes on from its last checkpoint.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import queue
import socket
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from tqdm import tqdm

from competition.command import FULL_OR_CLOSED
from competition.errors import ConfigError, DataError, ServiceError, UserError
from competition.paths import PROJECT, work_root
from models.jobs.executor import ONE_THREAD, WORKER_LOST, count_gpus, timed
from models.jobs.tasks import POLL, Runner, Task

RETRIES = 5
"""Times that a job is started again because its machine or its worker was lost, before the run ends."""
PATIENCE = 5.0
"""Seconds in which a cluster must answer."""
FOLDERS = ("WEIGHTS_DIR", "UNIMOL_WEIGHT_DIR", "HF_HOME")
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # what a lost machine has to say; it is in Ray's own logs
}
"""Variables that Ray reads when it is imported."""


class RayExecutor(Runner):
    """Workers of a Ray cluster; use it in a `with` statement.

    Args:
        n_workers: tasks side by side; None for as many as the cluster has GPUs, or CPUs where it has none, now.
        n_tasks: more workers than tasks are of no use.
        address: HOST:PORT of a cluster, or auto for the one that runs here; None for $RAY_ADDRESS, or where that is
            not set a cluster of this machine alone, which ends with the run.

    Raises:
        ConfigError: if Ray is not installed.
        ServiceError: if there is no cluster at the address.
    """

    def __init__(self, n_workers: int | None, n_tasks: int, address: str | None = None) -> None:
        address = require_cluster(address)
        self.asked, self.n_tasks = n_workers if address else None, n_tasks  # a cluster of its own has as many CPUs
        os.environ.update(QUIET)
        import ray

        of_own = {"num_cpus": n_workers or len(os.sched_getaffinity(0)), "num_gpus": count_gpus()}
        try:
            ray.init(
                address or "local",
                **({} if address else {**of_own, "include_dashboard": False}),
                runtime_env={"env_vars": _environment()},
                log_to_driver=False,
                logging_level=logging.CRITICAL,
            )
        except (RuntimeError, ValueError, ConnectionError, TimeoutError) as error:
            raise ServiceError(f"the Ray cluster at {address} must take this run; {_one_line(error)}.") from None
        self.ray = ray
        self.has_gpus = bool(ray.cluster_resources().get("GPU"))
        self.call = ray.remote(max_retries=RETRIES, num_cpus=1, num_gpus=int(self.has_gpus))(_call)
        self.messages = self._queue() if sys.stderr.isatty() else queue.SimpleQueue()
        self.running: dict[Future[float], Any] = {}
        self.size, self.counted = 0, -POLL

    def _queue(self) -> Any:
        """A queue that lives where this process does, and not where a machine may be lost."""
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self.ray.get_runtime_context().get_node_id(), soft=False)
        return Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})

    @property
    def n_workers(self) -> int:
        """As `Runner`: some more than can run, since none should wait for this process between two jobs, and a cluster
        that grows does so when something waits.
        """
        if time.monotonic() - self.counted >= POLL:
            self.counted, before = time.monotonic(), self.size
            self.size = int(self.ray.cluster_resources().get("GPU" if self.has_gpus else "CPU", 0))
            if before not in (0, self.size):
                kind = "GPUs" if self.has_gpus else "CPUs"
                tqdm.write(f"the cluster has {self.size} {kind} now, {before} before", file=sys.stdout)
        return min(self.asked or self.size + max(1, self.size // 4), self.n_tasks)

    def start(self, index: int, task: Task) -> Future[float]:
        """As `Runner`."""
        messages = self.messages if sys.stderr.isatty() else None
        reference = self.call.remote(index, task.function, task.arguments, task.takes_progress, messages)
        future: Future[float] = reference.future()
        self.running[future] = reference
        future.add_done_callback(self.running.pop)
        return future

    def end_workers(self) -> None:
        """As `Runner`."""
        for reference in list(self.running.values()):
            self.ray.cancel(reference, force=True)

    def meaning(self, error: Exception) -> Exception:
        """As `Runner`."""
        errors = self.ray.exceptions
        if isinstance(error, errors.RayTaskError):
            cause = error.cause
            known = isinstance(cause, UserError) or (isinstance(cause, OSError) and cause.errno in FULL_OR_CLOSED)
            return cause if known else error  # which has the traceback of the worker
        if isinstance(error, errors.WorkerCrashedError | errors.NodeDiedError | errors.OutOfMemoryError):
            return DataError(WORKER_LOST)
        if isinstance(error, errors.RayError):
            return ServiceError(f"the Ray cluster must last as long as the run; {_one_line(error)}. Run again.")
        return error

    def close(self) -> None:
        """As `Runner`."""
        self.ray.shutdown()


def require_cluster(address: str | None) -> str | None:
    """HOST:PORT of the cluster that an address or $RAY_ADDRESS names, which answers; None for one of this machine.

    Raises:
        ConfigError: if Ray is not installed.
        ServiceError: if there is no cluster at the address.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "--executor ray must find the package ray, and it is not installed; pip install -r requirements-ray.txt "
            "into the environment in use, or leave that (deactivate), and ./run.sh installs it."
        )
    address = address or os.environ.get("RAY_ADDRESS")
    if address in (None, "", "local"):
        return None
    host, _, port = (_started_here() if address == "auto" else address).rpartition(":")
    named = host and port.isdecimal() and "/" not in host
    why = _no_answer(host, int(port)) if named else "there is no HOST:PORT, such as 10.0.0.5:6379"
    if why:
        raise ServiceError(
            f"the Ray cluster at {address} must answer, and does not: {why}. Start one (ray start --head), run this on "
            "one of its machines, or correct --ray-address or RAY_ADDRESS."
        )
    return f"{host}:{port}"


def _started_here() -> str:
    """HOST:PORT of the cluster of which this machine is one, empty if there is none."""
    from ray._private.services import canonicalize_bootstrap_address

    try:
        return canonicalize_bootstrap_address("auto") or ""
    except ConnectionError:
        return ""


def _no_answer(host: str, port: int) -> str | None:
    """Why there is no cluster, None if there is one. Ray itself asks for minutes before it says so."""
    try:
        socket.create_connection((host, port), PATIENCE).close()
    except OSError as error:
        return str(error)
    ask = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", f"{host}:{port}"]
    try:
        asked = subprocess.run(ask, capture_output=True, timeout=2 * PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return "what listens there does not speak as Ray does"
    return "it says that it is not healthy, or is of another version" if asked.returncode else None


def _environment() -> dict[str, str]:
    """Variables of every worker, which are read when it starts."""
    named = {name: str(Path(os.environ[name]).resolve()) for name in FOLDERS if name in os.environ}
    hub = {name: value for name, value in os.environ.items() if name in ("HF_HUB_OFFLINE", "HF_ENDPOINT")}
    search = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))
    return {**ONE_THREAD, **named, **hub, "WORK_DIR": str(work_root().resolve()), "PYTHONPATH": search}


def _call(index: int, function: Any, arguments: tuple[Any, ...], takes_progress: bool, messages: Any) -> float:
    """In a worker: run a task; returns its seconds."""

    def report(share: float) -> None:
        if messages is not None:
            messages.actor.put_nowait.remote((index, share))  # no one waits for it

    return timed(function, arguments, report, takes_progress)


def _one_line(error: Exception) -> str:
    return next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__).rstrip(".")
