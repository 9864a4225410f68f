"""What is submitted when the time of a command is over."""

import shutil
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from core.errors import NothingToSubmit
from models.jobs.budget_stages import Clock
from models.jobs.scheduler import JobResult
from pipeline import full as full_step
from pipeline import last_submission
from pipeline.last_submission import build_so_far, submit_finished_folds, submit_until, take_latest
from submissions.build import build_submission
from submissions.run import latest_run
from tests.submissions.fakes import TARGETS, by_id, opened


@pytest.fixture
def finished(tmp_path):
    """A run with finished jobs and without a file, of a command with a budget."""
    return replace(opened(tmp_path), budget=300.0)


def test_if_the_last_submission_is_not_built_in_time_that_of_the_finished_stages_takes_its_place(
    finished,
):
    build_so_far(finished)
    lines, status = take_latest(finished, False)
    assert lines[-1].endswith("is the candidate shrunk_ridge of fair, good, poor, without a report")
    assert status == 3
    latest = latest_run("mixed")
    assert latest.name == finished.name
    assert finished.paths.submission.read_bytes() == (latest.folder / "submission.csv").read_bytes()
    assert not finished.is_built  # it has no stack, so the next command builds it
    build_submission(finished)
    lines, status = take_latest(finished, False)
    assert "the report was written" in lines[-1]
    assert status == 3


def test_the_report_of_another_run_is_removed_even_if_no_other_is_written_in_time(finished, monkeypatch):
    finished.paths.report.mkdir()
    for name in ("report.md", "index.html"):
        (finished.paths.report / name).touch()
    over: Any = {"submission": JobResult("submission", "skipped", "time")}
    monkeypatch.setattr(last_submission, "run", lambda *_: over)
    executor: Any = None
    _, status = submit_until(Clock(0.0, 300.0), finished, executor, False)
    assert status == 3
    assert not finished.paths.report.exists()


def test_without_time_for_the_stack_the_blend_is_submitted_with_a_report_that_says_so(finished, monkeypatch):
    monkeypatch.setattr(last_submission, "build_submission", quick_only)
    with pytest.raises(TimeoutError):
        last_submission._submit(finished, True)
    lines, status = take_latest(finished, True)
    assert status == 0
    assert "Submitted: shrunk_ridge" in lines[0]
    assert "The LightGBM stack and the leave-one-stage-out blends are left out" in lines[0]
    assert latest_run("mixed").name == finished.name
    assert not finished.is_built


def quick_only(run, quick=False):
    """Build the blend, and run out of time before the stack."""
    if not quick:
        raise TimeoutError
    return build_submission(run, quick)


def test_if_no_blend_was_tuned_in_time_one_that_needs_no_tuning_is_submitted(finished):
    lines, status = take_latest(finished, False)
    assert "the 5 min budget ran out before the last submission was built" in lines[-1]
    assert lines[-1].endswith("is the candidate convex of fair, good, poor, without a report")
    assert status == 3
    assert set(latest_run("mixed").candidates) == {"mean", "convex", "best_single"}
    assert not finished.is_built


def test_without_a_finished_stage_the_finished_folds_of_the_furthest_one_are_submitted(
    finished,
):
    plan, columns = finished.plan, finished.columns
    for job in plan.jobs:
        if job.title not in ("good/seed_0/fold_0", "good/seed_0/fold_2", "fair/seed_0/fold_1"):
            shutil.rmtree(job.folder)
    _, line = submit_finished_folds(finished.config, plan, [])
    assert "is the mean of 2 of 3 models of good (fold 0, 2)" in line
    assert f"on the {(columns.folds != 1).sum()} of 150 training rows" in line
    jobs = [job for job in plan.jobs_of_stage("good") if job.fold != 1]
    first, second = (by_id(job.test_file(plan.test_key)) for job in jobs)
    submitted = by_id(finished.paths.submission)[TARGETS]
    expected = (first + second).loc[submitted.index, TARGETS] / 2
    np.testing.assert_allclose(submitted, expected, atol=1e-5)
    for job in plan.jobs:
        shutil.rmtree(job.folder, ignore_errors=True)
    with pytest.raises(NothingToSubmit, match="no stage has finished"):
        submit_finished_folds(finished.config, plan, [])


def test_the_last_line_names_the_budget_that_trains_one_more_stage(monkeypatch):
    monkeypatch.setattr(full_step.time, "monotonic", lambda: 1120.0)
    larger = {"minilm": 330.0, "unimol": 4000.0}
    budget: Any = SimpleNamespace(clock=Clock(1000.0, 300.0), larger_budgets=lambda: larger)
    expected = "The training ended after 2 min of 5 min; --budget 6m would train minilm."
    assert full_step.describe_larger_budget(budget) == [expected]
    larger.clear()
    assert full_step.describe_larger_budget(budget) == []
