"""What a run chooses: candidates, stacks, post-processing, and what the submission is held against."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from competition.errors import DataError
from competition.files import read_json, read_table, read_text_table, write_json, write_table
from competition.metrics import METRICS
from models.jobs.job_files import read_predictions
from submissions import selection
from submissions.blend import stacks
from submissions.blend.candidates import CANDIDATES, REGRESSION_CANDIDATES
from submissions.blend.cross_fitting import cross_fitted
from submissions.blend.selection_rule import SelectionResult
from submissions.blend.stacks import LIGHTGBM_STACK
from submissions.build_submission import build_submission
from submissions.predictor import load_candidate, load_model
from submissions.report.score_sections import ablation
from submissions.run import MANIFEST, latest_run, require_same_code
from submissions.selection import blend_data
from tests.submissions.fakes import (
    built,
    fake_classes,
    fake_competition,
    opened,
    prepare_and_fake_jobs,
    run_of,
    submitted,
)

TREES = {"kind": "lightgbm"}


# Candidates


USER_CODE = """
from __future__ import annotations
from dataclasses import dataclass
import numpy as np
from sklearn.isotonic import IsotonicRegression

@dataclass
class Trimmed:
    part: float
    def predict(self, P):
        return np.clip(np.median(P, axis=1), P.mean(axis=1) - self.part, P.mean(axis=1) + self.part)

@dataclass
class Up:
    by: float
    def predict(self, y_pred):
        return y_pred + self.by

def trimmed(P, y, metric, folds, weights):
    return Trimmed(0.1)

def up(y_pred, y):
    return Up(1.5)

@dataclass
class Curve:
    x: np.ndarray
    y: np.ndarray
    def predict(self, y_pred):
        return np.interp(y_pred, self.x, self.y)

def curve(y_pred, y):
    found = IsotonicRegression().fit(y_pred, y)
    return Curve(found.X_thresholds_, found.y_thresholds_)

def score(y_true, y_pred):
    assert y_true.shape[1] == 2
    return float(np.nanmean(np.abs(y_true - y_pred) * [1.0, 3.0]))
"""


def test_all_candidates_and_user_defined_code_go_all_the_way(tmp_path: Path) -> None:
    user_file, names = tmp_path / "mine.py", [*REGRESSION_CANDIDATES, "mine.py:trimmed"]
    user_file.write_text(USER_CODE)
    settings = {"candidates": names, "weight_trials": 3, "postprocess": ["mine.py:up"]}
    roles = {"metric": "mine.py:score", "greater_is_better": False}
    run = opened(tmp_path, 90, competition=roles, submissions=settings, folds={"n_folds": 4})
    built(tmp_path / "mixed.yaml")
    choice = run.part("choice")
    assert list(run.part("blend")["candidates"]) == sorted(names)
    assert set(choice["candidates"]) == {*names, LIGHTGBM_STACK}
    for name in names:
        assert np.isfinite(load_candidate(run, name)(run.stage_predictions.test)).all()
    (tried,) = choice["postprocessing"]["height"]
    assert (tried["step"], tried["kept"]) == ("mine.py:up", False)
    stored = run.stored | {"choice": choice | {"chosen": "mine.py:trimmed"}}
    write_json(run.folder / MANIFEST, stored)
    stored = latest_run(str(tmp_path / "mixed.yaml"))
    preds, inputs = run.stage_predictions.test, run.stage_predictions.test_inputs
    assert np.abs(load_model(stored).predict(preds, inputs) - np.median(preds, axis=1)).max() < 1
    require_same_code(run.config, run.stored)
    user_file.write_text(USER_CODE + "\n\nVERSION = 2\n")
    assert run_of(tmp_path / "mixed.yaml").name != run.name
    with pytest.raises(DataError, match=r"code in mine\.py has changed since the run"):
        require_same_code(run.config, run.stored)


def test_seeds_are_one_column_or_several_and_weights_may_be_shared(tmp_path: Path) -> None:
    several_seeds = {
        "good": {**TREES, "seeds": [0, 1]},
        "fair": {**TREES, "seeds": [0, 10, 2]},
        "poor": TREES,
    }
    one = opened(tmp_path, stages=several_seeds).stage_predictions
    settings = {"seeds": "separate", "weights": "shared", "margin": 100, "stack": False}
    separate = built(fake_competition(tmp_path, stages=several_seeds, submissions=settings))
    several = separate.stage_predictions
    assert one.names == ["fair", "good", "poor"]
    assert several.names == ["fair:0", "fair:10", "fair:2", "good:0", "good:1", "poor"]
    for stage in one.names:
        np.testing.assert_allclose(several.stage_oof(stage), one.stage_oof(stage), rtol=1e-12)
        np.testing.assert_allclose(several.stage_test(stage), one.stage_test(stage), rtol=1e-12)
    oof = pd.concat(
        [pd.read_parquet(job.oof_file) for job in separate.plan.jobs_of_stage("fair") if job.seed == 10]
    )
    assert several.oof[:, 1, 1].tolist() == oof.set_index("id").loc[several.ids, "depth"].tolist()
    part = separate.part("blend")
    weights = [each["weights"] for each in part["candidates"].values()]
    assert all(of["height"] == of["depth"] and set(of["height"]) == set(several.names) for of in weights)
    assert sorted(part["drop_one"]) == ["fair", "good", "poor"]
    y_pred = load_model(separate).predict(several.test, several.test_inputs)
    np.testing.assert_allclose(y_pred, submitted(separate), rtol=1e-6)


# Stacks


@pytest.mark.parametrize("step", ["stack", "blend"])
def test_the_chosen_stack_or_blend_is_the_submission(
    done: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    select_candidate = selection.select_candidate
    chosen = {"stack": LIGHTGBM_STACK, "blend": "shrunk_ridge"}[step]

    def select_chosen(*args: Any) -> SelectionResult:
        return dataclasses.replace(select_candidate(*args), chosen=chosen)

    monkeypatch.setattr(selection, "select_candidate", select_chosen)
    run = built(fake_competition(done.parent, submissions={"margin": 0.0, "postprocess": []}))
    assert run.chosen == run.part(step)["chosen"] == chosen
    assert (run.folder / "submission.csv").read_bytes() == (run.folder / f"{step}.csv").read_bytes()


def test_a_stored_stack_predicts_what_was_written(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "best_n_trees", lambda losses: len(losses) - 1)  # every correction is used
    run = built(fake_competition(done.parent, submissions={"trials": 9}))
    P = run.stage_predictions.test
    predicted = load_candidate(run, LIGHTGBM_STACK)(P)
    np.testing.assert_allclose(predicted, submitted(run, "stack.csv"), rtol=1e-6)
    assert (predicted != load_candidate(run, "shrunk_ridge")(P)).any(axis=0).all()
    (run.folder / "fitted" / "lightgbm_stack.json").write_text("{}")
    with pytest.raises(DataError, match=r"fitted/lightgbm_stack\.json is missing or has changed"):
        load_candidate(run, LIGHTGBM_STACK)


@pytest.mark.parametrize("only", ["all rows", "without a fold"])
def test_a_stack_without_a_scored_correction_is_the_default_and_is_not_chosen(
    done: Path, monkeypatch: pytest.MonkeyPatch, only: str
) -> None:
    """Corrections are found on all rows alone, where no held-out row tries them, or without each fold alone."""
    expected = {3} if only == "all rows" else {1, 2}
    monkeypatch.setattr(stacks, "best_n_trees", lambda losses: 3 if len(losses[0]) in expected else 0)
    run = built(fake_competition(done.parent, submissions={"margin": 0.0}))
    choice = run.part("choice")
    assert choice["same_as_default"] == [LIGHTGBM_STACK]
    assert choice["chosen"] != LIGHTGBM_STACK
    assert read_json(run.folder / "fitted" / "lightgbm_stack.json")["corrections"] == [None, None]
    assert (choice["candidates"][LIGHTGBM_STACK]["difference"] != 0) == (only == "without a fold")
    default = load_candidate(run, "shrunk_ridge")(run.stage_predictions.test)
    np.testing.assert_allclose(submitted(run, "stack.csv"), default, rtol=1e-6)


# Choice and post-processing


def test_what_is_submitted_is_post_processed_and_a_stored_run_repeats_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(USER_CODE)
    settings = {"stack": False, "postprocess": ["mine.py:curve", "clip"]}
    path = fake_competition(tmp_path, folds={"n_folds": 5}, submissions=settings)
    prepare_and_fake_jobs(path, lambda y: np.exp(y / 3))
    run = built(path)
    choice = run.part("choice")
    assert "mine.py:curve" in [tried["step"] for tried in choice["postprocessing"]["height"] if tried["kept"]]
    chosen = choice["candidates"][choice["chosen"]]["cross_fitted_score"]
    assert max(choice["cross_fitted_score"], choice["procedure"]["cross_fitted_score"]) < chosen
    assert (run.folder / "submission.csv").read_bytes() != (run.folder / "blend.csv").read_bytes()
    labels = read_table(run.paths.train)["height"]
    assert (
        read_table(run.folder / "submission.csv", ["id"])["height"].between(labels.min(), labels.max()).all()
    )
    predicted = load_model(latest_run(str(path))).predict(
        run.stage_predictions.test, run.stage_predictions.test_inputs
    )
    np.testing.assert_allclose(predicted, submitted(run), rtol=1e-6)


@pytest.mark.parametrize(("metric", "known"), [("rmse", "11.5"), ("log_loss", "1.0"), ("f1", "yes")])
def test_known_labels_are_used_if_configured_and_nowhere_else(
    tmp_path: Path, metric: str, known: str
) -> None:
    """They are means of labels, or of classes their shares or the likeliest one; one of the two rows has
    depth none.
    """
    settings, labels = (
        {"stack": False, "postprocess": []},
        ["height", "depth"] if metric == "rmse" else ["mood"],
    )
    if metric == "rmse":
        path, cells = fake_competition(tmp_path, submissions=settings), [["10", ""], ["13", ""]]
    else:
        path, cells = fake_classes(tmp_path, "binary", metric, submissions=settings), [["yes"], [""]]
    table, test = read_text_table(tmp_path / "train.csv"), read_text_table(tmp_path / "test.csv")
    table.loc[[2, 3], ["x", "z", *labels]] = [["7", "8", *row] for row in cells]
    test.loc[6, ["x", "z"]] = ["7", "8"]
    write_table(tmp_path / "train.csv", table)
    write_table(tmp_path / "test.csv", test)
    prepare_and_fake_jobs(path)
    without = built(path)
    path.write_text(path.read_text().replace("postprocess: []", "postprocess: [known_labels]"))
    runs = without, built(path)
    files = [read_text_table(run.folder / "submission.csv") for run in runs]
    assert files[1].loc[6, labels[0]] == known and (metric == "f1" or files[0].loc[6, labels[0]] != known)
    assert files[1].loc[6, labels[1:]].equals(files[0].loc[6, labels[1:]])
    assert files[1].drop(6).equals(files[0].drop(6))
    assert len({run.part("choice")["procedure"]["cross_fitted_score"] for run in runs}) == 1


def test_a_run_is_compared_with_itself_without_a_stage_the_best_stage_and_the_run_before(done: Path) -> None:
    first = run_of(done)
    part, stage_preds, choice = first.part("blend"), first.stage_predictions, first.part("choice")
    worth, default = part["drop_one"], part["candidates"]["shrunk_ridge"]
    y_pred = cross_fitted(
        CANDIDATES["shrunk_ridge"], blend_data(first, stage_preds.oof[:, ~stage_preds.stage_mask("good")])
    )
    assert worth["good"]["cross_fitted_score"] == pytest.approx(METRICS["rmse"](stage_preds.y, y_pred))
    for each in worth.values():
        assert each["difference"] == pytest.approx(each["cross_fitted_score"] - default["cross_fitted_score"])
    assert (
        worth["good"]["difference"] > 3 * worth["good"]["standard_error"]
    )  # the best stage is missed, clearly
    assert worth["good"]["difference"] > worth["fair"]["difference"] > worth["poor"]["difference"]

    single, score = choice["against"]["best_single"], choice["procedure"]["cross_fitted_score"]
    assert single["name"] == "good"
    assert single["cv_score"] == pytest.approx(METRICS["rmse"](stage_preds.y, stage_preds.stage_oof("good")))
    assert single["difference"] == pytest.approx(score - single["cv_score"])
    assert single["standard_error"] > 0
    assert choice["against"]["previous_run"] is None
    settings = {"default": "mean", "margin": 9.0, "stack": False}
    choice = built(fake_competition(done.parent, submissions=settings)).part("choice")
    previous = choice["against"]["previous_run"]
    assert previous["name"] == first.name
    assert previous["difference"] == pytest.approx(choice["procedure"]["cross_fitted_score"] - score)
    before = latest_run("mixed")
    (before.folder / "cross_fitted.csv").write_text(
        "id\n"
    )  # an earlier run that was changed is none to compare with
    choice = built(fake_competition(done.parent, submissions={**settings, "margin": 8.0})).part("choice")
    assert choice["against"]["previous_run"] is None


def test_stages_with_the_same_weights_are_left_out_together(tmp_path: Path) -> None:
    with_minimol = {**TREES, "features": ["morgan", {"encoder": "minimol"}]}
    stages = {"good": with_minimol, "fair": {**with_minimol, "num_leaves": 7}, "poor": {**TREES}}
    run = opened(tmp_path, stages=stages, submissions={"stack": False})
    build_submission(run)
    (record,) = run.part("blend")["drop_family"].values()
    oof = run.stage_predictions.oof[:, run.stage_predictions.stage_mask("poor")]
    y_pred = cross_fitted(CANDIDATES["shrunk_ridge"], blend_data(run, oof))
    assert record["cross_fitted_score"] == pytest.approx(METRICS["rmse"](run.stage_predictions.y, y_pred))
    last = ablation(run)[0].rows[-1]  # type: ignore[union-attr]
    assert last[0] == "minimol: good, fair"
    assert float(last[2]) == pytest.approx(record["difference"], rel=1e-3)


def test_the_disagreement_is_the_standard_deviation_over_submissions_of_one_model_per_stage(
    tmp_path: Path,
) -> None:
    """`good` has two seeds and `fair` one, three folds: six members, `fair` twice in each of its folds."""
    stages = {"good": {**TREES, "num_leaves": 4, "seeds": [0, 1], "final_fit": "both"}, "fair": {**TREES}}
    opened(tmp_path, stages=stages, submissions={"stack": False, "default": "mean", "margin": 1e6})
    run = built(tmp_path / "mixed.yaml")
    ids, targets = run.stage_predictions.test_ids, run.task.targets
    jobs = {(job.stage, job.seed, job.fold): job.test_file(run.plan.test_key) for job in run.plan.jobs}
    of = {job: read_predictions(file, ids, targets) for job, file in jobs.items()}
    members = [(of["good", seed, fold] + of["fair", 0, fold]) / 2 for seed in (0, 1) for fold in range(3)]
    table = read_table(run.folder / "spread.csv", ["id"])
    assert list(table["id"]) == ids
    np.testing.assert_allclose(table[targets], np.std(members, axis=0, ddof=1), rtol=1e-9)
