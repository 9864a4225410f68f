"""What a run chooses: candidates, stacks, and what the submission is held against."""

from pathlib import Path

import numpy as np
import pytest

from competition.metrics import METRICS
from core.errors import DataError
from core.files import read_table, write_json
from models.jobs.predictions import read_predictions
from submissions.blend import selection
from submissions.blend import stack as stacks
from submissions.blend.candidates import CANDIDATES, LIGHTGBM_STACK
from submissions.build import build_submission
from submissions.predict import load_candidate
from submissions.report.scores import load_answers, score_section
from submissions.run import MANIFEST, latest_run, require_same_code
from tests.submissions.fakes import built, fake_competition, opened, prepare_and_fake_jobs, run_of, submitted

TREES = {"kind": "lightgbm"}


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

def up(y_pred):
    return y_pred + 1.5

def score(y_true, y_pred):
    assert y_true.shape[1] == 2
    return float(np.nanmean(np.abs(y_true - y_pred) * [1.0, 3.0]))
"""
NUMBERS = [name for name in CANDIDATES if name != "shrunk_logits"]


def test_all_candidates_and_user_defined_code_go_all_the_way(tmp_path: Path) -> None:
    user_file, names = tmp_path / "mine.py", [*NUMBERS, "mine.py:trimmed"]
    user_file.write_text(USER_CODE)
    roles = {"metric": "mine.py:score", "greater_is_better": False}
    submissions = {"candidates": names}
    run = opened(tmp_path, 90, competition=roles, submissions=submissions, folds={"n_folds": 4})
    built(tmp_path / "mixed.yaml")
    assert [name for name in run.candidates if name != LIGHTGBM_STACK] == [*NUMBERS, "mine.py:trimmed"]
    preds = run.columns.test
    for name in names:
        assert np.isfinite(load_candidate(run, name).predict(preds)).all()
    write_json(run.folder / MANIFEST, run.stored | {"choice": run.choice | {"chosen": "mine.py:trimmed"}})
    stored = latest_run(str(tmp_path / "mixed.yaml"))
    assert (
        np.abs(
            load_candidate(stored, stored.chosen).predictor.predict(preds) - np.median(preds, axis=1)
        ).max()
        < 1
    )
    require_same_code(run.config, run.stored)
    user_file.write_text(USER_CODE + "\n\nVERSION = 2\n")
    assert run_of(tmp_path / "mixed.yaml").name != run.name
    with pytest.raises(DataError, match=r"code in mine\.py has changed since the run"):
        require_same_code(run.config, run.stored)


@pytest.mark.parametrize("role", ["candidates", "default"])
def test_a_candidate_that_raises_is_left_out_and_the_mean_replaces_a_default_that_raises(
    tmp_path: Path, role: str
) -> None:
    (tmp_path / "mine.py").write_text(USER_CODE)
    submissions = (
        {"candidates": ["mine.py:broken"]} if role == "candidates" else {"default": "mine.py:broken"}
    )
    run = opened(tmp_path, 150, submissions=submissions)
    lines = build_submission(run)
    assert lines[0].startswith("WARNING: mine.py:broken is left out: ConfigError: ")
    assert lines[0].endswith("ValueError in line 17: not today.")
    assert "mine.py:broken" not in run.candidates
    assert run.choice["default"] == ("shrunk_ridge" if role == "candidates" else "mean")


def test_seeds_are_averaged(tmp_path: Path) -> None:
    stages = {"good": {**TREES, "seeds": [0, 1]}, "fair": {**TREES, "seeds": [0, 10, 2]}, "poor": TREES}
    stage_preds = opened(tmp_path, stages=stages).columns
    plan = run_of(tmp_path / "mixed.yaml").plan
    tables = [read_table(job.oof_file).set_index("id") for job in plan.jobs_of_stage("fair")]
    rows = stage_preds.ids.index(tables[0].index[0])
    cells = [table["depth"].iloc[0] for table in tables if table.index[0] == tables[0].index[0]]
    assert len(cells) == 3
    assert stage_preds.stage_oof("fair")[rows, 1] == pytest.approx(np.mean(cells), rel=1e-12)


# Stacks


@pytest.mark.parametrize("chosen", [LIGHTGBM_STACK, "convex"])
def test_the_submission_of_the_chosen_candidate_is_submitted(
    done: Path, monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    monkeypatch.setattr(selection, "select", lambda *_: (chosen, "made up"))
    monkeypatch.setattr(stacks, "best_n_trees", lambda losses: len(losses) - 1)  # every correction is used
    run = built(fake_competition(done.parent, submissions={"margin": 0.0}))
    assert run.chosen == chosen
    of_candidate = run.folder / "candidates" / f"{chosen}.csv"
    assert (run.folder / "submission.csv").read_bytes() == of_candidate.read_bytes()


def test_a_stored_stack_predicts_what_was_written(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "best_n_trees", lambda losses: len(losses) - 1)  # every correction is used
    run = built(fake_competition(done.parent, submissions={"trials": 9}))
    preds = run.columns.test
    predicted = load_candidate(run, LIGHTGBM_STACK).predict(preds)
    np.testing.assert_allclose(predicted, submitted(run, "candidates/lightgbm_stack.csv"), rtol=1e-6)
    assert (predicted != load_candidate(run, "shrunk_ridge").predict(preds)).any(axis=0).all()
    (run.folder / "candidates" / "lightgbm_stack.json").write_text("{}")
    with pytest.raises(DataError, match=r"candidates/lightgbm_stack\.json is missing or has changed"):
        load_candidate(run, LIGHTGBM_STACK)


@pytest.mark.parametrize("only", ["all rows", "without a fold"])
def test_a_stack_without_a_scored_correction_is_left_out_with_the_reason(
    done: Path, monkeypatch: pytest.MonkeyPatch, only: str
) -> None:
    """Corrections are found on all rows alone, where no held-out row tries them, or without each fold alone."""
    expected = {3} if only == "all rows" else {1, 2}
    monkeypatch.setattr(stacks, "best_n_trees", lambda losses: 3 if len(losses[0]) in expected else 0)
    run = built(fake_competition(done.parent, submissions={"margin": 0.0}))
    assert LIGHTGBM_STACK not in run.candidates
    assert run.choice["failed"] == [
        "lightgbm_stack is left out: its trees do not help, so that it equals shrunk_ridge."
    ]


# Choice


def test_what_is_submitted_is_post_processed_and_a_stored_run_repeats_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(USER_CODE)
    path = fake_competition(tmp_path, submissions={"stack": False, "postprocess": "mine.py:up"})
    prepare_and_fake_jobs(path)
    run = built(path)
    preds = run.columns.test
    stored = latest_run(str(path))
    model = load_candidate(stored, stored.chosen)
    np.testing.assert_allclose(model.predict(preds), submitted(run), rtol=1e-6)
    np.testing.assert_allclose(model.predictor.predict(preds) + 1.5, submitted(run), rtol=1e-6)


def test_a_run_is_compared_with_itself_without_a_stage_and_with_the_best_stage(done: Path) -> None:
    first = run_of(done)
    stage_preds, choice = first.columns, first.choice
    without, default = choice["ablation"], choice["candidates"]["shrunk_ridge"]
    assert [*without] == ["fair", "good", "poor"]
    for each in without.values():
        assert each["difference"] == pytest.approx(each["score"] - default["score"], abs=1e-3)
    assert (
        without["good"]["difference"] > 3 * without["good"]["standard_error"]
    )  # the best stage is missed, clearly
    assert without["good"]["difference"] > without["fair"]["difference"] > without["poor"]["difference"]

    assert choice["best_stage"] == "good"
    single, score = choice["stages"]["good"], choice["cross_fitted_score"]
    assert single["score"] == pytest.approx(METRICS["rmse"](stage_preds.y, stage_preds.stage_oof("good")))
    assert single["difference"] == pytest.approx(single["score"] - score)
    assert single["standard_error"] > 0


def test_stages_with_the_same_weights_are_left_out_together(tmp_path: Path) -> None:
    with_minimol = {**TREES, "features": ["morgan", {"encoder": "minimol"}]}
    stages = {
        "good": with_minimol,
        "fair": {**with_minimol, "parameters": {"num_leaves": 7}},
        "poor": {**TREES},
    }
    run = opened(tmp_path, stages=stages, submissions={"stack": False, "default": "mean"})
    build_submission(run)
    record = run.choice["ablation"]["minimol"]
    assert record["stages"] == ["good", "fair"]
    y_pred = run.columns.stage_oof("poor")
    assert record["score"] == pytest.approx(METRICS["rmse"](run.columns.y, y_pred))
    header, rows = score_section(run, load_answers(run))[0]  # type: ignore[misc]
    last = dict(zip(header, rows[-1], strict=True))
    assert last["stage or candidate"] == "minimol: good, fair"
    assert float(last["gain"].partition(" +-")[0]) == pytest.approx(record["difference"], rel=1e-3)


def test_the_disagreement_is_the_standard_deviation_over_submissions_of_one_model_per_stage(
    tmp_path: Path,
) -> None:
    """`good` has two seeds and `fair` one, three folds: six members, `fair` twice in each of its folds."""
    stages = {
        "good": {**TREES, "parameters": {"num_leaves": 4}, "seeds": [0, 1], "final_fit": "both"},
        "fair": {**TREES},
    }
    opened(tmp_path, stages=stages, submissions={"stack": False, "default": "mean", "margin": 1e6})
    run = built(tmp_path / "mixed.yaml")
    ids, targets = run.columns.test_ids, run.task.targets
    jobs = {(job.stage, job.seed, job.fold): job.test_file(run.plan.test_key) for job in run.plan.jobs}
    of = {job: read_predictions(file, ids, targets) for job, file in jobs.items()}
    members = [(of["good", seed, fold] + of["fair", 0, fold]) / 2 for seed in (0, 1) for fold in range(3)]
    table = read_table(run.folder / "spread.csv", ["id"])
    assert list(table["id"]) == ids
    np.testing.assert_allclose(table[targets], np.std(members, axis=0, ddof=1), rtol=1e-9)
