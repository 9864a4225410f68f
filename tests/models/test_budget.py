"""What may start within a budget, in numbers worked out by hand, and that training keeps to it."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest

from competition.config import load_competition
from competition.paths import Paths
from competition.prepare import run as prepare
from folds.make import load_folds_config
from folds.make import run as make_folds
from models.config import LightgbmStage, load_stages
from models.jobs.budget import Group, group_to_start, seconds_until_done, why_unfinished
from models.jobs.executor import Executor
from models.jobs.plan import plan
from models.jobs.tasks import Order, Task
from models.jobs.train import train
from tests.conftest import mixed_tables, write_competition


def group(
    name: str, waiting: int, each: float | None = None, started: tuple[float, ...] = (), needs: str = ""
) -> Group:
    return Group(name, frozenset(needs.split()), [each] if each else [], waiting, dict(enumerate(started)))


def started(groups: list[Group], n_workers: int, now: float, deadline: float) -> str | None:
    found = group_to_start(groups, n_workers, now, deadline)
    return found and found.name


@pytest.mark.parametrize(
    ("free_in", "n_tasks", "each", "expected"),
    [
        ([0, 0], 4, 10, 20),  # two rounds
        ([0, 0], 5, 10, 30),  # three, the last with one task
        ([0, 12], 2, 10, 20),  # the first worker does both: the second would end at 22
        ([0, 8], 2, 10, 18),
        ([3], 0, 10, 0),
    ],
)
def test_workers_take_tasks_as_they_become_free(free_in: list, n_tasks: int, each: float, expected: float) -> None:
    assert seconds_until_done(free_in, n_tasks, each) == expected


def test_the_first_of_a_stage_starts_while_any_time_is_left() -> None:
    assert started([group("a", 5)], 1, now=99.9, deadline=100) == "a"
    assert started([group("a", 5)], 1, now=100, deadline=100) is None


def test_the_rest_of_a_stage_starts_only_if_all_of_it_ends_in_time() -> None:
    assert started([group("a", 4, each=10)], 1, now=60, deadline=100) == "a"
    assert started([group("a", 4, each=10)], 1, now=60.1, deadline=100) is None
    assert started([group("a", 4, each=10)], 2, now=80, deadline=100) == "a"


def test_the_mean_of_the_finished_ones_predicts_the_others() -> None:
    uneven = Group("a", seconds=[5.0, 15.0], waiting=4)
    assert started([uneven], 1, now=60, deadline=100) == "a"
    assert started([uneven], 1, now=61, deadline=100) is None


def test_a_running_job_keeps_its_worker_as_long_as_it_is_expected_to() -> None:
    """One of two workers has run for 4 of 10 s: three more end after 6 + 10 s and 10 + 10 s, so after 20 s."""
    stage = group("a", 3, each=10, started=(96.0,))
    assert started([stage], 2, now=100, deadline=120) == "a"
    assert started([stage], 2, now=100, deadline=119) is None


def test_stages_start_in_their_order_and_one_that_does_not_fit_leaves_its_time_to_the_next() -> None:
    assert started([group("a", 4, each=10), group("b", 5)], 1, now=0, deadline=100) == "a"
    assert started([group("a", 4, each=30), group("b", 5)], 1, now=0, deadline=100) == "b"
    assert started([group("a", 4, each=30), group("b", 4, each=9)], 1, now=0, deadline=100) == "b"


def test_workers_that_are_free_while_a_stage_is_measured_take_later_work_first() -> None:
    measured = group("a", 4, started=(0.0,))
    assert started([measured, group("b", 3, each=5), group("c", 5)], 2, now=1, deadline=100) == "b"
    assert started([measured, group("c", 5)], 2, now=1, deadline=100) == "c"
    assert started([measured, group("b", 3, each=500)], 2, now=1, deadline=100) == "a"


def test_a_seed_that_fits_is_not_lost_with_one_that_does_not_and_all_seeds_are_measured_by_one_job() -> None:
    first, second = group("a 0", 4, started=(0.0,)), group("a 1", 5)
    second.seconds = first.seconds
    assert started([first, second, group("b", 5)], 2, now=1, deadline=100) == "b"
    assert started([first, second], 2, now=1, deadline=100) == "a 0"
    first.seconds.append(10)
    assert started([first, second], 1, now=0, deadline=100) == "a 0"
    first.waiting, first.started = 0, {}
    assert started([first, second], 1, now=0, deadline=50) == "a 1"
    assert started([first, second, group("b", 5)], 1, now=1, deadline=50) == "b"


def test_a_stage_waits_for_its_molecules() -> None:
    stage = group("a", 5, needs="conformers")
    assert started([group("conformers", 1), stage], 2, now=0, deadline=9) == "conformers"
    assert started([group("conformers", 0, each=2, started=(0.0,)), stage], 2, now=0, deadline=9) is None
    assert started([group("conformers", 0, each=2), stage], 2, now=0, deadline=9) == "a"


def test_what_was_cut_is_said_with_its_reason() -> None:
    assert why_unfinished(group("a", 3, each=90), []) == "3 not started: at about 1.5 min each they did not fit"
    assert why_unfinished(group("a", 5), []) == "5 not started: no time was left"
    both = group("a", 2, each=5, started=(0.0, 1.0))
    assert why_unfinished(both, []) == "2 cut off when it ended, 2 not started: at about 5 s each they did not fit"
    cache = Group("conformers-1", label="conformers", seconds=[3.0], waiting=7)
    assert why_unfinished(group("a", 5, needs="conformers-1"), [cache]) == "5 not started: its conformers did not fit"


class EndsAt(Order):
    """All tasks, until a moment."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline


def test_running_tasks_are_ended_at_the_deadline() -> None:
    before = time.monotonic()
    with Executor(2, 3) as executor:
        executor.run([Task(f"{i}", time.sleep, (60,)) for i in range(3)], "tasks", EndsAt(before + 1.5))
    assert 1.5 <= time.monotonic() - before < 4


class SlowTrees(LightgbmStage):
    """Trees whose settings take a worker eight seconds to write down; their jobs are those of other trees."""

    def model_dump(self, **options: Any) -> dict[str, Any]:
        if multiprocessing.parent_process():
            time.sleep(8)
        return super().model_dump(**options)


def test_a_stage_that_does_not_fit_is_cut_and_a_later_run_goes_on_from_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trees = {"kind": "lightgbm", "n_bits": 64, "max_trees": 5}
    path = write_competition(tmp_path, *mixed_tables(), stages={"quick": trees, "slow": {**trees, "num_leaves": 4}})
    config, paths, stages = load_competition(str(path)), Paths("mixed"), load_stages(str(path))
    prepare(config, paths, path)
    make_folds(config, load_folds_config(str(path)), paths)
    todo = plan(config, stages, paths)
    before = time.monotonic()
    train(config, {**stages, "slow": SlowTrees(**dict(stages["slow"]))}, paths, todo, 1, budget=16)
    assert time.monotonic() - before < 16 * 1.05 + 2
    assert all(job.finished for job in todo.of("quick"))
    n_done = sum(job.finished for job in todo.of("slow"))
    assert n_done < 3
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"stage slow  seed 0  {n_done} of 3 jobs finished within the budget of 16 s; ")

    train(config, stages, paths, todo, 1)
    said = capsys.readouterr().out
    assert "stage quick  3 of 3 jobs are finished" in said
    assert all(job.finished for job in todo.jobs)
