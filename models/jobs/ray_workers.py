"""The same work on a Ray cluster, for `--executor ray`: a CPU for each item, and a GPU where it asks for one.

Every machine of the cluster has this project, its packages and the folder for products at the same paths. An item whose
machine is lost is started again on another one, where its job goes on from its last checkpoint.
"""

import importlib.util
import logging
import math
import os
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from competition.command import FULL_OR_CLOSED
from competition.errors import ConfigError, DataError, ServiceError, UserError
from competition.paths import PROJECT, work_root
from models.jobs.workers import ONE_THREAD, POLL, WORKER_LOST, Item, Workers, timed

RETRIES = 5
"""Times that an item is started again because its machine or its worker was lost, before the run ends."""
SPARE = 0.25
"""Share of a cluster for which items wait at it beyond what can run, so that one that can grow does."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # what a lost machine has to say; it is in Ray's own logs
}
"""Variables that Ray reads when it is imported."""


class RayWorkers(Workers):
    """Workers of a Ray cluster; use it in a `with` statement.

    Args:
        n_workers: CPUs that items may use together; None for all that the cluster has.
        address: HOST:PORT of a cluster, or auto for the one that runs here; None for $RAY_ADDRESS, or where that is
            not set a cluster of this machine alone, which ends with the run.
    """

    def __init__(self, n_workers: int | None = None, address: str | None = None) -> None:
        super().__init__(n_workers)
        address = require_cluster(address)
        os.environ.update(QUIET)
        import ray

        own = {"num_cpus": self.cores, "num_gpus": len(self.gpus), "include_dashboard": False}
        said = {"log_to_driver": False, "logging_level": logging.CRITICAL, "runtime_env": {"env_vars": environment()}}
        try:
            ray.init(address or "local", **said, **({} if address else own))
        except (RuntimeError, ValueError, ConnectionError, TimeoutError) as error:
            raise ServiceError(f"the Ray cluster at {address} does not take this run: {error}") from None
        self.ray, self.n_workers = ray, n_workers
        self.most_threads = 1
        self.timed = ray.remote(max_retries=RETRIES)(timed)
        self.references: dict[Item, Any] = {}
        self.counted, self.size = -POLL, (0, 0)

    def capacity(self) -> tuple[int, int]:
        """As `Workers`; a change is printed."""
        if time.monotonic() - self.counted >= POLL:
            found, before = self.ray.cluster_resources(), self.size
            self.counted, self.size = time.monotonic(), (int(found.get("CPU", 0)), int(found.get("GPU", 0)))
            if before not in ((0, 0), self.size):
                tqdm.write("the cluster has {} CPUs and {} GPUs now".format(*self.size), file=sys.stdout)
        return self.n_workers or max(1, self.size[0]), self.size[1]

    def asked(self) -> tuple[int, int]:
        """As `Workers`."""
        cpus, gpus = self.capacity()
        spare = 1 if self.n_workers else 1 + SPARE
        return math.ceil(spare * cpus), math.ceil(spare * gpus)

    def start(self, item: Item, index: int) -> Future[float]:
        """As `Workers`."""
        placed = self.timed.options(num_cpus=1, num_gpus=int(self.on_gpu(item)))
        self.references[item] = placed.remote(index, item.function, item.arguments)
        future: Future[float] = self.references[item].future()
        return future

    def end(self) -> None:
        """As `Workers`."""
        for item in self.running:
            self.ray.cancel(self.references[item], force=True)

    def close(self) -> None:
        """As `Workers`."""
        self.ray.shutdown()

    def meaning(self, error: BaseException) -> BaseException:
        """As `Workers`."""
        errors, cause = self.ray.exceptions, getattr(error, "cause", None)  # without the traceback of the worker
        if isinstance(cause, UserError) or (isinstance(cause, OSError) and cause.errno in FULL_OR_CLOSED):
            return cause
        if isinstance(error, errors.WorkerCrashedError | errors.NodeDiedError | errors.OutOfMemoryError):
            return DataError(WORKER_LOST)
        if isinstance(error, errors.RayTaskError) or not isinstance(error, errors.RayError):
            return error
        return ServiceError("the Ray cluster was lost during the run; finished jobs are kept. Run again.")


def workers_of(executor: str, ray_address: str | None, n_workers: int | None) -> Callable[[], Workers]:
    """What makes the workers of `--executor`."""
    return partial(Workers, n_workers) if executor == "local" else partial(RayWorkers, n_workers, ray_address)


def require_cluster(address: str | None) -> str | None:
    """HOST:PORT of the cluster that an address or $RAY_ADDRESS names, where something answers; None for one of our own.

    Ray itself asks for minutes before it says that there is none.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "--executor ray needs the package ray, which is not installed; pip install -r requirements-ray.txt into "
            "the environment in use, or leave that (deactivate), and ./run.sh installs it."
        )
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address in ("local", "auto"):
        return None if address == "local" else address  # of auto, Ray says at once whether one runs here
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise ServiceError(
            f"no Ray cluster answers at {address!r} ({error}). Name its HOST:PORT, such as 10.0.0.5:6379, by "
            "--ray-address or RAY_ADDRESS, or start one there (ray start --head)."
        ) from None
    return address


def environment() -> dict[str, str]:
    """Variables that a worker on any machine of a cluster reads when it starts."""
    named = ("WEIGHTS_DIR", "UNIMOL_WEIGHT_DIR", "HF_HOME", "HF_HUB_OFFLINE", "HF_ENDPOINT")
    found = {name: os.environ[name] for name in named if name in os.environ}
    found |= {name: str(Path(found[name]).resolve()) for name in named[:3] if name in found}
    search = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))
    return {**ONE_THREAD, **found, "WORK_DIR": str(work_root().resolve()), "PYTHONPATH": search}
