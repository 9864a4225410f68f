"""What a run chooses: candidates, stacks, what the submission is held against, and its standard deviations."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from core.errors import DataError
from models.jobs.job import read_predictions, std_file
from submissions.blend import selection
from submissions.blend import stack as stacks
from submissions.blend.candidates import CANDIDATES, LIGHTGBM_STACK, fit_candidate
from submissions.blend.selection import cross_fit
from submissions.build import build
from submissions.columns import std_table
from submissions.compare import compare
from submissions.manifest import write_manifest
from submissions.predict import load_candidate
from submissions.report.elements import Table
from submissions.report.predictions import prediction_section
from submissions.run import latest_run, require_same_code
from tests.conftest import new_process
from tests.submissions.fakes import (
    TARGETS,
    built,
    by_id,
    fake_classes,
    fake_competition,
    finished,
    opened,
    run_of,
    train_all,
)

TREES = {"kind": "lightgbm"}


def submitted(run, file="submission.csv"):
    """Predictions of a submission in the order of the prepared test table."""
    return by_id(run.folder / file).loc[run.columns.test_ids, TARGETS].to_numpy()


# Candidates


USER_CODE = """
from __future__ import annotations
from dataclasses import dataclass
import numpy as np

@dataclass
class Trimmed:
    part: float
    def predict(self, preds):
        return np.clip(np.median(preds, axis=1), preds.mean(axis=1) - self.part, preds.mean(axis=1) + self.part)

def trimmed(preds, y, folds):
    return Trimmed(0.1)

def broken(preds, y, folds):
    if len(y) > 70:
        raise ValueError("not today")
    return [1, 0, 0]

def fixed(preds, y, folds):
    return [0.5, 0.3, 0.2]

@dataclass
class Picky:
    n_rows: int
    def predict(self, preds):
        return np.where(len(preds) == self.n_rows, np.nan, preds.mean(axis=1))

def picky_in_folds(preds, y, folds):
    return Picky(31)

def picky_on_test_rows(preds, y, folds):
    return Picky(30)

def half(y_pred):
    if len(y_pred) == 30:
        raise ValueError("other rows")
    return y_pred / 2

def up(y_pred):
    return y_pred + 1.5

def score(y_true, y_pred):
    assert y_true.shape[1] == 2
    return float(np.nanmean(np.abs(y_true - y_pred) * [1.0, 3.0]))
"""
NUMBERS = [name for name in CANDIDATES if name != "shrunk_logits"]


def test_all_candidates_and_user_defined_code_go_all_the_way(tmp_path):
    user_file, names = tmp_path / "mine.py", [*NUMBERS, "mine.py:trimmed"]
    user_file.write_text(USER_CODE)
    roles = {"metric": "mine.py:score", "greater_is_better": False}
    submissions = {"candidates": names, "postprocess": "mine.py:up"}
    path = fake_competition(tmp_path, 90, competition=roles, submissions=submissions)
    run = finished(path)
    assert [name for name in run.candidates if name != LIGHTGBM_STACK] == names
    preds = run.columns.test
    for name in names:
        file = f"candidates/{name.replace(':', '.')}.csv"
        np.testing.assert_allclose(load_candidate(run, name).predict(preds), submitted(run, file), rtol=1e-6)
    choice = run.choice.model_copy(update={"chosen": "mine.py:trimmed"})
    write_manifest(run.folder, run.manifest.model_copy(update={"choice": choice}))
    stored = latest_run(str(path))
    model = load_candidate(stored, stored.chosen)
    np.testing.assert_allclose(model.predict(preds), model.predictor.predict(preds) + 1.5)
    assert np.abs(model.predictor.predict(preds) - np.median(preds, axis=1)).max() < 1
    require_same_code(run.config, run.manifest)
    user_file.write_text(USER_CODE + "\n\nVERSION = 2\n")
    assert run_of(path).name != run.name
    with pytest.raises(DataError, match=r"code in mine\.py has changed since the run"):
        require_same_code(run.config, run.manifest)


READS = """
from pathlib import Path
import numpy as np

def read(name):
    return float(Path(f"{Path(__file__).parent}/data/{name}.txt").read_text())

def score(y_true, y_pred):
    return read("metric") * float(np.sqrt(np.nanmean((y_true - y_pred) ** 2)))

def fixed(preds, y, folds):
    return [read("candidate"), 0.2, 0.3]

def up(y_pred):
    return y_pred + read("postprocess")
"""


@pytest.mark.parametrize("name", ["metric", "candidate", "postprocess"])
def test_a_run_is_built_again_after_an_edit_of_a_file_that_user_code_opened_for_it(tmp_path, name):
    """No string in the code names it."""
    data = tmp_path / "data"
    data.mkdir()
    for each in ("metric", "candidate", "postprocess"):
        (data / f"{each}.txt").write_text("0.5")
    (tmp_path / "mine.py").write_text(READS)
    roles = {"metric": "mine.py:score", "greater_is_better": False}
    submissions = {"default": "mine.py:fixed", "postprocess": "mine.py:up", "stack": False}
    path = fake_competition(tmp_path, 90, competition=roles, submissions=submissions)
    before = finished(path)
    assert before.built
    require_same_code(before.config, before.manifest)
    (data / f"{name}.txt").write_text("0.75")
    with pytest.raises(DataError, match=rf"data/{name}\.txt, which your code opened, changed since the run"):
        require_same_code(before.config, before.manifest)
    assert (
        compare(before.config)[1]["runs"][0]["cross_fitted_score"] is None
    )  # its metric is in the edited file
    new_process()
    after = run_of(path)
    assert (after.name, after.built) == (before.name, None)
    line = f"data/{name}.txt: changed since the submission was built, so it was built again"
    assert line in build(after)
    assert after.built and after.choice.submitted != before.choice.submitted
    assert line not in build(run_of(path))


@pytest.mark.parametrize(
    ("submissions", "default"),
    [({"candidates": ["mine.py:broken"]}, "shrunk_ridge"), ({"default": "mine.py:broken"}, "mean")],
)
def test_a_candidate_that_raises_is_left_out_and_the_mean_replaces_a_default_that_raises(
    tmp_path, submissions, default
):
    (tmp_path / "mine.py").write_text(USER_CODE)
    run = opened(tmp_path, submissions=submissions)
    lines = build(run)
    assert lines[0].startswith("WARNING: mine.py:broken is left out: ConfigError: ")
    assert lines[0].endswith("ValueError in line 17: not today.")
    assert "mine.py:broken" not in run.candidates
    assert run.choice.default == default


@pytest.mark.parametrize("name", ["picky_in_folds", "picky_on_test_rows"])
def test_a_candidate_that_cannot_predict_held_out_or_test_rows_is_left_out(tmp_path, name):
    (tmp_path / "mine.py").write_text(USER_CODE)
    run = opened(tmp_path, 93, submissions={"candidates": [f"mine.py:{name}"], "stack": False})
    lines = build(run)
    assert lines[0] == (
        f"WARNING: mine.py:{name} is left out: ValueError: expected finite predictions, got NaN or infinite values"
    )
    assert f"mine.py:{name}" not in run.candidates
    assert run.exit_status == 3


def test_a_default_that_needs_all_columns_is_submitted_without_its_comparison_with_fewer(tmp_path):
    (tmp_path / "mine.py").write_text(USER_CODE)
    run = opened(tmp_path, submissions={"default": "mine.py:fixed", "margin": 100, "stack": False})
    lines = build(run)
    assert lines[0].startswith(
        "The leave-one-stage-out blends are left out: ConfigError: mine.py:fixed must return weights (2,)"
    )
    assert (run.chosen, run.choice.ablation, run.exit_status) == ("mine.py:fixed", {}, 0)


def test_post_processing_whose_results_are_no_probabilities_is_not_applied(tmp_path):
    (tmp_path / "mine.py").write_text(USER_CODE)
    run = finished(fake_classes(tmp_path, "binary", "roc_auc", submissions={"postprocess": "mine.py:up"}))
    assert run.chosen == "mean"
    (line,) = [
        line for line in run.choice.failed if line.startswith("WARNING: best_single is left out: DataErr")
    ]
    assert "predictions are from 1.5" in line and line.endswith("probabilities must be from 0 to 1")


def test_post_processing_that_fails_on_test_rows_is_not_applied_then_or_later(tmp_path):
    (tmp_path / "mine.py").write_text(USER_CODE)
    run = opened(tmp_path, submissions={"postprocess": "mine.py:half"})
    lines = build(run)
    assert "WARNING: submissions.postprocess is not applied to the mean." in lines
    assert (run.chosen, run.exit_status) == ("mean", 3)
    preds = run.columns.preds[:5]
    np.testing.assert_allclose(load_candidate(run, "mean").predict(preds), preds.mean(axis=1))


# Stacks


def test_a_chosen_stack_is_submitted_and_a_stored_one_predicts_what_was_written(done, monkeypatch):
    monkeypatch.setattr(selection, "select", lambda *_: (LIGHTGBM_STACK, "made up"))
    monkeypatch.setattr(stacks, "best_n_trees", lambda losses: len(losses) - 1)  # every correction is used
    run = built(fake_competition(done.parent, submissions={"trials": 9}))
    assert run.chosen == LIGHTGBM_STACK
    preds = run.columns.test
    predicted = load_candidate(run, LIGHTGBM_STACK).predict(preds)
    for file in ("submission.csv", "candidates/lightgbm_stack.csv"):
        np.testing.assert_allclose(predicted, submitted(run, file), rtol=1e-6)
    assert (predicted != load_candidate(run, "shrunk_ridge").predict(preds)).any(axis=0).all()
    (run.folder / "candidates" / "lightgbm_stack.json").write_text("{}")
    with pytest.raises(DataError, match=r"candidates/lightgbm_stack\.json is missing or has changed"):
        load_candidate(run, LIGHTGBM_STACK)


@pytest.mark.parametrize("n_other_folds", [{3}, {1, 2}])
def test_a_stack_without_a_scored_correction_is_left_out_with_the_reason(done, monkeypatch, n_other_folds):
    """Corrections are found on all rows alone, where no held-out row tries them, or without each fold alone."""
    monkeypatch.setattr(stacks, "best_n_trees", lambda losses: 3 * (len(losses[0]) in n_other_folds))
    run = built(fake_competition(done.parent, submissions={"margin": 0.0}))
    assert LIGHTGBM_STACK not in run.candidates
    words = "lightgbm_stack is left out: its trees do not help, so that it equals shrunk_ridge."
    assert run.choice.failed == [words]


# Choice


def test_the_default_is_compared_with_itself_without_a_stage(tmp_path):
    stages = {
        name: {**TREES, "parameters": {"num_leaves": 7 + i}}
        for i, name in enumerate(("good", "fair", "poor"))
    }
    submissions = {"stack": False, "default": "mean", "margin": 1e6}
    run = finished(fake_competition(tmp_path, stages=stages, submissions=submissions))
    columns, choice = run.columns, run.choice
    kept_stages = {"fair": ["good", "poor"], "good": ["fair", "poor"], "poor": ["good", "fair"]}
    assert choice.ablation.keys() == kept_stages.keys()
    default = choice.submitted.score
    for name, kept in kept_stages.items():
        record = choice.ablation[name]
        score = run.metric(columns.y, np.mean([columns.stage_oof(stage) for stage in kept], axis=0))
        assert (record.score, record.difference) == pytest.approx((score, score - default))
    good = choice.ablation["good"]
    assert good.difference > 3 * good.standard_error  # the best stage is missed, clearly
    best, score = choice.stages["good"], run.metric(columns.y, columns.stage_oof("good"))
    assert choice.best_stage == "good"
    assert (best.score, best.difference) == pytest.approx((score, score - default))
    assert best.standard_error > 0


def test_both_sides_of_the_gain_of_a_stage_have_the_settings_that_were_tuned_on_all_rows(tmp_path):
    """Settings that were tuned without a fold are a little worse there, as if the stage had cost that."""
    run = finished(fake_competition(tmp_path, submissions={"stack": False}))
    columns = run.columns
    default = run.choice.ablation["poor"].score - run.choice.ablation["poor"].difference
    tuned = load_candidate(run, "shrunk_ridge").predictor.settings
    assert tuned
    fixed = replace(columns, tuned=tuple(tuned))
    fit = cross_fit(fixed, partial(fit_candidate, fixed, "shrunk_ridge"))
    assert default == pytest.approx(columns.score(fit.scored))
    assert default < run.choice.candidates["shrunk_ridge"].score


# Standard deviations


def test_the_disagreement_is_the_standard_deviation_over_submissions_of_one_model_per_stage(
    tmp_path,
):
    """`good` has two seeds and `fair` one, three folds: six members, `fair` twice in each of its folds."""
    stages = {"good": {**TREES, "seeds": [0, 1], "final_fit": "both"}, "fair": TREES}
    submissions = {"stack": False, "default": "mean", "margin": 1e6}
    run = finished(fake_competition(tmp_path, stages=stages, submissions=submissions))
    ids, key = run.columns.test_ids, run.plan.test_key
    jobs = {(job.stage, job.seed, job.fold): job.test_file(key) for job in run.plan.jobs}
    of = {job: read_predictions(file, ids, TARGETS) for job, file in jobs.items()}
    members = [(of["good", seed, fold] + of["fair", 0, fold]) / 2 for seed in (0, 1) for fold in range(3)]
    table = by_id(run.folder / "spread.csv")
    assert list(table.index) == ids
    expected = np.std(members, axis=0, ddof=1)
    np.testing.assert_allclose(table[TARGETS], expected, rtol=1e-9)
    halved = replace(load_candidate(run, run.chosen), correction=np.array([[1.0, 1.0], [0.5, 0.5]]))
    table = std_table(run.plan, halved, run.columns.names, key, ids)
    np.testing.assert_allclose(table[TARGETS], expected / 2, rtol=1e-9)


def test_standard_deviations_of_a_stage_are_beside_the_disagreement_and_their_coverage_is_in_the_report(
    tmp_path,
):
    stages = {"gp": {"kind": "gp", "kernels": []}}
    path = fake_competition(tmp_path, stages=stages, submissions={"stack": False})
    train_all(path)
    run = built(path)
    files = [std_file(job.test_file(run.plan.test_key)) for job in run.plan.jobs]
    expected = np.mean([read_predictions(file, run.columns.test_ids, TARGETS) for file in files], axis=0)
    table = by_id(run.folder / "spread.csv")
    assert list(table) == [*TARGETS, "height std of gp", "Depth std of gp"]
    np.testing.assert_allclose(table.iloc[:, 2:], expected, rtol=1e-9)
    assert 0.8 < expected.mean() < 1.4  # the noise of the labels is 1
    (coverage,) = [part for part in prediction_section(run) if isinstance(part, Table)]
    for target, row in zip(TARGETS, coverage.rows, strict=True):
        assert row[:2] == ["gp", target]
        assert 0.55 < float(row[2]) < 0.8 and 0.88 < float(row[3]) < 1
