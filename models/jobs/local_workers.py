"""Worker processes of this machine: as many as cores, and one for each GPU, which has one item at a time.

Workers are reused from item to item. One ends when the process that started it ends, however that ends, so a killed
run leaves no one writing.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from competition.errors import DataError
from models.jobs.workers import Item, Workers, report_to, timed
from models.training.machine import usable_cores, usable_gpus

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1") | {
    "TOKENIZERS_PARALLELISM": "false",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # glibc gives large blocks back to the system at once, and each new one costs a page fault per 4 kB: 6 % of a
    # training step of MiniLM on a CPU.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
}
WORKER_LOST = (
    "a worker process was killed, most often because memory ran out; finished jobs are kept. Run again with fewer "
    "--workers or a smaller batch_size."
)


class LocalWorkers(Workers):
    """Use it in a `with` statement.

    Args:
        n_workers: cores that items may use together; None for all, or as many as there are GPUs if these are more.
    """

    def __init__(self, n_workers: int | None = None) -> None:
        super().__init__()
        self.gpus = usable_gpus()
        self.cores = self.most_threads = n_workers or max(usable_cores(), len(self.gpus))
        self.gpu_of: dict[Item, str] = {}
        context = multiprocessing.get_context("spawn")
        self.shares = context.RawArray("d", 2**16)
        os.environ.update(ONE_THREAD)  # read by the libraries of a worker when it imports them
        # A pool starts a process when there is something for it to do, so one that has nothing costs nothing.
        self.pools = {
            gpu: ProcessPoolExecutor(n, context, _begin, (self.shares, gpu if self.gpus else None))
            for gpu, n in {"": self.cores, **dict.fromkeys(self.gpus, 1)}.items()
        }

    def capacity(self) -> tuple[int, int]:
        """As `Workers`."""
        return self.cores, len(self.gpus)

    def start(self, item: Item, index: int) -> Future[float]:
        """As `Workers`."""
        taken = {self.gpu_of[other] for other in self.running}
        free = [gpu for gpu in self.gpus if gpu not in taken]
        self.gpu_of[item] = free[0] if self.on_gpu(item) else ""
        # A worker that is still importing takes over what is set here: Ctrl-C is the parent's alone.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        future = self.pools[self.gpu_of[item]].submit(timed, index, item.function, item.arguments)
        signal.signal(signal.SIGINT, before)
        return future

    def end(self) -> None:
        """As `Workers`."""
        for process in multiprocessing.active_children():
            process.terminate()

    def close(self) -> None:
        """As `Workers`."""
        for pool in self.pools.values():
            pool.shutdown(wait=True, cancel_futures=True)

    def meaning(self, error: Exception) -> Exception:
        """As `Workers`."""
        return DataError(WORKER_LOST) if isinstance(error, BrokenProcessPool) else error


def _begin(shares: Any, gpu: str | None) -> None:
    """First thing in a worker: see the one GPU that it has, or none; report progress; end with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    report_to(shares)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
