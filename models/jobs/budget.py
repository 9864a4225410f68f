"""What may start within `--budget`: only what is known to finish in it, and what shows how long the rest takes.

The jobs of a seed of a stage are of use together, and so are the parts of a cache: they are a group. The first of the
items that are alike is started while any time is left, and its seconds predict the others.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable, Iterator

from competition.durations import in_words
from models.jobs.workers import Item, Workers


def seconds_until_done(free_in: Iterable[float], n_items: int, each: float) -> float:
    """Seconds until `n_items` of `each` seconds are done by workers that are free in so many seconds."""
    workers = list(free_in)
    heapq.heapify(workers)
    return max((heapq.heapreplace(workers, workers[0] + each) + each for _ in range(n_items)), default=0.0)


def expected(item: Item, workers: Workers) -> float | None:
    """Seconds that an item is expected to take, the mean of those like it; None before one of these has finished."""
    known = workers.seconds.get(item.alike)
    return sum(known) / len(known) if known else None


def choose(ready: Iterator[Item], waiting: list[Item], workers: Workers) -> Item | None:
    """The first item whose group is known to end by the deadline, or that measures how long others take."""
    first_of_group: dict[str, Item] = {}
    for item in ready:
        first_of_group.setdefault(item.group, item)
    measuring = {item.alike for item in workers.running}
    unknown = [item for item in first_of_group.values() if expected(item, workers) is None]
    for item in first_of_group.values():
        if (item.alike not in measuring) if item in unknown else _fits(item, waiting, workers):
            return item
    # Nothing more is known to fit. A worker that would stand idle goes ahead with what is being measured: five folds
    # of one stage on five workers take the time of one fold.
    return unknown[0] if unknown else None


def _fits(item: Item, waiting: list[Item], workers: Workers) -> bool:
    """Whether all that waits of an item's group ends in time beside what is running on the same cores or GPUs."""
    now = time.monotonic()
    running = {o: start for o, start in workers.running.items() if workers.on_gpu(o) == workers.on_gpu(item)}
    # A worker that measures may be free at any time. Taken as free now: a group that fits after all is not lost.
    free_in = [max(0.0, start + (expected(other, workers) or 0.0) - now) for other, start in running.items()]
    free_in += [0.0] * (workers.slots(item) - len(free_in))
    n_items = sum(other.group == item.group for other in waiting)
    return now + seconds_until_done(free_in, n_items, expected(item, workers) or 0.0) <= workers.deadline


def why_unfinished(waiting: list[Item], ended: list[Item], group: str, workers: Workers) -> str:
    """Why items of a group did not finish, in words; of all that were not started and that were ended."""
    n_ended, left = sum(item.group == group for item in ended), [item for item in waiting if item.group == group]
    said = [f"{n_ended} cut off when it ended"] if n_ended else []
    if left:
        each, lacking = expected(left[0], workers), left[0].after & {item.group for item in (*waiting, *ended)}
        because = f"at about {in_words(each)} each they did not fit" if each else "no time was left"
        said.append(f"{len(left)} not started: {f'{min(lacking)} did not fit' if lacking else because}")
    return ", ".join(said)
