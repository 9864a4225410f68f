"""Worker processes, reused from job to job: one thread each on a CPU, one GPU each where there are GPUs.

The executor places work and returns nothing; folders of jobs are the source of truth. A worker ends when the
process that started it ends, however that ends, so a killed run leaves no one writing.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from competition.errors import DataError

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1") | {
    "TOKENIZERS_PARALLELISM": "false",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # glibc gives large blocks back to the system at once, and each new one costs a page fault per 4 kB: 6 % of a
    # training step of MiniLM on a CPU.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
}


@dataclass(frozen=True)
class Task:
    """A call for a worker: `function(*arguments)`, with `progress=` where it takes one; `done()` follows here."""

    name: str
    function: Callable[..., None]
    arguments: tuple[Any, ...]
    takes_progress: bool = False
    done: Callable[[], None] = lambda: None
    group: str = ""
    """For an order that tells tasks apart."""
    can_start: Callable[[], bool] = lambda: True
    """Whether what it reads is there."""


class Order:
    """Which task a free worker takes: the first that can start, until there is none. `models.budget` has another."""

    deadline = math.inf
    """time.monotonic() at which running tasks are ended."""

    def choose(self, waiting: list[Task]) -> int | None:
        """Place in `waiting`, which is not empty, of the task to start; None to leave the worker free for now."""
        return next((i for i, task in enumerate(waiting) if task.can_start()), None)

    def finished(self, task: Task, seconds: float) -> None:
        """A task that was chosen is done and took so many seconds of its worker."""


class Executor:
    """Worker processes for a number of tasks; use it in a `with` statement.

    Args:
        n_workers: None for one per GPU where there are GPUs, else one per core.
        n_tasks: more workers than tasks are of no use.
    """

    def __init__(self, n_workers: int | None, n_tasks: int) -> None:
        gpus = count_gpus()
        self.n_workers = max(1, min(n_workers or gpus or len(os.sched_getaffinity(0)), n_tasks))
        context = multiprocessing.get_context("spawn")
        self._messages = context.SimpleQueue()
        slots = context.SimpleQueue()
        for i in range(self.n_workers):
            slots.put(str(i % gpus) if gpus else None)
        os.environ.update(ONE_THREAD)  # read by the libraries of a worker when it imports them
        self._pool = ProcessPoolExecutor(
            self.n_workers, mp_context=context, initializer=_start_worker, initargs=(self._messages, slots)
        )

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is not None:  # a mistake or Ctrl-C: what is running is lost anyway, so do not wait for it
            self._end_workers()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _end_workers(self) -> None:
        for process in list((self._pool._processes or {}).values()):
            process.terminate()

    def run(self, tasks: list[Task], noun: str, order: Order | None = None) -> None:
        """Run tasks as workers become free, with a bar of the time left on a terminal.

        Args:
            noun: what they are, for the bar.
            order: None for all, in the order of the list. Where one has a deadline and it passes, the workers are
                ended with what they were doing, and no other `run` can follow.

        Raises:
            The first exception of a task.
            DataError: if a worker was killed.
        """
        if not tasks:
            return
        order = order or Order()
        bars = _Bars(tasks, noun, self._messages)
        waiting, running = list(tasks), dict[Future[float], Task]()
        index = {id(task): i for i, task in enumerate(tasks)}
        try:
            while True:
                # No more than there are workers: what has been submitted cannot be taken back.
                while waiting and len(running) < self.n_workers and (place := order.choose(waiting)) is not None:
                    task = waiting.pop(place)
                    running[self._submit(index[id(task)], task)] = task
                if not running:
                    break
                left = None if order.deadline == math.inf else max(0.0, order.deadline - time.monotonic())
                finished, _ = wait(running, timeout=left, return_when=FIRST_COMPLETED)
                if not finished:
                    break
                for future in [future for future in running if future in finished]:
                    task = running.pop(future)
                    order.finished(task, future.result())
                    bars.finished(task)
        except BrokenProcessPool:
            raise DataError(
                "every worker must live until its job is done, and one was killed, most often because memory ran "
                "out; finished jobs are kept. Run again with fewer --workers or a smaller batch_size."
            ) from None
        finally:
            bars.close()
        if running:  # not earlier: a worker that ends inside a message to the bars keeps their lock
            self._end_workers()

    def _submit(self, index: int, task: Task) -> Future[float]:
        # A worker that is still importing takes over what is set here: Ctrl-C is the parent's alone.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        future = self._pool.submit(_call, index, task.function, task.arguments, task.takes_progress)
        signal.signal(signal.SIGINT, before)
        return future


class _Bars:
    """One bar over all tasks; a task that reports its steps counts by its share of them. A log gets no bar."""

    def __init__(self, tasks: list[Task], noun: str, messages: Any) -> None:
        self.shares = [0.0] * len(tasks)
        self.bar = tqdm(
            total=float(len(tasks)),
            desc=noun,
            disable=not sys.stderr.isatty(),
            bar_format="{desc} {percentage:3.0f}% |{bar:40}| {elapsed} passed, {remaining} left",
            leave=False,
        )
        self.messages = messages
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self) -> None:
        while (message := self.messages.get()) is not None:
            index, share = message
            with self.lock:
                self.shares[index] = max(self.shares[index], share)
                self.bar.n = sum(self.shares)
                self.bar.refresh()

    def finished(self, task: Task) -> None:
        """Print what a finished task says, above the bar."""
        with self.lock:
            self.bar.clear()
            task.done()
            sys.stdout.flush()
            self.bar.refresh()

    def close(self) -> None:
        """Take the bar away."""
        self.messages.put(None)
        self.thread.join()
        self.bar.close()


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
    """In a worker: run a task and report its share of steps, at most some hundred times; returns its seconds."""
    started, last = time.monotonic(), [0.0]

    def progress(done: int, total: int) -> None:
        share = done / total
        if share - last[0] >= 0.005 or done == total:
            last[0] = share
            _progress_queue.put((index, share))

    function(*arguments, **({"progress": progress} if takes_progress else {}))
    _progress_queue.put((index, 1.0))
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
