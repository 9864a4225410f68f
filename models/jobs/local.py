"""Tasks in processes of this machine, each in a one-worker pool of loky with its environment.

A worker that dies affects only its task. Pools are reused from task to task, so that libraries are imported
once.
"""

import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from loky import ProcessPoolExecutor, cpu_count
from loky.process_executor import BrokenProcessPool

from core.cli import SIGNALS
from core.workers import ignored, new_pool
from models.hardware import Card, visible_cards
from models.jobs.scheduler import JobResult, Resources, Task, may_be_fault_of_card, one_line, run_task

CORES_OF_GPU_TASK = 2
"""Cores of a task on a card, if there are at least twice as many per card; one core prepares batches."""
FEEDER_THREAD = "QueueFeederThread"
"""Name that loky gives to the thread which sends tasks to a worker."""
TOLERANCE = 1e-9
"""Rounding error of sums of shares."""


@dataclass(frozen=True)
class Slot:
    """One worker process, which sees one card or none."""

    pool: ProcessPoolExecutor
    card: str

    def end(self) -> None:
        """End the process at once."""
        self.pool.shutdown(wait=False, kill_workers=True)


@dataclass(frozen=True)
class Placement:
    """The worker of a running task, and its resources."""

    slot: Slot
    resources: Resources
    future: "Future[JobResult]"


@dataclass
class LocalExecutor:
    """Executor on the cores and cards of this machine.

    Args:
        n_workers: cores that tasks may use together; None for all.

    Attributes:
        cards: None until the first task asks for a card, since torch has to be imported in a worker to know.
        bad_cards: cards that may be at fault for a failure; they are avoided while others work.
        failed: names of the tasks that failed on a card.
    """

    n_workers: int | None = None
    cards: list[Card] | None = None
    running: dict[Task, Placement] = field(default_factory=dict)
    idle: list[Slot] = field(default_factory=list)
    bad_cards: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)

    @property
    def max_threads(self) -> int:
        """Cores that one task may use."""
        return self.capacity().cpus

    def capacity(self) -> Resources:
        """Return the cores that tasks may use, and the number of cards without those that are avoided."""
        n_cards = len(self.cards or [])
        n_sound = n_cards - len(self.bad_cards) or n_cards
        return Resources(self.n_workers or max(cpu_count(), n_cards), n_sound)

    def placed(self, resources: Resources) -> Resources:
        """Return what a task takes here: no card without cards, and at most all cores."""
        if resources.gpus > 0 and self.cards is None:
            self._detect_cards()
        capacity = self.capacity()
        gpus = resources.gpus if self.cards else 0.0
        cpus = resources.cpus
        if gpus > 0 and capacity.cpus >= 2 * CORES_OF_GPU_TASK * capacity.gpus:
            cpus = max(cpus, CORES_OF_GPU_TASK)
        return Resources(min(cpus, capacity.cpus), gpus)

    def fits(self, resources: Resources) -> bool:
        """Return whether a task that asks for this could start now."""
        self._collect()
        free_cpus = self.capacity().cpus - sum(
            placement.resources.cpus for placement in self.running.values()
        )
        if free_cpus < 1:
            return False
        placed = self.placed(resources)
        return placed.cpus <= free_cpus and (placed.gpus == 0 or self._card_for(placed.gpus) is not None)

    def submit(self, task: Task) -> "Future[JobResult]":
        """Start a task in an idle worker with the right card, or in a new one."""
        placed = self.placed(task.resources)
        card = (self._card_for(placed.gpus) or "") if placed.gpus > 0 else ""
        call = (run_task, task.name, task.function, task.arguments, card != "")
        slot = self._slot(card)
        try:
            future = self._call(slot, *call)
        except BrokenProcessPool:  # the process was killed while it was idle
            slot.end()
            slot = self._new_slot(card)
            future = self._call(slot, *call)
        self.running[task] = Placement(slot, placed, future)
        return future

    def cancel(self, task: Task) -> None:
        """End a running task at once, together with its worker."""
        placement = self.running.pop(task, None)
        if placement is not None:  # else it has just ended
            placement.slot.end()

    def announce(self, waiting: list[Task]) -> None:
        """Do nothing: this machine does not grow."""

    def close(self) -> None:
        """End all workers at once; a second Ctrl-C does not interrupt that.

        The feeder thread of a pool frees the semaphores of its queue, so it is waited for: otherwise the
        resource tracker of loky prints a warning about a leaked semaphore.
        """
        slots = [*self.idle, *(placement.slot for placement in self.running.values())]
        with ignored(*SIGNALS):
            for slot in slots:
                slot.pool.shutdown(wait=True, kill_workers=True)
            for thread in threading.enumerate():
                if thread.name == FEEDER_THREAD:
                    thread.join(timeout=1.0)
        self.idle.clear()
        self.running.clear()

    def _call(self, slot: Slot, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Call a function in a worker.

        Its process starts with SIGINT ignored, since the driver handles Ctrl-C and ends its workers.
        """
        with ignored(signal.SIGINT):
            return slot.pool.submit(function, *arguments)

    def _slot(self, card: str) -> Slot:
        """Take an idle worker that sees `card` (none: ""), or make one."""
        for slot in self.idle:
            if slot.card == card:
                self.idle.remove(slot)
                return slot
        return self._new_slot(card)

    def _new_slot(self, card: str, sees_all: bool = False) -> Slot:
        """Start a worker that sees one card, or none, or all of them."""
        visible = {} if sees_all else {"CUDA_VISIBLE_DEVICES": card}
        return Slot(new_pool(1, **visible), card)

    def _collect(self) -> None:
        """Make the workers of ended tasks idle.

        A pool with a dead process cannot be used again, and a process may not be able to use its card again
        after an error of CUDA.
        """
        for task, placement in list(self.running.items()):
            if not placement.future.done():
                continue
            del self.running[task]
            if placement.future.exception() is not None:
                placement.slot.end()
            elif placement.slot.card and placement.future.result().status == "failed":
                placement.slot.end()
                self._judge_card(placement.slot.card, task, placement.future.result())
            else:
                self.idle.append(placement.slot)

    def _judge_card(self, card: str, task: Task, result: JobResult) -> None:
        """Avoid a card on which a task failed, if the card may be at fault.

        A task that fails once more is at fault itself; then no card is avoided any more.
        """
        if task.name in self.failed:
            self.bad_cards.clear()
        elif may_be_fault_of_card(task, result):
            self.bad_cards.add(card)
        self.failed.add(task.name)

    def _card_for(self, share: float) -> str | None:
        """Return the fullest card that still has this share free, so that others stay empty for jobs that need
        a whole card; None if no card has. Bad cards are only used if all are bad.
        """
        used = dict.fromkeys((card.name_for_cuda for card in self.cards or []), 0.0)
        for placement in self.running.values():
            if placement.slot.card:
                used[placement.slot.card] += placement.resources.gpus
        allowed = used.keys() - self.bad_cards or used.keys()
        fitting = [card for card in used if card in allowed and used[card] + share <= 1 + TOLERANCE]
        return max(fitting, key=used.__getitem__, default=None)

    def _detect_cards(self) -> None:
        """Ask torch which cards there are, in a worker that trains afterwards if it sees none."""
        slot = self._new_slot("", sees_all=True)
        try:
            seen, reason = self._call(slot, visible_cards).result()
        except Exception as error:  # torch cannot be imported, or the worker died
            seen = []
            reason = one_line(error)
        self.cards = [card for card in seen if not card.fault]
        if reason:
            print(reason if self.cards else f"no GPU is used: {reason}", flush=True)
        if seen:  # this worker sees every card
            slot.end()
            return
        for other in self.idle[:1]:  # no more workers than cores
            other.end()
        self.idle[:1] = [slot]
