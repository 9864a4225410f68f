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
from pipeline.last_submission import submit_finished, submit_until, take_latest
from submissions import build as build_step
from submissions.build import build
from submissions.compare import compare, may_score
from submissions.levels import Level
from submissions.manifest import write_manifest
from submissions.report.report import report
from submissions.run import finished_folds, finished_part, latest_run, open_run
from tests.submissions.fakes import (
    TARGETS,
    by_id,
    fake_classes,
    fake_competition,
    opened,
    prepare_and_fake_jobs,
    run_of,
)

OVER = Clock(0.0, 300.0)
"""The clock of a budget that is over, which leaves no time to compare the tables."""


@pytest.fixture
def finished(tmp_path):
    """A run with finished jobs and without a file, of a command with a budget."""
    return replace(opened(tmp_path), budget=300.0)


@pytest.fixture
def of_folds(finished):
    """A run of the jobs that are left: two folds of the stage `good`, and one of another."""
    for job in finished.plan.jobs:
        if job.title not in ("good/seed_0/fold_0", "good/seed_0/fold_2", "fair/seed_0/fold_1"):
            shutil.rmtree(job.folder)
    return replace(open_run(finished.config, finished_folds([finished.plan])), budget=300.0)


def submission_of(run):
    return (run.folder / "submission.csv").read_bytes()


def over(monkeypatch):
    """Let the time be over before the worker has built anything."""
    skipped: Any = {"submission": JobResult("submission", "skipped", "time")}
    monkeypatch.setattr(last_submission, "run", lambda *_: skipped)


def stop_at(monkeypatch, level):
    """Let the time be over when all files of a level but the last one are written."""

    def write(folder, manifest):
        if manifest.level is level:
            raise TimeoutError
        write_manifest(folder, manifest)

    monkeypatch.setattr(build_step, "write_manifest", write)


def test_until_a_run_is_complete_the_interim_submission_is_that_of_the_competition(
    finished, monkeypatch, capsys
):
    (line,) = submit_finished(finished.config, finished.plan, Level.BLEND).lines
    interim = latest_run("mixed")
    (warning,) = interim.incomplete
    assert warning in capsys.readouterr().out
    assert warning in full_step.describe_run(interim, None)["warnings"]
    score = interim.choice.expected.text
    assert line == f"submission of good, fair, poor, expect rmse {score}: {finished.paths.submission}"
    assert (finished.paths.report / "index.html").exists()
    summary = finished.paths.report / "report.md"
    assert warning in summary.read_text().replace("\n", " ")
    assert "The same command makes one of all finished stages; after the end of its budget" in warning
    assert (interim.folder.name, interim.name) == ("so_far", finished.name)
    assert "gain: of the run over so_far" in compare(finished.config)[0]
    over(monkeypatch)
    executor: Any = None
    lines, status = submit_until(OVER, finished, executor, True)
    assert lines[0] == (
        "the 5 min budget ran out before the last submission was built; the one before is of fair, good, poor"
    )
    assert f"Submission: {finished.paths.submission}" in lines[1]
    assert status == 0
    assert finished.paths.submission.read_bytes() == submission_of(interim)
    build(finished)
    assert latest_run("mixed").folder == finished.folder
    assert "WARNING" not in capsys.readouterr().out
    assert finished.paths.submission.read_bytes() == submission_of(finished)
    assert not interim.folder.exists()
    report(latest_run("mixed"))
    assert "not complete" not in summary.read_text()


def test_an_interim_submission_does_not_replace_that_of_an_earlier_run_and_the_last_line_says_where_it_is(
    finished,
):
    build(finished)
    report(finished)
    other = finished.config.submissions.model_copy(update={"trials": 3})
    run = replace(
        open_run(finished.config.model_copy(update={"submissions": other}), finished.plan), budget=60
    )
    interim = finished.paths.run("so_far") / "submission.csv"
    (line,) = submit_finished(run.config, run.plan, Level.BLEND).lines
    assert line.endswith(str(interim))
    (_, line), status = take_latest(run, True)
    assert line.startswith(f"{interim} is the candidate shrunk_ridge: expect rmse 0.")
    assert line.endswith(f"{finished.paths.submission} is still of run {finished.name}")
    assert status == 0
    assert latest_run("mixed").name == finished.name
    assert finished.paths.submission.read_bytes() == submission_of(finished)
    assert (finished.paths.report / "report.md").exists()  # it is of the latest submission


def test_the_report_of_another_run_is_replaced_even_if_no_other_is_written_in_time(finished, monkeypatch):
    finished.paths.report.mkdir()
    for name in ("report.md", "index.html"):
        (finished.paths.report / name).touch()
    over(monkeypatch)
    executor: Any = None
    (summary,), status = submit_until(OVER, finished, executor, False)
    assert status == 0
    assert (finished.paths.report / "report.md").read_text() == f"{summary}\n"
    assert finished.name in summary


@pytest.mark.parametrize(
    ("missing", "chosen", "words"),
    [
        (Level.FULL, "shrunk_ridge", "The LightGBM stack and the leave-one-stage-out blends are left out"),
        (
            Level.BLEND,
            "convex",
            "Tuned blends, the LightGBM stack and the leave-one-stage-out blends are left",
        ),
    ],
)
def test_a_run_without_time_for_a_level_has_the_one_before_with_a_report_and_goes_on_from_there(
    finished, monkeypatch, missing, chosen, words
):
    stop_at(monkeypatch, missing)
    with pytest.raises(TimeoutError):
        last_submission._submit(finished, False, OVER)
    lines, status = take_latest(finished, False)
    assert status == 0
    text = lines[0].replace("\n", " ")
    assert f"Submitted: {chosen}" in text
    assert words in text
    latest = latest_run("mixed")
    assert (latest.name, latest.manifest.level) == (
        finished.name,
        list(Level)[list(Level).index(missing) - 1],
    )
    assert finished.paths.submission.read_bytes() == submission_of(finished)
    assert last_submission.levels_of(finished, False)[0] is missing
    monkeypatch.setattr(build_step, "write_manifest", write_manifest)
    (*_, text) = last_submission._submit(finished, False, OVER).lines
    assert "are left out" not in text
    assert latest_run("mixed").manifest.level == Level.FULL


def test_a_submission_in_haste_has_the_default_of_the_settings_or_says_what_takes_its_place(finished):
    build(finished, Level.MEAN)
    assert finished.choice.default == "mean"
    place = "The default blend shrunk_ridge was not made, and mean is the default instead."
    assert place in finished.manifest.remarks and finished.exit_status == 0
    build(finished, Level.FULL)
    assert place not in finished.manifest.remarks
    submissions = finished.config.submissions.model_copy(update={"default": "convex"})
    asked = replace(finished, config=finished.config.model_copy(update={"submissions": submissions}))
    shutil.rmtree(finished.folder)
    build(asked, Level.MEAN)
    assert asked.choice.default == "convex"
    assert not any("default" in line for line in asked.manifest.remarks)


def test_if_no_level_was_built_in_time_the_first_one_is_which_needs_no_tuning(finished):
    lines, status = take_latest(finished, False)
    assert "Submitted: convex" in lines[-1].replace("\n", " ")
    assert status == 0
    assert set(latest_run("mixed").candidates) == {"mean", "convex", "best_single"}
    assert finished.built.level == Level.MEAN


def test_the_report_of_an_earlier_level_is_made_again_if_the_time_ends_before_that_of_the_last_one(finished):
    build(finished, Level.MEAN)
    report(finished)
    build(finished, Level.FULL)
    lines, _ = take_latest(finished, True)
    assert "are left out" not in lines[-1]
    assert lines[-1] == (finished.paths.report / "report.md").read_text().rstrip()


@pytest.mark.parametrize("is_built", [True, False])
def test_a_worker_that_dies_is_a_failure_and_not_the_end_of_the_budget(finished, monkeypatch, is_built):
    killed: Any = {"submission": JobResult("submission", "failed", "killed", error="the worker died")}
    monkeypatch.setattr(last_submission, "run", lambda *_: killed)
    if is_built:
        build(finished, Level.BLEND)
    lines, status = submit_until(OVER, finished, None, False)
    assert status == 3
    assert "WARNING: the last submission was not built: the worker died" in lines[0]
    assert "budget ran out" not in "".join(lines)


def test_a_later_level_of_a_run_replaces_an_earlier_one_by_the_rule_without_a_budget(finished, monkeypatch):
    """Also if the earlier one has a little better score; an earlier level replaces no later one."""
    for level in (Level.BLEND, Level.FULL):
        shutil.rmtree(finished.folder, ignore_errors=True)
        build(finished, Level.MEAN)
        records = {
            name: record.model_copy(update={"score": 0.0})
            for name, record in finished.choice.candidates.items()
        }
        choice = finished.choice.model_copy(update={"candidates": records})
        write_manifest(finished.folder, finished.manifest.model_copy(update={"choice": choice}))
        lines = build(finished, level)
        assert (finished.manifest.level, finished.chosen) == (level, "shrunk_ridge")
        with monkeypatch.context() as patch:  # it is not made again
            patch.delattr(build_step, "select_candidate")
            assert build(finished, Level.MEAN) == lines


@pytest.mark.draws_figures
def test_without_a_finished_stage_the_finished_folds_of_the_furthest_one_are_submitted(
    of_folds, finished, monkeypatch
):
    plan = finished.plan
    (*_, text) = last_submission._submit(of_folds, False, OVER).lines
    text = text.replace("\n", " ")
    assert (
        "WARNING: no stage has finished. The submission is the mean of 2 of 3 models of good (fold 0, 2)"
        in text
    )
    n_rows = (by_id(finished.paths.folds)["fold"] != 1).sum()
    assert f"held out {n_rows} of 150 training rows" in text
    assert "could not be made" not in (finished.paths.report / "index.html").read_text()
    latest = latest_run("mixed")
    assert (latest.manifest.level, latest.exit_status, latest.folder.name) == (Level.FOLDS, 3, "so_far")
    assert latest.incomplete[0].endswith("The same command goes on from there.")
    jobs = [job for job in plan.jobs_of_stage("good") if job.fold != 1]
    assert [job.folder for job in latest.plan.jobs] == [job.folder for job in jobs]
    y_pred = np.vstack([by_id(job.oof_file).reindex(columns=TARGETS) for job in jobs])
    y = by_id(finished.paths.train).loc[[i for job in jobs for i in by_id(job.oof_file).index], TARGETS]
    assert latest.choice.submitted.score == pytest.approx(finished.metric(y.to_numpy(), y_pred))
    first, second = (by_id(job.test_file(plan.test_key)) for job in jobs)
    submitted = by_id(finished.paths.submission)[TARGETS]
    expected = (first + second).loc[submitted.index, TARGETS] / 2
    np.testing.assert_allclose(submitted, expected, atol=1e-5)
    with monkeypatch.context() as patch:  # the same command again
        patch.delattr(build_step, "select_candidate")
        last_submission._submit(of_folds, False, OVER)
    for job in plan.jobs:
        shutil.rmtree(job.folder, ignore_errors=True)
    assert finished_folds([plan]) is None


def test_finished_folds_never_replace_a_complete_submission_whose_report_and_run_stay(of_folds, finished):
    complete = opened(finished.paths.root.parents[1])
    build(complete)
    report(complete)
    before = complete.paths.submission.read_bytes()
    lines = last_submission._submit(of_folds, False, OVER).lines
    beside = finished.paths.run("so_far") / "submission.csv"
    assert (
        f"{beside} is not complete, so {finished.paths.submission} is still of run {complete.name}."
    ) in lines
    assert complete.paths.submission.read_bytes() == before != beside.read_bytes()
    assert latest_run("mixed").name == complete.name
    assert "good, fair, poor" in (complete.paths.report / "report.md").read_text()
    assert of_folds.submission == beside
    plan = replace(complete.plan, jobs=complete.plan.jobs_of_stage("good"), stages=of_folds.plan.stages)
    all_folds = open_run(complete.config, replace(plan, keys={"good": complete.plan.keys["good"]}))
    assert all_folds.name != of_folds.name


def test_one_finished_fold_of_classes_is_submitted_with_thresholds_of_its_own_rows(tmp_path):
    path = fake_classes(tmp_path, "binary", "f1")
    prepare_and_fake_jobs(path)
    run = run_of(path)
    for job in run.plan.jobs:
        if job.title != "fair/seed_0/fold_1":
            shutil.rmtree(job.folder)
    with pytest.raises(NothingToSubmit, match="no stage has finished"):
        open_run(run.config, finished_part(run.plan))
    part = open_run(run.config, finished_folds([run.plan]))
    build(part, Level.FOLDS)
    assert np.isfinite(part.choice.submitted.score) and len(part.choice.submitted.thresholds) == 1


def test_the_last_line_names_the_budget_that_trains_one_more_stage(monkeypatch):
    monkeypatch.setattr(full_step.time, "monotonic", lambda: 1120.0)
    larger = {"minilm": 330.0, "unimol": 4000.0}
    budget: Any = SimpleNamespace(clock=Clock(1000.0, 300.0), larger_budgets=lambda: larger)
    expected = "The training ended after 2 min of 5 min; --budget 6m would train minilm."
    assert full_step.describe_larger_budget(budget) == [expected]
    larger.clear()
    assert full_step.describe_larger_budget(budget) == []


def test_a_metric_of_the_user_is_not_called_once_the_time_is_over(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def score(y, y_pred):\n    raise TimeoutError('called')\n")
    roles = {"targets": ["height"], "metric": "mine.py:score", "greater_is_better": False}
    path = fake_competition(tmp_path, competition=roles)
    prepare_and_fake_jobs(path)
    run = replace(run_of(path), budget=300.0)
    over(monkeypatch)
    executor: Any = None
    (*_, text), status = submit_until(OVER, run, executor, False)
    said = text.replace("\n", " ")
    assert "The score is not known. Your metric failed, or there was no time to call it;" in said
    assert "Submitted: convex of" in said
    assert (status, run.is_latest, run.choice.submitted.score) == (0, True, None)
    assert not may_score(run)
    assert full_step.describe_run(run, None)["expected_score"] is None


def test_a_metric_that_fails_for_predictions_costs_the_score_and_not_the_submission(tmp_path, monkeypatch):
    """It may be finite near the labels, where `check` tries it; here a worker has failed to build the submission."""
    (tmp_path / "mine.py").write_text("def score(y, y_pred):\n    raise ValueError('negative')\n")
    path = fake_competition(tmp_path, competition={"metric": "mine.py:score", "greater_is_better": False})
    prepare_and_fake_jobs(path)
    run = run_of(path)
    failed: Any = {"submission": JobResult("submission", "failed", "error", "ConfigError: negative")}
    monkeypatch.setattr(last_submission, "run", lambda queue, executor: failed)
    executor: Any = None
    lines, status = submit_until(Clock(0.0), run, executor, False)
    assert "WARNING: the last submission was not built: ConfigError: negative" in lines[0]
    assert (status, run.is_latest, run.choice.submitted.score) == (3, True, None)


def test_a_score_that_is_not_known_is_there_when_the_metric_has_time(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def mae(y, y_pred):\n    return float(abs(y - y_pred).mean())\n")
    roles = {"targets": ["height"], "metric": "mine.py:mae", "greater_is_better": False}
    path = fake_competition(tmp_path, competition=roles)
    prepare_and_fake_jobs(path)
    run = replace(run_of(path), budget=300.0)
    take_latest(run, False)
    assert run.choice.submitted.score is None
    build(run)
    assert run.choice.submitted.score > 0 and run.choice.submitted.n_resamples == 200
    assert run.chosen == "shrunk_ridge"
