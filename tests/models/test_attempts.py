"""Two workers at one job: each in a folder of its own, one published, nothing mixed."""

from __future__ import annotations

from pathlib import Path

import pytest

from competition.errors import DataError
from models.jobs.attempts import begin, finish, is_whole, unfinished


def work(attempt: Path, words: str) -> None:
    for name in ("weights", "report.json"):
        attempt.mkdir(exist_ok=True)
        (attempt / name).write_text(words)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_first_to_finish_is_published_and_the_other_thrown_away(tmp_path: Path) -> None:
    job = tmp_path / "fold_0"
    first, other = begin(job), tmp_path / ".fold_0.other"
    begin_beside(other)
    work(first, "first")
    work(other, "other")
    assert finish(other, job)
    assert not finish(first, job)
    assert {path.read_text() for path in job.iterdir()} == {"other"}
    assert names(tmp_path) == ["fold_0"]


def begin_beside(attempt: Path) -> None:
    """An attempt whose worker does not know of the other one."""
    attempt.mkdir()
    (attempt / ".attempt").touch()


def test_an_attempt_goes_on_from_the_checkpoint_of_the_one_before_alone(tmp_path: Path) -> None:
    job = tmp_path / "fold_0"
    killed = begin(job)
    work(killed, "half")
    (killed / "report.json").unlink()
    (killed / "checkpoint.pt").write_text("epoch 3")
    again = begin(job)
    assert (again / "checkpoint.pt").read_text() == "epoch 3"
    assert names(again) == [".attempt", "checkpoint.pt"]
    assert unfinished(job) == [again]


def test_one_that_was_taken_for_dead_publishes_nothing_of_what_it_writes_later(tmp_path: Path) -> None:
    job = tmp_path / "fold_0"
    sleeping = begin(job)
    (sleeping / "checkpoint.pt").write_text("epoch 3")
    again = begin(job)
    work(sleeping, "after it woke up")  # its folder comes back, without what it wrote before
    assert not is_whole(sleeping)
    assert not finish(sleeping, job)
    assert not job.exists()
    assert is_whole(again)
    work(again, "again")
    assert finish(again, job)
    assert (job / "weights").read_text() == "again"


def test_what_was_never_published_under_the_name_of_the_job_is_an_earlier_attempt(tmp_path: Path) -> None:
    job = tmp_path / "fold_0"
    work(job, "half")
    (job / "report.json").unlink()
    (job / "checkpoint.pt").write_text("epoch 2")
    attempt = begin(job)
    assert not job.exists()
    assert (attempt / "checkpoint.pt").read_text() == "epoch 2"


def test_what_is_no_job_in_its_place_is_named(tmp_path: Path) -> None:
    job = tmp_path / "fold_0"
    attempt = begin(job)
    job.mkdir()
    (job / "notes").touch()
    with pytest.raises(DataError, match="fold_0 must be a finished job or not be there"):
        finish(attempt, job)
