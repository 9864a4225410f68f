"""Estimates how long the jobs of a stage take and when all jobs will have ended.

The pace of a stage is the time of its job with the most training rows, refits excepted: the mean of such jobs
that have ended, or an extrapolation from the progress of a running network. The progress of other stages counts
targets, which differ in rows, so it is not extrapolated. Other jobs take a time in proportion to their rows.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field

from core.text import format_duration
from models.jobs.progress import read_progress
from models.jobs.scheduler import Executor, JobResult, Queue, Resources, Task

SHARES_BETWEEN_REPORTS = (0.05, 0.1)
"""Shares of all steps between the first progress report and the first estimate, and between that and the final one."""
MIN_SECONDS = 10.0
"""A running job has no estimate before this many seconds."""
MOST_ROWS = 0.9
"""Share of the rows of the largest fold from which a job is as large as it: folds differ by some rows."""
TimedResources = Sequence[tuple[float, Resources]]
"""(seconds, resources) of each job."""
MIN_FORECAST = 30.0
"""A forecast is printed only if the end is at least this many seconds away."""


@dataclass
class Paces:
    """Seconds that tasks take, by group: the jobs of a stage, or the parts of a cache.

    Args:
        networks: groups that are neural stages.

    Attributes:
        most_rows: group -> rows of its largest fold; 1 for parts of a cache.
        ended: group -> seconds that its ended tasks would have taken with `most_rows`, of the large ones only.
        expected: group -> pace to assume until a large task of the group has ended.
        reports: running task -> its finished steps and seconds at the first progress report, the first estimate
            and the final one.
        earlier: running task -> steps and seconds of an earlier attempt, from whose checkpoint it continued.
    """

    queue: Queue
    executor: Executor
    networks: Set[str]
    most_rows: dict[str, int] = field(default_factory=dict)
    ended: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    expected: dict[str, float] = field(default_factory=dict)
    reports: dict[Task, list[tuple[float, float]]] = field(default_factory=dict)
    earlier: dict[Task, tuple[float, float]] = field(default_factory=dict)

    def add(self, group: str, result: JobResult, n_rows: int = 1) -> None:
        """Add the time of a task that ended without an error, if it is among the largest of its group."""
        if result.status == "ok" and self._is_large(group, n_rows):
            self.ended[group].append(result.seconds / self.share_of_rows(group, n_rows))

    def share_of_rows(self, group: str, n_rows: int) -> float:
        """Return the rows of a task as a share of those of the largest fold of its group."""
        return n_rows / self.most_rows.get(group, 1)

    def _is_large(self, group: str, n_rows: int) -> bool:
        return self.share_of_rows(group, n_rows) >= MOST_ROWS

    def pace(self, group: str) -> float | None:
        """Return the seconds of the largest task of a group; None if they are not measured yet.

        A task that has run for longer than expected raises it.
        """
        pace = self._measured_pace(group)
        if pace is None:
            return None
        running = [task for task in self.queue.running if task.group == group and task not in self.earlier]
        of_running = (self.elapsed(task) / self.share_of_rows(group, task.n_rows) for task in running)
        return max([pace, *of_running]) if group not in self.networks else pace

    def _measured_pace(self, group: str) -> float | None:
        if self.ended[group]:
            return sum(self.ended[group]) / len(self.ended[group])
        if group in self.expected:
            return self.expected[group]
        for task in self.queue.running:
            if task.group == group and self._is_large(group, task.n_rows):
                seconds = self._extrapolated(task)
                if seconds is not None:
                    return seconds / self.share_of_rows(group, task.n_rows)
        return None

    def is_final(self, group: str) -> bool:
        """Return whether the pace of a group is final."""
        running = [task for task in self.queue.running if task.group == group]
        return bool(self.ended[group]) or any(len(self.reports.get(task, ())) == 3 for task in running)

    def _extrapolated(self, task: Task) -> float | None:
        """Return the seconds that a running network takes from its first step; None before enough steps.

        The steps of an earlier attempt count with the speed of this one.
        """
        seconds_left = self._seconds_left(task)
        if seconds_left is None:
            return None
        progress = read_progress(task.folder) if task.folder is not None else {}
        earlier_steps, earlier_seconds = self.earlier.get(task, (0.0, 0.0))
        n_left = progress["total"] - progress["done"]
        seconds = progress["seconds"] - earlier_seconds + seconds_left
        return seconds + (earlier_steps * seconds_left / n_left if n_left else 0.0)

    def _seconds_left(self, task: Task) -> float | None:
        """Return the seconds until the last step of a running network; None before enough steps.

        Imports and inputs come before the first report, and the first steps are slower than others. So the
        first estimate uses the steps since the first report, and the final one those since the first estimate.
        """
        progress = read_progress(task.folder) if task.folder and task.group in self.networks else {"done": 0}
        if progress["done"] == 0:
            return None
        done = progress["done"]
        seconds = progress["seconds"]
        if task not in self.reports and seconds > self.elapsed(task) + 1.0:
            self.earlier[task] = (done, seconds - self.elapsed(task))
        reports = self.reports.setdefault(task, [(done, seconds)])
        seconds_here = seconds - self.earlier.get(task, (0.0, 0.0))[1]
        if len(reports) <= len(SHARES_BETWEEN_REPORTS) and seconds_here >= MIN_SECONDS:
            n_steps = SHARES_BETWEEN_REPORTS[len(reports) - 1] * progress["total"]
            if done - reports[-1][0] >= n_steps:
                reports.append((done, seconds))
        if len(reports) == 1:
            return None
        first_done, first_seconds = reports[len(reports) - 2]
        return (progress["total"] - done) * (seconds - first_seconds) / (done - first_done)

    def elapsed(self, task: Task) -> float:
        """Return the seconds since a task started; 0 if it waits."""
        now = time.monotonic()
        return now - self.queue.running.get(task, now)

    def seconds_left(self, task: Task, pace: float) -> float:
        """Return the seconds until a task ends whose group has a pace."""
        if task in self.queue.running:
            measured = self._seconds_left(task)
            if measured is not None:
                return measured
        seconds = pace * self.share_of_rows(task.group, task.n_rows)
        return max(0.0, seconds - self.elapsed(task))

    def remaining(self, tasks: Iterable[Task]) -> TimedResources:
        """Return remaining seconds and resources of the tasks with a measured pace."""
        jobs = []
        for task in tasks:
            pace = self.pace(task.group)
            if pace is not None:
                jobs.append((self.seconds_left(task, pace), task.resources))
        return jobs

    def seconds_until_end(self, tasks: Iterable[Task], jobs: TimedResources = ()) -> float:
        """Return the seconds until the last of some tasks of the queue, and of further jobs, ends."""
        return makespan([*self.remaining(tasks), *jobs], self.executor.capacity())


def makespan(jobs: TimedResources, capacity: Resources) -> float:
    """Return the seconds until the last job ends, if each starts in order as soon as its cores are free.

    This is a lower bound for jobs on GPUs, as if they did not wait for cores and filled the GPUs without gaps.
    """
    free = [0.0] * max(1, capacity.cpus)  # seconds until each core is free
    on_gpus = 0.0
    longest_on_gpu = 0.0
    for seconds, resources in jobs:
        if capacity.gpus > 0 and resources.gpus > 0:
            on_gpus += seconds * resources.gpus / capacity.gpus
            longest_on_gpu = max(longest_on_gpu, seconds)
            continue
        free.sort()
        n_cores = min(resources.cpus, len(free))
        free[:n_cores] = [free[n_cores - 1] + seconds] * n_cores
    return max(*free, on_gpus, longest_on_gpu)


def describe_end(seconds: float) -> str:
    """Return when something ends that takes this many seconds, such as `in about 6 min, at 03:42`."""
    at = time.strftime("%H:%M", time.localtime(time.time() + seconds))
    return f"in about {format_duration(float(f'{seconds:.2g}'))}, at {at}"


def describe_pace(stage: str, pace: float, seconds: float, which: str, epochs: str = "") -> str:
    """Return a line about a stage that trains: the time of a job and, unless it is soon, the end of all jobs.

    Args:
        pace: seconds of a job of the largest fold.
        seconds: seconds until the end of the jobs that `which` describes, such as `all jobs end`.
    """
    end = f"; {which} {describe_end(seconds)}" if seconds >= MIN_FORECAST else ""
    return f"stage {stage}  {epochs}about {format_duration(max(1.0, pace))} a job{end}"


class Forecast:
    """Prints when the jobs of each stage will have ended, as soon as their pace is measured.

    Args:
        stages: in the order in which their jobs start.
        networks: the neural stages among them.
    """

    def __init__(self, queue: Queue, executor: Executor, stages: Iterable[str], networks: Set[str]) -> None:
        self.queue = queue
        self.paces = Paces(queue, executor, networks)
        self.stages = list(stages)

    def update(self) -> dict[Task, JobResult]:
        """Print a line per stage with a measured pace, in the order of the stages.

        It is the `watch` of a scheduler, which ends the returned tasks: none.
        """
        while self.stages:
            pace = self.paces.pace(self.stages[0])
            tasks = [*self.queue.running, *self.queue.waiting]
            has_tasks = any(task.group == self.stages[0] for task in tasks)
            if has_tasks and pace is None:
                break
            stage = self.stages.pop(0)
            later = {*self.stages}
            seconds = self.paces.seconds_until_end([task for task in tasks if task.group not in later])
            if has_tasks and pace is not None and seconds >= MIN_FORECAST:
                which = "its jobs and all earlier ones end" if self.stages else "all jobs end"
                print(describe_pace(stage, pace, seconds, which), flush=True)
        return {}
