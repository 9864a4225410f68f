"""Work for worker processes, and the loop that hands it out as cores and GPUs become free, wherever the workers are.

The folders of jobs are the source of truth: a worker returns nothing, and any of them may be lost.
"""

from __future__ import annotations

import math
import sys
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from competition.durations import BAR

POLL = 1.0
"""Seconds from one look at progress bars, budgets and the size of a cluster to the next."""


@dataclass(frozen=True, eq=False)
class Item:
    """A call for a worker, `function(*arguments)`, and what it asks for.

    gpu: whether it takes a GPU for itself, where there is one.
    threads: cores that it computes on.
    group: items that are of use together, or not at all.
    alike: items that take about as long as each other.
    after: groups that are finished before it starts.
    can_start: whether what else it reads is there.
    done: what is called in this process when it is finished.
    """

    function: Callable[..., None]
    arguments: tuple[Any, ...]
    gpu: bool = False
    threads: int = 1
    group: str = ""
    alike: str = ""
    after: frozenset[str] = frozenset()
    can_start: Callable[[], bool] = lambda: True
    done: Callable[[], None] = lambda: None


def first(ready: Iterator[Item], waiting: list[Item], workers: Workers) -> Item | None:
    """The item that a free worker takes: the first that can start. `budget.py` has another order.

    Args:
        ready: those of `waiting` that can start now.
        workers: with what they have and what items took.
    """
    return next(ready, None)


class Workers(ABC):
    """The loop; `local_workers.py` and `ray_workers.py` say what a worker is. Use it in a `with` statement.

    running: items that workers have, with the time.monotonic() at which each was started.
    seconds: what finished items are alike in -> the seconds that each took of its worker.
    deadline: time.monotonic() at which running items are ended; no other `run` can follow.
    shares: share of its steps that the worker of an item has done, by the item's index, where workers tell.
    """

    deadline = math.inf
    most_threads = 1
    """Cores that one item may use."""
    spare = 0.0
    """Share of the cores and GPUs for which items are handed out beyond what can run."""

    def __init__(self) -> None:
        self.running: dict[Item, float] = {}
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.shares: Any = [0.0]

    @abstractmethod
    def capacity(self) -> tuple[int, int]:
        """Cores and GPUs, now."""

    @abstractmethod
    def start(self, item: Item, index: int) -> Future[float]:
        """Hand an item to a worker; gives the seconds that it took."""

    @abstractmethod
    def end(self) -> None:
        """End all workers at once, with what they are doing."""

    @abstractmethod
    def close(self) -> None:
        """Let workers end."""

    def meaning(self, error: Exception) -> Exception:
        """What is raised for an exception of an item."""
        return error

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is not None:  # a mistake or Ctrl-C: what is running is lost anyway, so do not wait for it
            self.end()
        self.close()

    def on_gpu(self, item: Item) -> bool:
        """Whether an item takes a GPU, since it asks for one and there are some."""
        return item.gpu and self.capacity()[1] > 0

    def slots(self, item: Item) -> int:
        """How many items like this one can run side by side, if nothing else does."""
        cores, gpus = self.capacity()
        return min(cores, gpus) if self.on_gpu(item) else max(1, cores // item.threads)

    def _has_room(self, item: Item) -> bool:
        cores, gpus = (n + math.ceil(n * self.spare) for n in self.capacity())
        taken = sum(other.threads for other in self.running)
        gpu_is_free = sum(map(self.on_gpu, self.running)) < gpus or not self.on_gpu(item)
        return gpu_is_free and (taken + item.threads <= cores or not self.running)

    def run(self, items: list[Item], noun: str, choose: Choose = first) -> tuple[list[Item], list[Item]]:
        """Run items as workers become free, with a bar of the time left on a terminal; `noun` says what they are.

        Returns:
            The items that could not start, and those that were ended at the deadline.

        Raises:
            The first exception of an item.
            DataError: if a worker was killed.
        """
        waiting, futures = list(items), dict[Future[float], Item]()
        index = {item: i % len(self.shares) for i, item in enumerate(items)}
        self.running.clear()

        def ready() -> Iterator[Item]:
            unfinished = {item.group for item in (*waiting, *self.running)}
            return (i for i in waiting if self._has_room(i) and not i.after & unfinished and i.can_start())

        with tqdm(total=len(items), desc=noun, disable=not sys.stderr.isatty(), bar_format=BAR, leave=False) as bar:
            while (left := self.deadline - time.monotonic()) > 0:
                while waiting and (item := choose(ready(), waiting, self)):
                    waiting.remove(item)
                    futures[self.start(item, index[item])] = item
                    self.running[item] = time.monotonic()
                if not futures:
                    return waiting, []
                ended, _ = wait(futures, timeout=min(left, POLL), return_when=FIRST_COMPLETED)
                for future in [future for future in futures if future in ended]:
                    item = futures.pop(future)
                    del self.running[item]
                    self.seconds[item.alike].append(self._result(future))
                    with bar.external_write_mode():
                        item.done()
                        sys.stdout.flush()
                bar.n = len(items) - len(waiting) - len(futures) + sum(self.shares[index[i]] for i in self.running)
                bar.refresh()
        self.end()
        return waiting, list(futures.values())

    def _result(self, future: Future[float]) -> float:
        try:
            return future.result()
        except Exception as error:
            meaning = self.meaning(error)
            if meaning is error:
                raise
            raise meaning from None


Choose = Callable[[Iterator[Item], list[Item], Workers], Item | None]
_shares: Any = None
_index = 0


def report_to(shares: Any) -> None:
    """In a worker, before its first item: where `progress` writes."""
    global _shares
    _shares = shares


def progress(done: int, total: int) -> None:
    """In a worker: tell the bar how many steps of its item are done."""
    if _shares is not None:
        _shares[_index] = done / total


def timed(index: int, function: Callable[..., None], arguments: tuple[Any, ...]) -> float:
    """In a worker: run an item; returns its seconds."""
    global _index
    _index, started = index, time.monotonic()
    progress(0, 1)
    function(*arguments)
    return time.monotonic() - started
