"""What is submitted while stages train, and when the time of a command is over."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.errors import NothingToSubmit
from core.files import read_table
from models.jobs.budget_stages import Clock
from models.jobs.scheduler import JobResult
from pipeline import full as full_step
from pipeline.last_submission import InterimSubmissions, submit_finished_folds, take_latest
from submissions.build import build_submission
from submissions.run import Run, latest_run
from tests.submissions.fakes import TARGETS, opened


@pytest.fixture
def finished(tmp_path: Path) -> Run:
    """A run with finished jobs and without a file, of a command with a budget."""
    return replace(opened(tmp_path), budget=300.0)


def test_interim_submissions_take_a_tenth_of_the_time_and_one_is_pending_at_most(
    finished: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr("pipeline.last_submission.time.monotonic", lambda: now)
    in_time, unlimited = (
        InterimSubmissions(finished.config, SimpleNamespace(current_plan=finished.plan, clock=clock))
        for clock in (Clock(now, 300.0), Clock(now))
    )
    assert in_time.next_task() is not None
    assert unlimited.next_task() is None
    now += 61
    task = unlimited.next_task()
    assert unlimited.next_task() is None
    task.on_end(JobResult(task.name, "failed", "error", "DataError: no", seconds=20.0))
    assert "no submission of the finished stages yet: DataError: no" in capsys.readouterr().out
    for seconds, is_due in ((199, False), (2, True)):
        now += seconds
        assert (unlimited.next_task() is not None) == is_due


def test_if_the_last_submission_is_not_built_in_time_that_of_the_finished_stages_takes_its_place(
    finished: Run,
) -> None:
    build_submission(finished, interim=True)
    line = take_latest(finished, False)
    assert line.endswith("is the candidate shrunk_ridge of fair, good, poor, without a report")
    latest = latest_run("mixed")
    assert latest.name == finished.name
    assert finished.paths.submission.read_bytes() == (latest.folder / "submission.csv").read_bytes()
    assert not finished.is_built  # it has no stack, so the next command builds it
    build_submission(finished)
    assert "the report was written" in take_latest(finished, False)


def test_if_no_blend_was_tuned_in_time_one_that_needs_no_tuning_is_submitted(finished: Run) -> None:
    line = take_latest(finished, False)
    assert "the time of 5 min was over before the last submission was built" in line
    assert line.endswith("is the candidate convex of fair, good, poor, without a report")
    assert set(latest_run("mixed").candidates) == {"mean", "convex", "best_single"}
    assert not finished.is_built


def test_without_a_finished_stage_the_finished_folds_of_the_furthest_one_are_submitted(
    finished: Run,
) -> None:
    plan, columns = finished.plan, finished.columns
    for job in plan.jobs:
        if job.title not in ("good/seed_0/fold_0", "good/seed_0/fold_2", "fair/seed_0/fold_1"):
            shutil.rmtree(job.folder)
    _, line = submit_finished_folds(finished.config, plan, [])
    assert "is the mean of 2 of 3 models of good (fold 0, 2)" in line
    assert f"on the {(columns.folds != 1).sum()} of 150 training rows" in line
    submitted = read_table(finished.paths.submission, ["id"]).set_index("id")[TARGETS]
    jobs = [job for job in plan.jobs_of_stage("good") if job.fold != 1]
    first, second = (read_table(job.test_file(plan.test_key)).set_index("id") for job in jobs)
    expected = (first + second).loc[submitted.index, TARGETS].to_numpy() / 2
    assert submitted.to_numpy() == pytest.approx(expected, abs=1e-5)
    for job in plan.jobs:
        shutil.rmtree(job.folder, ignore_errors=True)
    with pytest.raises(NothingToSubmit, match="no stage has finished"):
        submit_finished_folds(finished.config, plan, [])


def test_networks_with_fewer_epochs_and_a_budget_that_trains_one_more_stage_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states = {
        name: SimpleNamespace(name=name, share=share, epochs="15 of 30 epochs")
        for name, share in {"gnn": 0.5, "bert": 1.0, "lost": 0.5}.items()
    }
    stages = SimpleNamespace(stages={"gnn": None, "bert": None})
    larger = {"minilm": 330.0, "unimol": 4000.0}
    budget: Any = SimpleNamespace(
        states=states, left_out=[], plan=stages, clock=Clock(1000.0, 300.0), larger_budgets=larger.copy
    )
    (row,) = full_step.left_out_by_budget(budget, stages, stages)
    assert (row.stage, row.seed, row.reason) == ("gnn", None, "epochs")
    assert row.error == "trained for 15 of 30 epochs, since all of them did not fit into the budget"
    monkeypatch.setattr(full_step.time, "monotonic", lambda: 1120.0)
    expected = "The training ended after 2 min of 5 min; --budget 6m trains minilm."
    assert full_step.describe_larger_budget(budget) == [expected]
    larger.clear()
    assert full_step.describe_larger_budget(budget) == []
