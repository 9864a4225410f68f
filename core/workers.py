"""Worker processes of loky, for jobs and for features of a user's function."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from loky import ProcessPoolExecutor
from loky.backend.context import LokyContext
from tqdm import tqdm

from core.signals import handled

IN_WORKER = "PIPELINE_WORKER"
"""Environment variable that is set in workers."""
WORKER_ENVIRONMENT = {
    IN_WORKER: "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # deterministic matrix products on a card; other sums vary
    # glibc gives large blocks back to the system at once, and each new one costs a page fault per 4 kB: 6 %
    # of a training step of MiniLM on a CPU.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    # Growth of memory after which loky starts a new worker; importing torch is not a leak.
    "LOKY_MAX_MEMORY_LEAK_SIZE": str(2**31),
}
DRIVER_POLL = 0.5
"""Seconds between two checks of a worker whether its driver is alive."""


def new_pool(n_workers: int, **environment: str) -> ProcessPoolExecutor:
    """Return a pool of worker processes in WORKER_ENVIRONMENT and `environment`, started by the first call."""
    return ProcessPoolExecutor(
        n_workers,
        context=LokyContext(),  # joblib registers its copy of loky under the same name
        env=WORKER_ENVIRONMENT | environment,
        initializer=_start_worker,
        initargs=(os.getpid(),),
    )


@contextmanager
def ignored(*signals: signal.Signals) -> Iterator[None]:
    """Ignore signals in this process and in processes that it starts meanwhile; only in the main thread."""
    with handled(signal.SIG_IGN, *signals):
        yield


def _start_worker(driver: int) -> None:
    """Prepare a worker: it ignores Ctrl-C, and ends when its driver has ended for any reason.

    It does not ignore SIGTERM: processes of a user's stage would inherit that, and the stage could not end
    them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tqdm.set_lock(threading.RLock())  # the default, a semaphore, is reported if a worker is killed

    def end_with_driver() -> None:
        while os.getppid() == driver:
            time.sleep(DRIVER_POLL)
        os._exit(1)

    threading.Thread(target=end_with_driver, daemon=True).start()
