"""What may start within a budget, in numbers worked out by hand, and that training keeps to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from competition.config import load_competition
from competition.paths import Paths
from competition.prepare import run as prepare
from folds.make import load_folds_config
from folds.make import run as make_folds
from models.config import load_stages
from models.jobs import budget as budget_module
from models.jobs.budget import choose, seconds_until_done, why_unfinished
from models.jobs.local_workers import LocalWorkers
from models.jobs.plan import plan
from models.jobs.train import train
from models.jobs.workers import Item
from tests.models.jobs.common import TREES, HereWorkers, Listing, counted, planned, trained

Started = Callable[..., str | None]


def items(group: str, n: int, alike: str = "", **settings: object) -> list[Item]:
    return [Item(print, (), group=group, alike=alike or group, **settings) for _ in range(n)]  # type: ignore[arg-type]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """Name of the group that may start at a moment, by what runs since when, and what items took."""

    def started(
        waiting: list[Item], n_workers: int, now: float, deadline: float, gpus: int = 0,
        running: dict[Item, float] | None = None, **seconds: list[float],
    ) -> str | None:  # fmt: skip
        monkeypatch.setattr(budget_module.time, "monotonic", lambda: now)
        workers = HereWorkers()
        workers.cores, workers.gpus, workers.running = n_workers, gpus, running or {}
        workers.seconds, workers.deadline = seconds, deadline
        item = choose(iter(waiting), waiting, workers)
        return item and item.group

    return started


@pytest.mark.parametrize(
    ("free_in", "n_items", "each", "expected"),
    [
        ([0, 0], 4, 10, 20),  # two rounds
        ([0, 0], 5, 10, 30),  # three, the last with one item
        ([0, 12], 2, 10, 20),  # the first worker does both: the second would end at 22
        ([0, 8], 2, 10, 18),
        ([3], 0, 10, 0),
    ],
)
def test_workers_take_items_as_they_become_free(free_in: list, n_items: int, each: float, expected: float) -> None:
    assert seconds_until_done(free_in, n_items, each) == expected


def test_the_rest_of_a_stage_starts_only_if_all_of_it_ends_in_time(started: Started) -> None:
    four = items("a", 4)
    assert started(four, 1, now=99.9, deadline=100) == "a"  # the first shows how long the others take
    assert started(four, 1, now=60, deadline=100, a=[10]) == "a"
    assert started(four, 1, now=60.1, deadline=100, a=[10]) is None
    assert started(four, 2, now=80, deadline=100, a=[10]) == "a"
    assert started(four, 1, now=60, deadline=100, a=[5, 15]) == "a"  # their mean predicts the others
    assert started(four, 1, now=61, deadline=100, a=[5, 15]) is None


def test_a_running_job_keeps_its_worker_as_long_as_it_is_expected_to(started: Started) -> None:
    """One of two workers has run for 4 of 10 s: three more end after 6 + 10 s and 10 + 10 s, so after 20 s."""
    three, (one,) = items("a", 3), items("a", 1)
    assert started(three, 2, now=100, deadline=120, running={one: 96.0}, a=[10]) == "a"
    assert started(three, 2, now=100, deadline=119, running={one: 96.0}, a=[10]) is None


def test_a_gpu_is_reckoned_apart_from_the_cores(started: Started) -> None:
    """Three networks one after another on the one GPU take 30 s, whatever the cores do; on cores alone, 10 s."""
    networks, (trees,) = items("a", 3, gpu=True), items("b", 1)
    assert started(networks, 16, now=0, deadline=30, gpus=1, running={trees: 0.0}, a=[10], b=[999]) == "a"
    assert started(networks, 16, now=0, deadline=29, gpus=1, running={trees: 0.0}, a=[10], b=[999]) is None
    assert started(networks, 16, now=0, deadline=10, running={trees: 0.0}, a=[10], b=[999]) == "a"


def test_stages_start_in_their_order_and_one_that_does_not_fit_leaves_its_time_to_the_next(started: Started) -> None:
    both = [*items("a", 4), *items("b", 4)]
    assert started(both, 1, now=0, deadline=100, a=[10]) == "a"
    assert started(both, 1, now=0, deadline=100, a=[30]) == "b"
    assert started(both, 1, now=0, deadline=100, a=[30], b=[9]) == "b"
    assert started(both, 1, now=0, deadline=100, a=[30], b=[30]) is None


def test_workers_that_are_free_while_a_stage_is_measured_take_later_work_first(started: Started) -> None:
    measured, running = items("a", 3), dict.fromkeys(items("a", 1), 0.0)
    a, b, c = measured, items("b", 3), items("c", 5)
    assert started([*a, *b, *c], 2, now=1, deadline=100, running=running, b=[5]) == "b"
    assert started([*a, *c], 2, now=1, deadline=100, running=running) == "c"
    assert started([*a, *b], 2, now=1, deadline=100, running=running, b=[500]) == "a"


def test_a_seed_that_fits_is_not_lost_with_one_that_does_not_and_all_seeds_are_measured_by_one_job(
    started: Started,
) -> None:
    first, second, b = items("a 0", 4, "a"), items("a 1", 5, "a"), items("b", 5)
    running = dict.fromkeys(items("a 0", 1, "a"), 0.0)
    assert started([*first, *second, *b], 2, now=1, deadline=100, running=running) == "b"
    assert started([*first, *second], 2, now=1, deadline=100, running=running) == "a 0"
    assert started([*first, *second], 1, now=0, deadline=100, a=[10]) == "a 0"
    assert started(second, 1, now=0, deadline=50, a=[10]) == "a 1"
    assert started([*second, *b], 1, now=1, deadline=50, a=[10]) == "b"


def test_what_was_cut_is_said_with_its_reason() -> None:
    def why(group: str, waiting: list[Item], ended: list[Item] | None = None) -> str:
        workers = HereWorkers()
        workers.seconds = {"a": [90.0]}
        return why_unfinished(waiting, ended or [], group, workers)

    assert why("a", items("a", 3)) == "3 not started: at about 1.5 min each they did not fit"
    assert why("b", items("b", 5), items("b", 2)) == "2 cut off when it ended, 5 not started: no time was left"
    waiting = items("b", 5, after=frozenset(["the conformers"]))
    assert why("b", [*waiting, *items("the conformers", 7)]) == "5 not started: the conformers did not fit"
    assert why("b", items("a", 3)) == ""


def test_running_items_are_ended_at_the_deadline() -> None:
    before, three = time.monotonic(), [Item(time.sleep, (60,)) for _ in range(3)]
    with LocalWorkers(2) as workers:
        workers.deadline = before + 1.5
        waiting, cut = workers.run(three, "items")
    assert (waiting, cut) == (three[2:], three[:2])
    assert 1.5 <= time.monotonic() - before < 10


def test_a_stage_that_does_not_fit_is_cut_and_a_later_run_goes_on_from_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = counted(tmp_path, seconds=6.0, seeds=1)
    config, paths = load_competition(str(path)), Paths("mixed")
    prepare(config, paths, path)
    make_folds(config, load_folds_config(str(path)), paths)
    todo = plan(config, load_stages(str(path)), paths)
    before = time.monotonic()
    train(config, paths, todo, 1, budget=12)
    assert time.monotonic() - before < 12 * 1.05 + 5
    n_done = sum(job.finished for job in todo.jobs)
    assert n_done < 3
    last = capsys.readouterr().out.splitlines()[-2:]
    said = [f"stage a  seed 0  {n} of 3 jobs finished within the budget of 12 s; " for n in (n_done, n_done - 1)]
    assert last[0].startswith(tuple(said))  # one less: a job that was published while its worker was ended
    assert last[1].startswith("stage b  seed 0  0 of 3 jobs finished within the budget of 12 s; ")
    assert sum(trained(tmp_path).values()) <= n_done + 1  # none that was known not to fit


def test_within_a_budget_molecules_are_looked_at_before_their_stage_and_count_as_a_part_of_it(tmp_path: Path) -> None:
    """And a stage on other inputs, later in the YAML, does not wait for them."""
    flat = {"kind": "unimol", "epochs": 1, "unembeddable": "error"}
    config, paths, todo = planned(tmp_path, stages={"conformers": flat, "trees": {**TREES, "features": ["maccs"]}})
    workers = Listing()
    train(config, paths, todo, 1, budget=1000, make_workers=lambda n: workers)
    called = [item.function.__name__ for item in workers.items["jobs"]]
    assert called == ["fill", "look", *["run_job"] * 3, "fill", *["run_job"] * 3]
    filled, looked, *jobs = workers.items["jobs"]
    assert looked.after == {filled.group}
    assert [{filled.group, looked.group} <= item.after for item in jobs] == [True] * 3 + [False] * 4
