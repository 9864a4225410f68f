"""What may start within `--budget`: only what is known to finish in it, and what shows how long the rest takes.

Tasks that are of use together are a group: the jobs of a seed of a stage, the stage's predictions for a new test table,
the shards of a cache. They take about as long as each other; those of several groups do where these share a list of
seconds (seeds of a stage). The first is started while any time is left, and its seconds predict the others.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from competition.durations import in_words
from models.jobs.tasks import Order, Task


@dataclass
class Group:
    """Tasks of which all are wanted or none.

    name: the `group` of its tasks.
    needs: names of the groups that must be done before one of these starts.
    seconds: that each finished task took, in this run or before; one list for groups whose tasks are alike.
    waiting: how many have not started.
    started: when each running one did, by any key.
    blocked: whether none of the waiting can start yet.
    label: its name for people, where that is another.
    """

    name: str
    needs: frozenset[str] = frozenset()
    seconds: list[float] = field(default_factory=list)
    waiting: int = 0
    started: dict[int, float] = field(default_factory=dict)
    blocked: bool = False
    label: str = ""

    @property
    def each(self) -> float | None:
        """Seconds that one task is expected to take, None before one has finished."""
        return sum(self.seconds) / len(self.seconds) if self.seconds else None

    @property
    def done(self) -> bool:
        """Whether every task has finished."""
        return not self.waiting and not self.started


def seconds_until_done(free_in: Iterable[float], n_tasks: int, each: float) -> float:
    """Seconds until `n_tasks` of `each` seconds are done by workers that are free in so many seconds."""
    workers = list(free_in)
    heapq.heapify(workers)
    ends = [heapq.heapreplace(workers, workers[0] + each) + each for _ in range(n_tasks)]
    return max(ends, default=0.0)


def group_to_start(groups: list[Group], n_workers: int, now: float, deadline: float) -> Group | None:
    """The group whose next task a free worker takes, None to leave the worker free.

    Args:
        groups: in the order in which they are wanted.
        n_workers: at least one of them is free.
        now, deadline: seconds of one clock.
    """
    if now >= deadline:
        return None
    done = {group.name for group in groups if group.done}
    ready = [group for group in groups if group.waiting and not group.blocked and group.needs <= done]
    # A worker that measures may be free at any time. Taken as free now: a group that fits after all is not lost.
    free_in = [max(0.0, start + (g.each or 0.0) - now) for g in groups for start in g.started.values()]
    free_in += [0.0] * (n_workers - len(free_in))
    measuring = {id(group.seconds) for group in groups if group.started}
    for group in ready:
        if group.each is None:
            if id(group.seconds) not in measuring:
                return group
        elif now + seconds_until_done(free_in, group.waiting, group.each) <= deadline:
            return group
    # Nothing more is known to fit. A worker that would stand idle goes ahead with what is being measured: five folds
    # of one stage on five workers take the time of one fold.
    return next((group for group in ready if group.each is None), None)


def why_unfinished(group: Group, needed: list[Group]) -> str:
    """Why tasks of a group were ended or not started, in words; `needed` are the groups of its needs."""
    said = [f"{len(group.started)} cut off when it ended"] if group.started else []
    if group.waiting:
        lacking = [part for part in needed if not part.done]
        if lacking:
            because = f"{f'its {lacking[0].label}' if lacking[0].label else lacking[0].name} did not fit"
        elif group.each is None:
            because = "no time was left"
        else:
            because = f"at about {in_words(group.each)} each they did not fit"
        said.append(f"{group.waiting} not started: {because}")
    return ", ".join(said)


class Budget(Order):
    """The order of tasks within a budget.

    Args:
        groups: in the order in which they are wanted; their tasks are counted here.
        tasks: all that will be run.
        deadline: time.monotonic() at which what runs is ended.
    """

    def __init__(self, groups: list[Group], tasks: list[Task], n_workers: int, deadline: float) -> None:
        self.groups, self.n_workers, self.deadline = {group.name: group for group in groups}, n_workers, deadline
        for name, n_tasks in Counter(task.group for task in tasks).items():
            self.groups[name].waiting = n_tasks

    def choose(self, waiting: list[Task]) -> int | None:
        """As `Order`."""
        now = time.monotonic()
        startable = [i for i, task in enumerate(waiting) if task.can_start()]
        for part in self.groups.values():
            part.blocked = part.name not in {waiting[i].group for i in startable}
        group = group_to_start(list(self.groups.values()), self.n_workers, now, self.deadline)
        if group is None:
            return None
        place = next(i for i in startable if waiting[i].group == group.name)
        group.waiting -= 1
        group.started[id(waiting[place])] = now
        return place

    def finished(self, task: Task, seconds: float) -> None:
        """As `Order`."""
        group = self.groups[task.group]
        del group.started[id(task)]
        group.seconds.append(seconds)

    def put_back(self, task: Task) -> None:
        """As `Order`."""
        group = self.groups[task.group]
        del group.started[id(task)]
        group.waiting += 1

    def finished_elsewhere(self, task: Task) -> None:
        """As `Order`."""
        self.groups[task.group].waiting -= 1

    def why(self, name: str) -> str:
        """Why tasks of a group did not finish, in words."""
        group = self.groups[name]
        return why_unfinished(group, [self.groups[needed] for needed in sorted(group.needs)])
