"""Estimates how long the jobs of a stage take and when all jobs will have ended.

The pace of a stage is the time of its job with the most training rows, refits excepted: the mean of such jobs
that have ended, if possible without the first, or an extrapolation from the progress of a running network.
The progress of other stages counts targets, which differ in rows, so it is not extrapolated. Other jobs take
a time in proportion to their rows.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from statistics import fmean

from models.jobs.job import Job
from models.jobs.progress import read_progress
from models.jobs.scheduler import JobResult, Resources, Task

BEFORE_ESTIMATE = ((0.05, 20.0), (0.1, 40.0))
"""Share of all steps, or seconds if these pass first, between the first progress report and the first
estimate, and between that and the final one."""
MIN_SECONDS = 10.0
"""A running job has no estimate before this many seconds."""
MIN_ROW_SHARE = 0.9
"""Share of the rows of the largest fold from which a job is as large as it: folds differ by some rows."""
SAFETY_FACTOR = 1.1
"""Expected seconds of a job that has not started, as a multiple of the pace of its stage."""
TimedResources = Sequence[tuple[float, Resources]]
"""(seconds, resources) of each job."""


@dataclass
class Paces:
    """Seconds that tasks take, by group: the jobs of a stage, or the parts of a cache.

    Args:
        running: running task -> time.monotonic() of its start; the queue changes it.
        networks: groups that are neural stages.
        max_rows: group -> rows of its largest fold; 1 for parts of a cache.

    Attributes:
        ended: group -> seconds that its ended tasks would have taken with `max_rows`, of the large ones
            only.
        expected: group -> pace to assume until a large task of the group has ended.
        reports: running task -> its finished steps and seconds at the first progress report, the first
            estimate and the final one.
        fixed: group -> seconds of a job before its first step and of its predictions, which do not shrink with its
            epochs.
    """

    running: Mapping[Task, float]
    networks: Set[str]
    max_rows: Mapping[str, int]
    ended: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    expected: dict[str, float] = field(default_factory=dict)
    reports: dict[Task, list[tuple[float, float]]] = field(default_factory=dict)
    fixed: dict[str, float] = field(default_factory=dict)

    def add(self, group: str, result: JobResult, n_rows: int = 1) -> None:
        """Add the time of a task that ended without an error, if it is among the largest of its group."""
        share = self.share_of_rows(group, n_rows)
        if result.status == "ok" and share >= MIN_ROW_SHARE:
            self.ended[group].append(result.seconds / share)

    def share_of_rows(self, group: str, n_rows: int) -> float:
        """Return the rows of a task as a share of the rows of the largest fold of its group."""
        return n_rows / self.max_rows.get(group, 1)

    def pace(self, group: str) -> float | None:
        """Return the seconds of the largest task of a group; None if they are not measured yet.

        A task that has run for longer than expected raises it, except for networks, which report their
        progress.
        """
        running = {
            task: self.share_of_rows(group, task.n_rows)
            for task in self.running
            if task.group == group and task.n_rows
        }
        if self.ended[group]:
            pace = fmean(self.ended[group])
        elif group in self.expected:
            pace = self.expected[group]
        else:
            for task, share in running.items():
                estimate = self._estimate(task) if share >= MIN_ROW_SHARE else None
                if estimate is not None:
                    return estimate[1] / share
            return None
        if group in self.networks:
            return pace
        return max([pace, *(self.elapsed(task) / share for task, share in running.items())])

    def is_final(self, group: str) -> bool:
        """Return whether the pace of a group is final."""
        reports = [self.reports.get(task, ()) for task in self.running if task.group == group]
        return bool(self.ended[group]) or any(len(of_task) > len(BEFORE_ESTIMATE) for of_task in reports)

    def _estimate(self, task: Task) -> tuple[float, float] | None:
        """Return the seconds until the predictions of a running network, and those of all its steps, end.

        None before enough steps. Inputs come before the first report, and the first steps are slower than
        others. So the first estimate uses the steps since the first report, and the final estimate uses the
        steps since the first estimate. Steps before the checkpoint of an earlier attempt count with the
        speed of this attempt.
        """
        if task.folder is None or task.group not in self.networks:
            return None
        progress = read_progress(task.folder)
        done = progress["done"]
        seconds = progress["seconds"]
        if done == 0:
            return None
        # Fewer steps than reported before: that report was of an attempt that was killed.
        if task not in self.reports or done < self.reports[task][-1][0]:
            self.reports[task] = [(done, seconds)]
        reports = self.reports[task]
        resumed_steps = reports[0][0] if progress["before"] else 0.0
        seconds_here = seconds - progress["before"]
        if len(reports) <= len(BEFORE_ESTIMATE) and seconds_here >= MIN_SECONDS:
            share, seconds_between = BEFORE_ESTIMATE[len(reports) - 1]
            last_done, last_seconds = reports[-1]
            has_steps = done - last_done >= share * progress["total"]
            if has_steps or (done > last_done and seconds - last_seconds >= seconds_between):
                reports.append((done, seconds))
        if len(reports) == 1:
            return None
        first_done, first_seconds = reports[-2]
        seconds_per_step = (seconds - first_seconds) / (done - first_done)
        seconds_to_predict = progress["to_predict"] * seconds_per_step
        seconds_left = (progress["total"] - done) * seconds_per_step + seconds_to_predict
        if resumed_steps == 0:
            steps, seconds_until = reports[0]
            self.fixed[task.group] = max(0.0, seconds_until - steps * seconds_per_step) + seconds_to_predict
        seconds_of_all = seconds_here + seconds_left + resumed_steps * seconds_per_step
        if done == progress["total"]:  # while it predicts, there are no reports
            seconds_left = max(0.0, seconds_left - (self.elapsed(task) - seconds_here))
        return seconds_left, seconds_of_all

    def elapsed(self, task: Task) -> float:
        """Return the seconds since a task started, without the imports of its worker; 0 if it waits."""
        now = time.monotonic()
        seconds = now - self.running.get(task, now)
        if task.folder is None:
            return seconds
        return min(seconds, max(0.0, time.time() - read_progress(task.folder)["started"]))

    def seconds_left(self, task: Task, pace: float) -> float:
        """Return the seconds until a task ends, by the pace of its group."""
        estimate = self._estimate(task) if task in self.running else None
        if estimate is not None:
            return estimate[0]
        seconds = pace * self.share_of_rows(task.group, task.n_rows)
        return max(0.0, seconds - self.elapsed(task))

    def scaled(self, group: str, scale: float = 1.0) -> float:
        """Return the pace of a stage with `scale` times its epochs.

        It is 0 for a stage without a pace, since all of its jobs are finished.
        """
        pace = self.pace(group) or 0.0
        fixed = min(pace, self.fixed.get(group, 0.0))
        return fixed + (pace - fixed) * scale

    def seconds_of_jobs(self, jobs: Iterable[Job], pace: float) -> list[float]:
        """Return the seconds that jobs of a stage will take, with a margin; 0 if only test rows are predicted."""
        return [
            0.0 if job.finished else SAFETY_FACTOR * pace * self.share_of_rows(job.stage, job.n_rows)
            for job in jobs
        ]

    def remaining(self, tasks: Iterable[Task]) -> TimedResources:
        """Return remaining seconds and resources of the tasks with a measured pace."""
        paces = [(task, self.pace(task.group)) for task in tasks]
        return [(self.seconds_left(task, pace), task.resources) for task, pace in paces if pace is not None]


def makespan(jobs: TimedResources, capacity: Resources) -> float:
    """Return the seconds until the last job ends, if each starts in order as soon as its cores are free.

    A job on a GPU starts on the one that is free first, as if it did not wait for cores, and as if jobs with
    shares of a GPU filled it without gaps.
    """
    free = [0.0] * max(1, capacity.cpus)  # seconds until each core is free
    cards = [0.0] * int(capacity.gpus)  # seconds until each GPU is free
    longest_on_gpu = 0.0
    for seconds, resources in jobs:
        if cards and resources.gpus > 0:
            cards.sort()
            cards[0] += seconds * resources.gpus
            longest_on_gpu = max(longest_on_gpu, seconds)
            continue
        free.sort()
        n_cores = min(resources.cpus, len(free))
        free[:n_cores] = [free[n_cores - 1] + seconds] * n_cores
    return max(*free, *cards, longest_on_gpu)
