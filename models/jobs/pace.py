"""Estimates how long the jobs of a stage take and when all jobs will have ended, and finds jobs that hang.

The pace of a stage is the mean time of its finished jobs, or an extrapolation from the progress of a running
network. The progress of other stages counts targets, which differ in rows, so it is not extrapolated.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field

from core.text import format_duration
from models.jobs.progress import read_progress
from models.jobs.scheduler import Executor, JobResult, Queue, Resources, Task, timed_out

SHARES_BETWEEN_REPORTS = (0.05, 0.1)
"""Shares of all steps between the first progress report and the first estimate, and between that and the final one."""
MIN_SECONDS = 10.0
"""A running job has no estimate before this many seconds."""
HANGS_AFTER = 4.0
"""A job counts as hanging after this multiple of the pace of its stage."""
MIN_HANGING = 60.0
"""No job counts as hanging before this many seconds, since the first job of a worker imports libraries."""
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
        ended: group -> seconds of its tasks that ended.
        expected: group -> seconds to assume until a task of the group has ended.
        reports: running task -> its finished steps and seconds at the first progress report, the first estimate
            and the final one.
    """

    queue: Queue
    executor: Executor
    networks: Set[str]
    ended: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    expected: dict[str, float] = field(default_factory=dict)
    reports: dict[Task, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, group: str, result: JobResult) -> None:
        """Add the time of a task that ended without an error."""
        if result.status == "ok":
            self.ended[group].append(result.seconds)

    def seconds_per_task(self, group: str) -> float | None:
        """Return the seconds that a task of a group takes; None if they are not measured yet."""
        if self.ended[group]:
            return sum(self.ended[group]) / len(self.ended[group])
        if group in self.expected:
            return self.expected[group]
        for task in self.queue.running:
            if task.group == group and group in self.networks and task.folder is not None:
                progress = read_progress(task.folder)
                if progress["done"] > 0:
                    return self._extrapolated(task, progress)
        return None

    def is_final(self, group: str) -> bool:
        """Return whether the pace of a group is final."""
        running = [task for task in self.queue.running if task.group == group]
        return bool(self.ended[group]) or any(len(self.reports.get(task, ())) == 3 for task in running)

    def _extrapolated(self, task: Task, progress: dict[str, float]) -> float | None:
        """Return the extrapolated seconds of a running job; None until it has done enough steps.

        Imports and inputs come before the first report, and the first steps are slower than others. So the
        first estimate uses the steps since the first report, and the final one those since the first estimate.
        """
        done = progress["done"]
        seconds = progress["seconds"]
        reports = self.reports.setdefault(task, [(done, seconds)])
        if len(reports) <= len(SHARES_BETWEEN_REPORTS) and seconds >= MIN_SECONDS:
            n_steps = SHARES_BETWEEN_REPORTS[len(reports) - 1] * progress["total"]
            if done - reports[-1][0] >= n_steps:
                reports.append((done, seconds))
        if len(reports) == 1:
            return None
        first_done, first_seconds = reports[len(reports) - 2]
        return seconds + (progress["total"] - done) * (seconds - first_seconds) / (done - first_done)

    def elapsed(self, task: Task) -> float:
        """Return the seconds since a task started; 0 if it waits."""
        now = time.monotonic()
        return now - self.queue.running.get(task, now)

    def remaining(self, tasks: Iterable[Task]) -> TimedResources:
        """Return remaining seconds and resources of the tasks with a measured pace."""
        jobs = []
        for task in tasks:
            seconds = self.seconds_per_task(task.group)
            if seconds is not None:
                jobs.append((max(0.0, seconds - self.elapsed(task)), task.resources))
        return jobs

    def hanging(self) -> dict[Task, JobResult]:
        """Return a failed result for each running job that takes much longer than other jobs of its stage."""
        hanging = {}
        for task in self.queue.running:
            pace = self.seconds_per_task(task.group)
            if task.folder is not None and pace is not None:
                limit = max(MIN_HANGING, HANGS_AFTER * pace)
                if self.elapsed(task) > limit:
                    hanging[task] = timed_out(
                        task, limit, f"other jobs of its stage took {format_duration(pace)}"
                    )
        return hanging

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
        pace: seconds of a job.
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
            pace = self.paces.seconds_per_task(self.stages[0])
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
