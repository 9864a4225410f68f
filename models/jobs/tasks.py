"""Tasks, and the loop that hands them to workers as these become free, whatever the workers are.

Several processes may have the same tasks: each task is then run by the process that claims it, and the others wait for
what it makes, or take it over when that process is gone.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any

from competition.errors import DataError
from models.jobs.bars import Bars
from models.jobs.claims import GONE_AFTER, Claims, Owner

POLL = 1.0
"""Seconds from one look at what other processes have done to the next."""


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
    claim: str = ""
    """Name by which processes on one folder know whose it is; without one, each process runs it."""
    finished: Callable[[], bool] = lambda: True
    """Whether what it makes is there, by whomever; asked where it has a claim."""


class Order:
    """Which task a free worker takes: the first that can start, until there is none. `budget.py` has another."""

    deadline = math.inf
    """time.monotonic() at which running tasks are ended."""

    def choose(self, waiting: list[Task]) -> int | None:
        """Place in `waiting`, which is not empty, of the task to start; None to leave the worker free for now."""
        return next((i for i, task in enumerate(waiting) if task.can_start()), None)

    def finished(self, task: Task, seconds: float) -> None:
        """A task that was chosen is done and took so many seconds of its worker."""

    def put_back(self, task: Task) -> None:
        """A task that was chosen is not run now: another process has it."""

    def finished_elsewhere(self, task: Task) -> None:
        """A task that was not chosen, or put back, was done by another process."""


class Runner(ABC):
    """The loop; `executor.py` and `ray_executor.py` say what a worker is. Use it in a `with` statement."""

    messages: Any
    """Queue of (index of a task, share of its steps) from workers; None ends it."""

    @property
    @abstractmethod
    def n_workers(self) -> int:
        """Tasks that run side by side, now."""

    @abstractmethod
    def start(self, index: int, task: Task) -> Future[float]:
        """Hand a task to a free worker; gives the seconds that it took."""

    @abstractmethod
    def end_workers(self) -> None:
        """End all workers at once, with what they are doing."""

    def meaning(self, error: Exception) -> Exception:
        """What is raised for an exception of a task."""
        return error

    @abstractmethod
    def close(self) -> None:
        """Let workers end."""

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is not None:  # a mistake or Ctrl-C: what is running is lost anyway, so do not wait for it
            self.end_workers()
        self.close()

    def run(self, tasks: list[Task], noun: str, order: Order | None = None, claims: Claims | None = None) -> None:
        """Run tasks as workers become free, with a bar of the time left on a terminal.

        Args:
            noun: what they are, for the bar.
            order: None for all, in the order of the list. Where one has a deadline and it passes, the workers are
                ended with what they were doing, and no other `run` can follow.
            claims: where other processes may run the same tasks.

        Raises:
            The first exception of a task.
            DataError: if a worker was killed.
        """
        if not tasks:
            return
        order = order or Order()
        bars = Bars(len(tasks), noun, self.messages)
        waiting, running, held = list(tasks), dict[Future[float], Task](), _Held(claims)
        index = {id(task): i for i, task in enumerate(tasks)}

        def finish_elsewhere(task: Task) -> None:
            order.finished_elsewhere(task)
            bars.finished(index[id(task)], task.done)

        try:
            while True:
                done, freed = held.look()
                for task in done:
                    finish_elsewhere(task)
                waiting = sorted([*waiting, *freed], key=lambda task: index[id(task)]) if freed else waiting
                # No more than there are workers: what has been started is not taken back.
                while waiting and len(running) < self.n_workers and (place := order.choose(waiting)) is not None:
                    task = waiting.pop(place)
                    if not held.claim(task):
                        order.put_back(task)
                    elif held.is_finished(task):
                        order.put_back(task)
                        finish_elsewhere(task)
                    else:
                        running[self.start(index[id(task)], task)] = task
                if not running and not held.owners:
                    break
                if not running:
                    bars.say(held.words())
                left = order.deadline - time.monotonic()
                if left <= 0:
                    break
                for future in _ended(running, min(left, POLL)):
                    task, seconds = running.pop(future), future.result()
                    if held.is_awaited(task):
                        order.put_back(task)
                    else:
                        order.finished(task, seconds)
                        bars.finished(index[id(task)], task.done)
        except Exception as error:
            meaning = self.meaning(error)
            if meaning is error:
                raise
            raise meaning from None
        finally:
            bars.close()
        if running:  # not earlier: a worker that ends inside a message to the bars keeps their lock
            self.end_workers()


def _ended(running: dict[Future[float], Task], seconds: float) -> list[Future[float]]:
    """Those of the running tasks that end within some seconds, as soon as one does."""
    if not running:
        time.sleep(seconds)
        return []
    done, _ = wait(running, timeout=seconds, return_when=FIRST_COMPLETED)
    return [future for future in running if future in done]


class _Held:
    """Tasks of which something is awaited: that another process does them, or that what was done elsewhere is seen."""

    def __init__(self, claims: Claims | None) -> None:
        self.claims = claims
        self.owners: list[tuple[Task, Owner, float]] = []
        self.looked = 0.0

    def claim(self, task: Task) -> bool:
        """Claim a task for this process; where another has it, it is kept here."""
        owner = self.claims.holder(task.claim) if self.claims and task.claim else None
        if owner is not None:
            self._keep(task, owner)
        return owner is None

    def is_finished(self, task: Task) -> bool:
        """Whether another process did a task before it was claimed."""
        return self.claims is not None and bool(task.claim) and task.finished()

    def is_awaited(self, task: Task) -> bool:
        """Whether what a task that was run here makes is not to be seen (yet); the task is then kept here.

        It was taken over by another process, or a network file system does not show yet what another machine wrote.
        """
        if not self.claims or not task.claim or task.finished():
            return False
        if self.claim(task):
            self._keep(task, self.claims.me)
        return True

    def _keep(self, task: Task, owner: Owner) -> None:
        self.owners.append((task, owner, time.monotonic()))

    def look(self) -> tuple[list[Task], list[Task]]:
        """Tasks that are finished by now, and those whose owners are gone; neither are kept here any longer.

        Raises:
            DataError: if what was done by workers of this process is nowhere to be seen.
        """
        if not self.claims or not self.owners or time.monotonic() - self.looked < POLL:
            return [], []
        self.looked = time.monotonic()
        gone = {owner for owner in {owner for _, owner, _ in self.owners} if self.claims.is_gone(owner)}
        done, freed, kept = [], [], []
        for task, owner, since in self.owners:
            if task.finished():
                done.append(task)
            elif owner in gone:
                freed.append(task)
            elif owner == self.claims.me and self.looked - since > GONE_AFTER:
                raise DataError(f"what {task.name} wrote must be in the folder for products, and is not; run again.")
            else:
                kept.append((task, owner, since))
        self.owners = kept
        return done, freed

    def words(self) -> str:
        """Whom this process waits for."""
        of_owner: dict[str, list[str]] = {}
        for task, owner, _ in self.owners:
            of_owner.setdefault(str(owner), []).append(task.name)
        return "\n".join(f"waiting for {', '.join(names)}: with {owner}" for owner, names in of_owner.items())
