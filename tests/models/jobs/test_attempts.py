"""Two workers at one job: each in a folder of its own, one published, nothing mixed."""

from __future__ import annotations

from pathlib import Path

import pytest

from competition.errors import DataError
from models.jobs.attempts import MARK, begin, publish, unfinished, verify, write_report
from models.jobs.plan import Job


def work(attempt: Path, words: str) -> None:
    attempt.mkdir(exist_ok=True)
    (attempt / "weights").write_text(words)
    write_report(attempt, {"seconds": 1.0})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_first_to_finish_is_published_and_the_other_thrown_away(tmp_path: Path) -> None:
    job = tmp_path / "fold_0"
    first, other = begin(job), tmp_path / ".fold_0.other"
    other.mkdir()
    (other / MARK).touch()  # of a worker that does not know of the first
    work(first, "first")
    work(other, "other")
    publish(other, job)
    publish(first, job)
    assert (job / "weights").read_text() == "other"
    assert (names(tmp_path), names(job)) == (["fold_0"], ["report.json", "weights"])


@pytest.mark.parametrize("left", [".fold_0.killed", "fold_0"])
def test_an_attempt_goes_on_from_the_checkpoint_of_the_one_before_alone(tmp_path: Path, left: str) -> None:
    job, killed = tmp_path / "fold_0", tmp_path / left
    (killed / "test").mkdir(parents=True)
    (killed / "weights").write_text("half")
    (killed / "checkpoint.pt").write_text("epoch 3")
    begin(tmp_path / "fold_1")  # of another job
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
    publish(sleeping, job)
    assert not job.exists()
    work(again, "again")
    publish(again, job)
    assert (job / "weights").read_text() == "again"


def test_what_is_no_job_in_its_place_is_not_overwritten(tmp_path: Path) -> None:
    job = tmp_path / "fold_0"
    attempt = begin(job)
    work(attempt, "new")
    job.mkdir()
    (job / "notes").touch()
    with pytest.raises(OSError, match="not empty"):
        publish(attempt, job)
    assert names(job) == ["notes"]


def test_a_changed_or_missing_file_of_a_finished_job_is_an_error(tmp_path: Path) -> None:
    job = Job("s", "k", 0, 0, tmp_path / "job")
    job.folder.mkdir()
    (job.folder / "weights").write_bytes(b"abc")
    write_report(job.folder, {"seconds": 1.0})
    assert verify(job)["seconds"] == 1.0
    (job.folder / "weights").write_bytes(b"abd")
    with pytest.raises(DataError, match=r"weights has changed since .* delete the folder"):
        verify(job)
    (job.folder / "weights").unlink()
    with pytest.raises(DataError, match="is gone"):
        verify(job)
