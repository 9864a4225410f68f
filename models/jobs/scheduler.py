"""The scheduler: a loop that runs tasks on an executor, with the policy for failed tasks.

A task returns a `JobResult` and never raises. The scheduler knows tasks, groups and resources, but no stages.

    tasks -> Queue -> run -> Executor.submit -> a worker: run_task -> JobResult -> Queue.end

Failure policy: after a failed task, the tasks of its group that have not started are skipped. If a worker was
killed, its task is tried once more, last and alone. If a task ran out of memory on a shared GPU, it is tried
once more with the whole GPU. If it may have failed by its GPU, it is tried once more, on another GPU if there
is one. Every other failure is final until the next run.
"""

import ctypes
import errno
import functools
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from tqdm import tqdm

from core.text import format_duration
from core.workers import IN_WORKER
from models.hardware import Card, free_gpu_memory, require_gpu
from models.jobs.progress import describe_loss

POLL = 1.0
"""Seconds between two checks of progress, time limits and the size of a cluster."""
BAR = "jobs {percentage:3.0f}% |{bar:40}| {elapsed} elapsed, {remaining} left"
"""Format of the progress bar."""
SECONDS_BETWEEN_LINES = 30.0
"""Seconds between two lines about what runs."""
CARD_ERRORS = ("cuda error", "torch sees none")
"""Parts of the messages of errors that may be those of a GPU, in lower case."""
MAX_ERROR_LENGTH = 400
OVER = "time ran out"
Reason = Literal["", "error", "killed", "timeout", "memory", "disk", "dependency", "group", "time"]


@dataclass(frozen=True)
class Resources:
    """Resources of a task or of a machine, with the units of Ray.

    Attributes:
        cpus: number of cores.
        gpus: number of GPUs of a machine, or the share of one GPU of a task, at most 1.
    """

    cpus: int = 1
    gpus: float = 0.0


@dataclass(frozen=True)
class JobResult:
    """Result of a task. It has plain values only, so that every process can read it.

    Attributes:
        name: name of the task.
        reason: why the status is not ok: an exception (error), a worker that died (killed), `--job-timeout`
            (timeout), too little memory of a GPU (memory), a folder that cannot be written, such as on a full
            disk (disk), a task that it waits for (dependency), a failed task of its group (group), or the end
            of the budget (time).
        error: type and message of the exception, in one line.
        log: file with the traceback, if there is one.
        lines: lines to print.
        gpu_gib: peak memory on its GPU in GiB.
    """

    name: str
    status: Literal["ok", "failed", "skipped"] = "ok"
    reason: Reason = ""
    error: str = ""
    log: Path | None = None
    seconds: float = 0.0
    lines: tuple[str, ...] = ()
    gpu_gib: float = 0.0


def exit_status(results: dict[str, JobResult]) -> int:
    """Return 3 if a job failed or was skipped because another one failed, else 0."""
    return 3 if any(result.status == "failed" for result in results.values()) else 0


@dataclass(frozen=True, eq=False)
class Task:
    """A call `function(*arguments)` in a worker, with its requirements.

    Attributes:
        name: unique in its queue.
        group: name of related tasks, such as the jobs of a stage.
        skips_group: whether a failure skips the tasks of the group that have not started.
        wait_for_groups: all tasks of these groups must have ended, in any way, before it starts.
        wait_for_files: files that must exist before it starts.
        folder: folder in which it reports its progress, if it does.
        on_end: called in the driver with its final result.
        runs_alone: whether nothing else may run at the same time.
        is_retried: whether it is tried once more if its worker was killed, or its GPU failed or was too small.
        n_rows: training rows of a job, 0 if it only predicts; its expected seconds are in proportion.
        priority: key by which whoever fills the queue sorts it.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    resources: Resources = Resources()
    group: str = ""
    skips_group: bool = True
    wait_for_groups: frozenset[str] = frozenset()
    wait_for_files: tuple[Path, ...] = ()
    folder: Path | None = None
    on_end: Callable[[JobResult], None] = lambda result: None
    runs_alone: bool = False
    is_retried: bool = True
    n_rows: int = 1
    priority: tuple[int, ...] = ()


class Executor(Protocol):
    """Where tasks run: processes of this machine (`local.py`) or a Ray cluster (`cluster.py`)."""

    cards: list[Card] | None
    """GPUs of this machine; None if they were not detected."""

    @property
    def max_threads(self) -> int:
        """Cores that one task may use."""

    def capacity(self) -> Resources:
        """Return the current number of cores and GPUs."""

    def fits(self, resources: Resources) -> bool:
        """Return whether a task with these resources could start now, next to the running ones."""

    def submit(self, task: Task) -> "Future[JobResult]":
        """Start a task in a worker."""

    def cancel(self, task: Task) -> None:
        """End a running task at once, together with its worker."""

    def announce(self, waiting: list[Task]) -> None:
        """Tell a cluster that can grow about the waiting tasks."""

    def close(self) -> None:
        """End all workers at once."""


class Queue:
    """Tasks that wait and run, and the results of those that have ended.

    Args:
        job_timeout: seconds after which a running task fails.

    Attributes:
        more: called when a core is idle; queues further tasks and returns whether it did.
        watch: called about once a second while tasks run.
        running: task -> time.monotonic() of its start.
        ending: running tasks that are to be ended now, each with its result.
        deadline: time.monotonic() at which running tasks are ended and waiting ones are skipped.
    """

    def __init__(self, tasks: Iterable[Task] = (), job_timeout: float = math.inf) -> None:
        self.waiting = list(tasks)
        self.job_timeout = job_timeout
        self.more: Callable[[], bool] = lambda: False
        self.watch: Callable[[], None] = lambda: None
        self.deadline = math.inf
        self.running: dict[Task, float] = {}
        self.ending: dict[Task, JobResult] = {}
        self.results: dict[str, JobResult] = {}
        self.retried: set[str] = set()

    def next(self, executor: Executor) -> Task | None:
        """Remove and return the first waiting task that can start now; None if no task can.

        A task that runs alone starts when nothing runs and no other task can start. If a core is idle
        all the same, more tasks are queued first.
        """
        if any(task.runs_alone for task in self.running):
            return None
        fits = functools.cache(executor.fits)  # a core that becomes idle meanwhile is not for a later task
        unfinished_groups = {task.group for task in [*self.waiting, *self.running]}
        for task in sorted(self.waiting, key=lambda task: task.runs_alone):
            if task.runs_alone and self.running:
                break
            has_inputs = all(file.exists() for file in task.wait_for_files)
            if has_inputs and not task.wait_for_groups & unfinished_groups and fits(task.resources):
                self.waiting.remove(task)
                return task
        return self.next(executor) if fits(Resources()) and self.more() else None

    def end(self, task: Task, result: JobResult) -> None:
        """Take the result of a task that ran, or put the task back if it is tried again."""
        del self.running[task]
        retry = task
        how = ""
        if result.reason == "killed":
            retry = replace(task, runs_alone=True)
            how = ", alone"
        elif result.reason == "memory" and 0 < task.resources.gpus < 1:
            retry = replace(task, resources=replace(task.resources, gpus=1.0))
            how = " with the whole GPU"
        elif may_be_fault_of_card(task, result):
            how = ", on another GPU if there is one"
        if how and task.is_retried and task.name not in self.retried:
            self.retried.add(task.name)
            print(f"{task.name}: {result.error}; tried once more{how}", flush=True)
            position = len(self.waiting) if retry.runs_alone else 0  # a second failure ends the group
            self.waiting.insert(position, retry)
        else:
            self.record(task, result)

    def skip(self, task: Task, reason: Reason, error: str) -> None:
        """Record that a waiting task is not run."""
        self.waiting.remove(task)
        self.record(task, JobResult(task.name, "skipped", reason, error))

    def record(self, task: Task, result: JobResult) -> None:
        """Keep the final result of a task; a failure skips the tasks of its group that have not started."""
        self.results[task.name] = result
        task.on_end(result)
        if result.status == "failed" and task.skips_group:
            for other in [other for other in self.waiting if other.group == task.group]:
                self.skip(other, "group", f"{task.name} failed")

    def take_ending(self) -> dict[Task, JobResult]:
        """Return the running tasks that are to be ended now: also those that have used up `job_timeout`."""
        self.watch()
        seconds = self.job_timeout
        error = f"not finished after {format_duration(seconds)} (--job-timeout)"
        for task, started in self.running.items():
            if time.monotonic() - started > seconds:
                self.ending[task] = JobResult(task.name, "failed", "timeout", error, seconds=seconds)
        ending = {task: result for task, result in self.ending.items() if task in self.running}
        self.ending.clear()
        return ending


def may_be_fault_of_card(task: Task, result: JobResult) -> bool:
    """Return whether a task may have failed by its GPU: by an error of CUDA, or too little memory of a whole GPU."""
    if result.reason == "memory":
        return task.resources.gpus == 1
    return result.reason == "error" and any(part in result.error.lower() for part in CARD_ERRORS)


class DiskFull(OSError):
    """A worker could not write: the run ends, and no task counts as failed."""

    errno = errno.ENOSPC  # `cli.run` then reports that a folder cannot be written


def run(queue: Queue, executor: Executor) -> dict[str, JobResult]:
    """Run the tasks of a queue until all have ended or the deadline is reached; return the results by name.

    A terminal shows a bar with the time left. Tasks that wait for missing files or groups are skipped with
    the reason `dependency`.

    Raises:
        DiskFull: if a worker cannot write. Running tasks are ended.
    """
    futures: dict[Task, Future[JobResult]] = {}  # in the order of their start
    last_printed = time.monotonic()
    with tqdm(disable=not sys.stderr.isatty(), bar_format=BAR, leave=False) as bar:
        while (seconds_left := queue.deadline - time.monotonic()) > 0:
            while task := queue.next(executor):
                queue.running[task] = time.monotonic()
                futures[task] = _submit(task, executor)
            if not futures:
                break
            executor.announce(queue.waiting)
            wait(futures.values(), min(seconds_left, POLL), FIRST_COMPLETED)
            with bar.external_write_mode():
                for task in [task for task, future in futures.items() if future.done()]:
                    queue.end(task, result_of(task, futures.pop(task)))
                for task, result in queue.take_ending().items():
                    executor.cancel(task)
                    del futures[task]
                    queue.end(task, result)
                if queue.running and time.monotonic() - last_printed >= SECONDS_BETWEEN_LINES:
                    last_printed = time.monotonic()
                    _print_running(queue)
                sys.stdout.flush()
            bar.n = len(queue.results)
            bar.total = bar.n + len(queue.running) + len(queue.waiting)
            bar.refresh()
    for task, future in futures.items():
        if future.done():
            queue.end(task, result_of(task, future))
        else:
            executor.cancel(task)
            queue.end(task, JobResult(task.name, "skipped", "time", OVER))
    is_over = queue.deadline <= time.monotonic()
    for task in list(queue.waiting):
        if is_over:
            queue.skip(task, "time", OVER)
        else:
            queue.skip(task, "dependency", "a job that it needs is not finished")
    return queue.results


def _submit(task: Task, executor: Executor) -> "Future[JobResult]":
    """Start a task; if no worker can be started, the task ends as if its worker had died."""
    try:
        return executor.submit(task)
    except Exception as error:
        future = Future[JobResult]()
        future.set_exception(error)
        return future


def result_of(task: Task, future: "Future[JobResult]") -> JobResult:
    """Return the result of a task, also if its worker died.

    Raises:
        DiskFull: if the task could not write.
    """
    try:
        result = future.result()
    except Exception as error:  # of the pool or the cluster, since a task does not raise
        exit_codes = re.search(
            r"exit codes of the workers are \{(.+)\}", str(error)
        )  # loky's TerminatedWorkerError
        how = exit_codes[1] if exit_codes else one_line(error)
        cause = ", most often because memory ran out" if "SIGKILL" in how else ""
        return JobResult(task.name, "failed", "killed", f"its worker died ({how}){cause}")
    if result.reason == "disk":
        raise DiskFull(result.error)
    return result


def run_task(name: str, function: Callable[..., Any], arguments: tuple[Any, ...], on_card: bool) -> JobResult:
    """Call a function in a worker and return its result. Whatever it raises is a failed result.

    Args:
        on_card: whether the task was placed on a GPU: it fails if torch does not see one.
    """
    started = time.monotonic()
    folder = Path.cwd()
    variables = dict(os.environ)
    try:
        if on_card:
            require_gpu()
        value = function(*arguments)
    except BaseException as error:  # sys.exit too: the worker goes on
        if is_ctrl_c(error):
            raise
        return JobResult(name, "failed", "error", one_line(error))
    finally:  # a user's stage may have changed them, and the worker is used again
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(variables)
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.set_default_dtype(torch.float32)
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)  # WORKER_ENVIRONMENT keeps freed memory
        if on_card:
            free_gpu_memory()  # for jobs of other workers, while this one is idle
    result = value if isinstance(value, JobResult) else JobResult(name)
    return replace(result, seconds=result.seconds or time.monotonic() - started)


def is_ctrl_c(error: BaseException) -> bool:
    """Return whether an exception is Ctrl-C.

    Workers ignore the signal, so a KeyboardInterrupt in a worker was raised by the code of a stage.
    """
    return isinstance(error, KeyboardInterrupt) and IN_WORKER not in os.environ


def one_line(error: BaseException) -> str:
    """Return type and message of an exception as one line of at most MAX_ERROR_LENGTH characters."""
    try:
        message = " ".join(str(error).encode("utf-8", "replace").decode().split())
    except BaseException:  # of a user's class
        message = "its message cannot be printed"
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return text if len(text) <= MAX_ERROR_LENGTH else text[: MAX_ERROR_LENGTH - 4] + " ..."


def _print_running(queue: Queue) -> None:
    """Print the last epoch and loss of each running task that has written one; if none has, what runs."""
    losses = {task.name: describe_loss(task.folder) for task in queue.running if task.folder is not None}
    lines = [f"{name}  {loss}" for name, loss in losses.items() if loss]
    last_of_group = {task.group: task.name for task in queue.running}
    print("\n".join(lines or [f"running: {'; '.join(last_of_group.values())}"]))
