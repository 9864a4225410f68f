"""How long jobs take, and when all end."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.files import write_json
from models.jobs import pace
from models.jobs.pace import Paces, makespan
from models.jobs.progress import PROGRESS
from models.jobs.scheduler import JobResult, Resources, Task

ONE, HALF = Resources(), Resources(1, 0.5)


def test_each_job_starts_when_there_is_room_for_it_on_a_card_or_the_cores() -> None:
    assert makespan([(5, ONE), (10, Resources(2)), (1, ONE)], Resources(2)) == 16
    assert makespan([(10, Resources(8))], Resources(2)) == 10
    assert makespan([(10, HALF)] * 3 + [(8, ONE)] * 2, Resources(2, 1)) == 15
    assert makespan([(10, HALF)] * 3, Resources(2)) == 20


START = 1000.0
Report = Callable[[float, int, float], None]


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return Task("net/0", len, group="net", folder=tmp_path)


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Report:
    """So many seconds after its start the task reports its steps, and the seconds that it has trained."""
    clock = SimpleNamespace(now=START)
    monkeypatch.setattr(pace.time, "monotonic", lambda: clock.now)

    def write(seconds: float, done: int, trained: float) -> None:
        clock.now = START + seconds
        write_json(tmp_path / PROGRESS, {"done": done, "total": 100, "seconds": trained})

    return write


def test_a_pace_is_that_of_jobs_that_ended_or_else_of_the_progress_of_one_that_runs(
    task: Task, report: Report
) -> None:
    """Its first step is done after 6 s of imports. The next take 2 s each, and from the 7th on one second."""
    paces = Paces({task: START}, {"net"}, {})
    assert paces.pace("net") is None
    for done, seconds, expected in ((1, 8, None), (4, 14, None), (6, 18, 206), (15, 27, 142), (16, 28, 112)):
        report(seconds, done, seconds)
        assert paces.pace("net") == (pytest.approx(expected, abs=1) if expected else None)
        assert paces.is_final("net") == (done == 16)
    assert Paces({task: START}, set(), {}).pace("net") is None  # the progress of others differs in rows
    paces.add("net", JobResult("net/1", "failed", "error", seconds=1))
    paces.add("net", JobResult("net/2", seconds=20))
    paces.add("net", JobResult("net/3", seconds=30))
    assert paces.pace("net") == 25
    assert paces.remaining([task]) == [(84, ONE)]  # its own progress knows better


def test_seconds_of_an_earlier_attempt_are_no_speed_of_the_one_that_continues_it(
    task: Task, report: Report
) -> None:
    """80 of 100 steps took 900 s on a busy machine; now a step takes one second."""
    paces = Paces({task: START}, {"net"}, {})
    for seconds, done in ((1, 80), (10, 81), (15, 86), (25, 96)):
        report(seconds, done, 899 + seconds)
        paces.pace("net")
    assert paces.remaining([task]) == [(pytest.approx(4), ONE)]
    assert paces.pace("net") == pytest.approx(26 + 4 + 80, abs=2)
