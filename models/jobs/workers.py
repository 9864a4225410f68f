"""Worker processes, and the loop that hands work out to them as cores and GPUs become free.

The folders of jobs are the source of truth: a worker returns nothing, and any of them may be lost. Workers are reused
from item to item. One ends when the process that started it ends, however that ends, so a killed run leaves no one
writing. `ray_workers.py` has those of a cluster.
"""

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import joblib
from tqdm import tqdm

from competition.durations import BAR
from competition.errors import DataError
from models.training.machine import usable_gpus

POLL = 1.0
"""Seconds from one look at progress bars, budgets and the size of a cluster to the next."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1") | {
    "TOKENIZERS_PARALLELISM": "false",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "PYTHONWARNINGS": "ignore:resource_tracker",  # it says so of each process that is ended at once
    # glibc gives large blocks back to the system at once, and each new one costs a page fault per 4 kB: 6 % of a
    # training step of MiniLM on a CPU.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
}
WORKER_LOST = (
    "a worker process was killed, most often because memory ran out; finished jobs are kept. Run again with fewer "
    "--workers or a smaller batch_size."
)


@dataclass(frozen=True, eq=False)
class Item:
    """A call for a worker, `function(*arguments)`, and what it asks for.

    gpu: whether it takes a GPU for itself, where there is one.
    threads: cores that it computes on.
    group: items whose seconds are added up, and that others may wait for: the jobs of a stage, the parts of a cache.
    after: groups that are finished before it starts.
    files: what is there before it starts.
    done: what is called in this process when it is finished.
    """

    function: Callable[..., object]
    arguments: tuple[Any, ...]
    gpu: bool = False
    threads: int = 1
    group: str = ""
    after: frozenset[str] = frozenset()
    files: tuple[Path, ...] = ()
    done: Callable[[], None] | None = None


class Workers:
    """Processes of this machine, for a `with` statement: as many as cores, and one for each GPU.

    Args:
        n_workers: cores that items may use together; None for all, or as many as there are GPUs if these are more.

    Attributes:
        running: items that workers have, with the time.monotonic() at which each was started.
        spent: group -> seconds that its items took of their workers.
        deadline: time.monotonic() at which running items are ended; no other `run` can follow.
        most_threads: cores that one item may use.
    """

    def __init__(self, n_workers: int | None = None) -> None:
        self.running: dict[Item, float] = {}
        self.spent: dict[str, float] = defaultdict(float)
        self.deadline = math.inf
        self.gpus = usable_gpus()
        self.cores = self.most_threads = n_workers or max(joblib.cpu_count(), len(self.gpus))
        self.gpu_of: dict[Item, str] = {}
        context = multiprocessing.get_context("spawn")
        self.shares: Any = context.RawArray("d", 2**16)  # of its steps that each item has done
        os.environ.update(ONE_THREAD)  # read by the libraries of a worker when it imports them
        # A pool starts a process when there is something for it to do, so one that has nothing costs nothing.
        self.pools = {
            gpu: ProcessPoolExecutor(n, context, _begin, (self.shares, gpu if self.gpus else None))
            for gpu, n in {"": self.cores, **dict.fromkeys(self.gpus, 1)}.items()
        }

    def capacity(self) -> tuple[int, int]:
        """Cores and GPUs that there are, now."""
        return self.cores, len(self.gpus)

    def asked(self) -> tuple[int, int]:
        """Cores and GPUs that items are handed out for, now."""
        return self.capacity()

    def start(self, item: Item, index: int) -> Future[float]:
        """Hand an item to a worker; gives the seconds that it took."""
        taken = {self.gpu_of[other] for other in self.running}
        self.gpu_of[item] = next(gpu for gpu in self.gpus if gpu not in taken) if self.on_gpu(item) else ""
        # A worker is born with what is set here, and keeps it: Ctrl-C is the parent's alone, which ends its workers.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        future = self.pools[self.gpu_of[item]].submit(timed, index, item.function, item.arguments)
        signal.signal(signal.SIGINT, before)
        return future

    def end(self) -> None:
        """End all workers at once, with what they are doing."""
        for process in multiprocessing.active_children():
            process.terminate()

    def close(self) -> None:
        """Let workers end."""
        for pool in self.pools.values():
            pool.shutdown(cancel_futures=True)

    def meaning(self, error: BaseException) -> BaseException:
        """What is raised for an exception of an item."""
        return DataError(WORKER_LOST) if isinstance(error, BrokenProcessPool) else error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is not None:  # a mistake or Ctrl-C: what is running is lost anyway, so do not wait for it
            self.end()
        self.close()

    def on_gpu(self, item: Item) -> bool:
        """Whether an item takes a GPU, since it asks for one and there are some."""
        return item.gpu and self.capacity()[1] > 0

    def run(self, items: list[Item], noun: str, more: Callable[[], list[Item]] = list) -> list[Item]:
        """Run items as workers become free, with a bar of the time left on a terminal; `noun` says what they are.

        `more` is asked for further items when a core has nothing to do, until it gives none. Gives the items that could
        not start; raises what the first raises.
        """
        waiting, futures, index = list(items), dict[Future[float], Item](), dict[Item, int]()
        self.running.clear()
        with tqdm(total=len(items), desc=noun, disable=not sys.stderr.isatty(), bar_format=BAR, leave=False) as bar:
            while (left := self.deadline - time.monotonic()) > 0:
                while item := self._next(waiting, more):
                    waiting.remove(item)
                    index[item] = len(index) % len(self.shares)
                    futures[self.start(item, index[item])] = item
                    self.running[item] = time.monotonic()
                if not futures:
                    return waiting
                for future in wait(futures, min(left, POLL), FIRST_COMPLETED).done:
                    item = futures.pop(future)
                    del self.running[item]
                    if error := future.exception():
                        raise self.meaning(error)
                    self.spent[item.group] += future.result()
                    if item.done:
                        with bar.external_write_mode():
                            item.done()
                            sys.stdout.flush()
                bar.total = len(index) + len(waiting)
                bar.n = len(index) - len(futures) + sum(self.shares[index[i]] for i in self.running)
                bar.refresh()
        self.end()
        return waiting

    def _next(self, waiting: list[Item], more: Callable[[], list[Item]]) -> Item | None:
        """The first item that a free worker can take; where a core would stand idle, `more` adds to what waits."""
        while not (item := next(self._ready(waiting), None)):
            if sum(other.threads for other in self.running) >= self.asked()[0] or not (found := more()):
                return None
            waiting += found
        return item

    def _ready(self, waiting: list[Item]) -> Iterator[Item]:
        """Items that have what they need, and a core or GPU."""
        cores, gpus = self.asked()
        free_cores = cores - sum(item.threads for item in self.running)
        free_gpus = gpus - sum(map(self.on_gpu, self.running))
        unfinished = {item.group for item in (*waiting, *self.running)}
        for item in waiting:
            has_room = free_gpus > 0 if self.on_gpu(item) else item.threads <= free_cores or not self.running
            if has_room and not item.after & unfinished and all(file.exists() for file in item.files):
                yield item


_shares: Any = None
_index = 0


def _begin(shares: Any, gpu: str | None) -> None:
    """First thing in a worker: see the one GPU that it has, or none; report progress; end with the parent."""
    global _shares
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    _shares = shares
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def progress(done: int, total: int) -> None:
    """In a worker: tell the bar how many steps of its item are done."""
    if _shares is not None:
        _shares[_index] = done / total


def timed(index: int, function: Callable[..., object], arguments: tuple[Any, ...]) -> float:
    """In a worker: run an item; returns its seconds."""
    global _index
    _index, started = index, time.monotonic()
    progress(0, 1)
    function(*arguments)
    return time.monotonic() - started
