"""What is submitted when the time of a command is over."""

import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.errors import ConfigError, NothingToSubmit
from core.files import read_table
from models.jobs.budget_stages import Clock
from models.jobs.plan import make_plan
from pipeline import full as full_step
from pipeline import last_submission
from submissions.build import build_submission
from submissions.config import load_config
from submissions.run import latest_run
from tests.submissions.fakes import TARGETS, fake_competition, prepare_and_fake_jobs, run_of


def test_if_the_last_submission_is_not_built_in_time_that_of_the_finished_stages_takes_its_place(
    tmp_path: Path,
) -> None:
    path = fake_competition(tmp_path)
    prepare_and_fake_jobs(path)
    finished = replace(run_of(path), budget=300.0)
    build_submission(finished, interim=True)
    line = last_submission.take_latest(finished, False)
    assert line.endswith("is the candidate shrunk_ridge of fair, good, poor, without a report")
    latest = latest_run(str(path))
    assert latest.name == finished.name
    assert finished.paths.submission.read_bytes() == (latest.folder / "submission.csv").read_bytes()
    assert not finished.is_built  # it has no stack, so the next command builds it
    build_submission(finished)
    assert "the report was written" in last_submission.take_latest(finished, False)


def test_if_no_blend_was_tuned_in_time_one_that_needs_no_tuning_is_submitted(tmp_path: Path) -> None:
    path = fake_competition(tmp_path)
    prepare_and_fake_jobs(path)
    finished = replace(run_of(path), budget=300.0)
    line = last_submission.take_latest(finished, False)
    assert "the time of 5 min was over before the last submission was built" in line
    assert line.endswith("is the candidate convex of fair, good, poor, without a report")
    assert set(latest_run(str(path)).candidates) == {"mean", "convex", "best_single"}
    assert not finished.is_built


def test_without_a_finished_stage_the_finished_folds_of_the_furthest_one_are_submitted(
    tmp_path: Path,
) -> None:
    path = fake_competition(tmp_path)
    prepare_and_fake_jobs(path)
    config = load_config(str(path))
    run = run_of(path)
    plan = make_plan(config.competition, dict(config.stages))
    test = {job.title: read_table(job.test_file(plan.test_key)) for job in plan.jobs}
    for job in plan.jobs:
        if job.fold not in {"good": (0, 2), "fair": (1,)}.get(job.stage, ()):
            shutil.rmtree(job.folder)
    _, line = last_submission.submit_finished_folds(config, plan, [])
    assert f"is the mean of 2 of {plan.n_folds} models of good (fold 0, 2)" in line
    submitted = read_table(run.paths.submission, ["id"]).set_index("id")[TARGETS]
    parts = [test[f"good/seed_0/fold_{fold}"].set_index("id").loc[submitted.index] for fold in (0, 2)]
    assert submitted.to_numpy() == pytest.approx((parts[0] + parts[1])[TARGETS].to_numpy() / 2, abs=1e-5)
    n_held_out = sum(
        len(read_table(job.oof_file)) for job in plan.jobs if job.oof_file.exists() and job.stage == "good"
    )
    assert f"on the {n_held_out} of " in line
    for job in plan.jobs:
        shutil.rmtree(job.folder, ignore_errors=True)
    with pytest.raises(NothingToSubmit, match="no stage has finished"):
        last_submission.submit_finished_folds(config, plan, [])


def test_a_finished_network_with_fewer_epochs_is_listed_with_what_is_left_out() -> None:
    states = {
        name: SimpleNamespace(name=name, share=share, epochs="15 of 30 epochs")
        for name, share in {"gnn": 0.5, "bert": 1.0, "lost": 0.5}.items()
    }
    stages = {"gnn": None, "bert": None}
    budget: Any = SimpleNamespace(states=states, left_out=[], plan=SimpleNamespace(stages=stages))
    config: Any = SimpleNamespace(stages=stages)
    (row,) = full_step.left_out_by_budget(budget, config, config)
    assert (row.stage, row.seed, row.reason) == ("gnn", None, "epochs")
    assert row.error == "trained for 15 of 30 epochs, since all of them did not fit into the budget"


def test_a_budget_that_leaves_no_time_for_training_is_refused_and_the_smallest_one_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """40 s were spent; 12.4 s and 2 s are kept, and 20 s are the least for training: 54.4 + .95 x more seconds."""
    monkeypatch.setattr(full_step.time, "monotonic", lambda: 1040.0)
    clock = Clock(1000.0, 50.0)
    deadline = clock.end - clock.reserve(0.0)
    budget: Any = SimpleNamespace(clock=clock, training_deadline=deadline, plan=SimpleNamespace(jobs=[]))
    with pytest.raises(
        ConfigError, match=r"took 40 s, .* needs 12 s\. The smallest budget here is --budget 2m"
    ):
        full_step.require_time(budget)
    budget.plan.jobs = [SimpleNamespace(finished=True)]
    full_step.require_time(budget)  # what is finished can be submitted
    budget.plan.jobs, budget.training_deadline = [], math.inf
    full_step.require_time(budget)


def test_the_last_line_names_the_budget_that_trains_one_more_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_step.time, "monotonic", lambda: 1120.0)
    larger = {"minilm": 330.0, "unimol": 4000.0}
    budget: Any = SimpleNamespace(clock=Clock(1000.0, 300.0), larger_budgets=lambda: larger)
    assert full_step.describe_larger_budget(budget) == [
        "The training ended after 2 min of 5 min; --budget 6m trains minilm."
    ]
    budget.larger_budgets = dict
    assert full_step.describe_larger_budget(budget) == []
