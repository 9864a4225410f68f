"""A submission of the finished stages while others train."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from models.jobs.budget_stages import Clock
from models.jobs.plan import make_plan
from pipeline import last_submission as interim
from pipeline.last_submission import InterimSubmissions, submit_finished
from submissions.build import build_submission
from submissions.config import load_config
from tests.submissions.fakes import fake_competition, prepare_and_fake_jobs, run_of


def test_the_finished_stages_are_submitted_and_the_last_submission_takes_their_place(tmp_path: Path) -> None:
    path = fake_competition(tmp_path)
    prepare_and_fake_jobs(path)
    config = load_config(str(path))
    jobs = make_plan(config.competition, dict(config.stages))
    report = jobs.jobs_of_stage("poor")[1].folder / "report.json"
    content = report.read_bytes()
    report.unlink()
    result = submit_finished(config, jobs)
    paths = config.competition.paths
    file = paths.run("so_far") / "submission.csv"
    assert result.lines == (f"submission of good, fair: {file}",)
    assert file.exists()
    assert not paths.latest_run.exists()
    report.write_bytes(content)
    build_submission(run_of(path))
    assert not file.exists()
    assert paths.submission.exists()


def test_interim_submissions_take_a_tenth_of_the_time_and_one_is_pending_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fake_competition(tmp_path)
    prepare_and_fake_jobs(path)
    config = load_config(str(path))
    now = 1000.0
    monkeypatch.setattr(interim.time, "monotonic", lambda: now)
    jobs = make_plan(config.competition, dict(config.stages))
    in_time: Any = SimpleNamespace(current_plan=jobs, clock=Clock(now, 300.0))
    assert InterimSubmissions(config, in_time).next_task() is not None
    unlimited: Any = SimpleNamespace(current_plan=jobs, clock=Clock(now))
    submissions = InterimSubmissions(config, unlimited)
    assert submissions.next_task() is None
    now += 61
    task = submissions.next_task()
    assert task is not None
    assert submissions.next_task() is None
    assert task.on_end is not None
    task.on_end(interim.JobResult(task.name, "failed", "error", "DataError: no", seconds=20.0))
    assert "no submission of the finished stages yet: DataError: no" in capsys.readouterr().out
    now += 199
    assert submissions.next_task() is None
    now += 2
    assert submissions.next_task() is not None
    assert time.monotonic() == now
