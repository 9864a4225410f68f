"""Worker processes, reused from job to job: one thread each on a CPU, one GPU each where there are GPUs.

The executor places work and returns nothing; folders of jobs are the source of truth. A worker ends when the
process that started it ends, however that ends, so a killed run leaves no one writing.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

from competition.errors import DataError
from models.jobs.tasks import Runner, Task

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1") | {
    "TOKENIZERS_PARALLELISM": "false",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # glibc gives large blocks back to the system at once, and each new one costs a page fault per 4 kB: 6 % of a
    # training step of MiniLM on a CPU.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
}


WORKER_LOST = (
    "every worker must live until its job is done, and one was killed, most often because memory ran out; finished "
    "jobs are kept. Run again with fewer --workers or a smaller batch_size."
)


class Executor(Runner):
    """Worker processes for a number of tasks; use it in a `with` statement.

    Args:
        n_workers: None for one per GPU where there are GPUs, else one per core.
        n_tasks: more workers than tasks are of no use.
    """

    def __init__(self, n_workers: int | None, n_tasks: int) -> None:
        gpus = count_gpus()
        self._n_workers = max(1, min(n_workers or gpus or len(os.sched_getaffinity(0)), n_tasks))
        context = multiprocessing.get_context("spawn")
        self.messages = context.SimpleQueue()
        slots = context.SimpleQueue()
        for i in range(self._n_workers):
            slots.put(str(i % gpus) if gpus else None)
        os.environ.update(ONE_THREAD)  # read by the libraries of a worker when it imports them
        self._pool = ProcessPoolExecutor(
            self._n_workers, mp_context=context, initializer=_start_worker, initargs=(self.messages, slots)
        )

    @property
    def n_workers(self) -> int:
        """As `Runner`."""
        return self._n_workers

    def start(self, index: int, task: Task) -> Future[float]:
        """As `Runner`."""
        # A worker that is still importing takes over what is set here: Ctrl-C is the parent's alone.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        future = self._pool.submit(_call, index, task.function, task.arguments, task.takes_progress)
        signal.signal(signal.SIGINT, before)
        return future

    def end_workers(self) -> None:
        """As `Runner`."""
        for process in list((self._pool._processes or {}).values()):
            process.terminate()

    def meaning(self, error: Exception) -> Exception:
        """As `Runner`."""
        if isinstance(error, BrokenProcessPool):
            return DataError(WORKER_LOST)
        return error

    def close(self) -> None:
        """As `Runner`."""
        self._pool.shutdown(wait=True, cancel_futures=True)


_progress_queue: Any = None


def _start_worker(messages: Any, slots: Any) -> None:
    """First thing in a worker: end with the parent, take a GPU, remember where to report."""
    global _progress_queue
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    _progress_queue = messages
    gpu = slots.get()
    if gpu is not None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[int(gpu)] if visible else gpu
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _call(index: int, function: Callable[..., None], arguments: tuple[Any, ...], takes_progress: bool) -> float:
    """In a worker: run a task; returns its seconds."""
    return timed(function, arguments, lambda share: _progress_queue.put((index, share)), takes_progress)


def timed(
    function: Callable[..., None], arguments: tuple[Any, ...], report: Callable[[float], None], takes_progress: bool
) -> float:
    """Run a task and report its share of steps, at most some hundred times; returns its seconds."""
    started, last = time.monotonic(), [0.0]

    def progress(done: int, total: int) -> None:
        share = done / total
        if share - last[0] >= 0.005 or done == total:
            last[0] = share
            report(share)

    function(*arguments, **({"progress": progress} if takes_progress else {}))
    report(1.0)
    return time.monotonic() - started


def count_gpus() -> int:
    """GPUs that CUDA shows, without importing torch where there is no driver."""
    if shutil.which("nvidia-smi") is None:
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device])
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return sum(line.startswith("GPU ") for line in listed.splitlines())


def runner_of(executor: str, ray_address: str | None) -> Callable[[int | None, int], Runner]:
    """What makes the workers of `--executor`, from their number and that of the tasks."""
    if executor == "local":
        return Executor
    from models.jobs.ray_executor import RayExecutor  # here, since it imports this file, and few have Ray

    return partial(RayExecutor, address=ray_address)
