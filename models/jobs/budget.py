"""What may start within `--budget`: only what is known to finish in it, and what shows how long the rest takes.

The jobs of a seed of a stage are of use together, and so are the parts of a cache: they are a group. The first of the
items that are alike is started while any time is left, and its seconds predict the others.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable, Iterator

from competition.durations import in_words
from models.jobs.workers import Item, Order, Workers


def seconds_until_done(free_in: Iterable[float], n_items: int, each: float) -> float:
    """Seconds until `n_items` of `each` seconds are done by workers that are free in so many seconds."""
    workers = list(free_in)
    heapq.heapify(workers)
    return max((heapq.heapreplace(workers, workers[0] + each) + each for _ in range(n_items)), default=0.0)


class Budget(Order):
    """The order of items within a budget: as they stand in the list, where their group is known to fit.

    Args:
        deadline: time.monotonic() at which what runs is ended.
        seconds: that finished items took, earlier: what they are alike in -> the seconds of each.
    """

    def __init__(self, deadline: float, seconds: dict[str, list[float]]) -> None:
        self.deadline, self.seconds = deadline, {alike: list(known) for alike, known in seconds.items()}

    def each(self, item: Item) -> float | None:
        """Seconds that an item is expected to take, None before one like it has finished."""
        known = self.seconds.get(item.alike)
        return sum(known) / len(known) if known else None

    def choose(self, ready: Iterator[Item], waiting: list[Item], workers: Workers) -> Item | None:
        """As `Order`."""
        first_of_group: dict[str, Item] = {}
        for item in ready:
            first_of_group.setdefault(item.group, item)
        measuring = {item.alike for item in workers.running}
        for item in first_of_group.values():
            if (item.alike not in measuring) if self.each(item) is None else self._fits(item, waiting, workers):
                return item
        # Nothing more is known to fit. A worker that would stand idle goes ahead with what is being measured: five
        # folds of one stage on five workers take the time of one fold.
        return next((item for item in first_of_group.values() if self.each(item) is None), None)

    def _fits(self, item: Item, waiting: list[Item], workers: Workers) -> bool:
        """Whether all that waits of an item's group ends in time beside what is running."""
        now, each, on_gpu = time.monotonic(), self.each(item) or 0.0, workers.on_gpu(item)
        # A worker that measures may be free at any time. Taken as free now: a group that fits after all is not lost.
        running = [other for other in workers.running if workers.on_gpu(other) == on_gpu]
        free_in = [max(0.0, workers.running[other] + (self.each(other) or 0.0) - now) for other in running]
        free_in += [0.0] * (workers.slots(item) - len(free_in))
        n_items = sum(other.group == item.group for other in waiting)
        return now + seconds_until_done(free_in, n_items, each) <= self.deadline

    def finished(self, item: Item, seconds: float) -> None:
        """As `Order`."""
        self.seconds.setdefault(item.alike, []).append(seconds)

    def why(self, waiting: list[Item], ended: list[Item], group: str) -> str:
        """Why items of a group did not finish, in words; of all that were not started and that were ended."""
        n_ended, left = sum(item.group == group for item in ended), [item for item in waiting if item.group == group]
        said = [f"{n_ended} cut off when it ended"] if n_ended else []
        if left:
            each, unfinished = self.each(left[0]), {item.group for item in (*waiting, *ended)}
            if lacking := sorted(left[0].after & unfinished):
                because = f"{lacking[0]} did not fit"
            else:
                because = f"at about {in_words(each)} each they did not fit" if each else "no time was left"
            said.append(f"{len(left)} not started: {because}")
        return ", ".join(said)
