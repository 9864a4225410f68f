"""How long jobs take, and when all end."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.files import write_json
from models.jobs import pace
from models.jobs.pace import Paces, describe_end, makespan
from models.jobs.progress import PROGRESS
from models.jobs.scheduler import JobResult, Resources, Task

ONE = Resources()


def test_each_job_starts_when_there_is_room_for_it() -> None:
    assert makespan([(10, ONE)] * 5, Resources(2)) == 30
    assert makespan([(10, ONE)] * 4, Resources(4)) == 10
    assert makespan([(5, ONE), (10, Resources(2)), (1, ONE)], Resources(2)) == 16
    assert makespan([(10, Resources(8))], Resources(2)) == 10
    assert makespan([], Resources(2)) == 0


def test_jobs_on_cards_share_them_and_do_not_wait_for_cores() -> None:
    on_card, half = Resources(1, 1.0), Resources(1, 0.5)
    assert makespan([(10, on_card)] * 4 + [(10, ONE)] * 2, Resources(2, 2)) == 20
    assert makespan([(10, half)] * 4, Resources(2, 1)) == 20
    assert makespan([(10, half)], Resources(2, 1)) == 10
    assert makespan([(10, on_card)] * 2, Resources(2, 0)) == 10


def job(folder: Path, group: str, number: int) -> Task:
    return Task(f"{group}/{number}", len, group=group, folder=folder / f"{group}_{number}")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(pace.time, "monotonic", lambda: clock.now)
    return clock


def report(task: Task, done: int, seconds: float) -> None:
    assert task.folder is not None
    write_json(task.folder / PROGRESS, {"done": done, "total": 100, "seconds": seconds})


def test_a_pace_is_that_of_jobs_that_ended_or_else_of_the_progress_of_one_that_runs(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    running: dict[Task, float] = {}
    paces = Paces(running, {"net"}, {})
    task = job(tmp_path, "net", 0)
    running[task] = 1000.0
    assert paces.pace("net") is None
    # Its first step is done after 6 s of imports and inputs. The next take 2 s each, and from the 7th on one
    # second.
    for done, seconds, expected in ((1, 8, None), (4, 14, None), (6, 18, 206), (15, 27, 142), (16, 28, 112)):
        clock.now = 1000.0 + seconds
        report(task, done, seconds)
        assert paces.pace("net") == (pytest.approx(expected, abs=1) if expected else None)
        assert paces.is_final("net") == (done == 16)
    assert Paces(running, set(), {}).pace("net") is None  # the progress of others differs in rows
    assert paces.remaining([task]) == [(84, ONE)]
    paces.add("net", JobResult("net/1", "failed", "error", seconds=1))
    paces.add("net", JobResult("net/2", seconds=20))
    paces.add("net", JobResult("net/3", seconds=30))
    assert paces.pace("net") == 25
    assert paces.remaining([task]) == [(84, ONE)]  # its own progress knows better


def test_seconds_of_an_earlier_attempt_are_no_speed_of_the_one_that_continues_it(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    """90 of 100 steps took 900 s on a busy machine; now a step takes one second."""
    running: dict[Task, float] = {}
    paces = Paces(running, {"net"}, {})
    task = job(tmp_path, "net", 0)
    running[task] = 1000.0
    clock.now = 1001.0
    report(task, 80, 900)
    assert paces.pace("net") is None
    for seconds, done in ((10, 81), (15, 86), (25, 96)):
        clock.now = 1000.0 + seconds
        report(task, done, 900 + seconds)
        paces.pace("net")
    assert paces.remaining([task]) == [(pytest.approx(4), ONE)]
    assert paces.pace("net") == pytest.approx(26 + 4 + 80, abs=2)


def test_only_the_largest_folds_set_a_pace_and_smaller_ones_are_scaled_by_their_rows(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    running: dict[Task, float] = {}
    paces = Paces(running, set(), {"gp": 1000})
    paces.add("gp", JobResult("gp/0", seconds=1), n_rows=250)
    assert paces.pace("gp") is None
    paces.add("gp", JobResult("gp/4", seconds=60), n_rows=1000)
    paces.add("gp", JobResult("gp/3", seconds=54), n_rows=900)
    paces.add("gp", JobResult("gp/1", seconds=5), n_rows=500)
    assert paces.pace("gp") == 60
    small = replace(job(tmp_path, "gp", 2), n_rows=500)
    assert paces.remaining([small]) == [(30, ONE)]
    running[small] = clock.now - 50  # it takes longer than expected, and so may the others
    assert paces.pace("gp") == 100


def test_the_end_of_jobs_is_given_with_the_time_of_day() -> None:
    assert describe_end(7250)[:-5] == "in about 2 h, at "
