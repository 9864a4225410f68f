"""The score to expect on the test table: the variance of the fold models, and the rows of both tables."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from competition.dataset import EXTRA
from competition.files import read_table, write_table
from competition.metrics import METRICS, get_metric
from competition.task import Task
from competition.types import Array
from folds.similarity import Similarity
from models.jobs.job_files import read_predictions
from submissions import expected_score
from submissions.expected_score import less_variance, mean_gap, of_fold_models, score_of_similar_rows
from submissions.predictor import load_model
from submissions.run import CHOICE
from submissions.selection import selection_rule
from tests.submissions.fakes import built, fake_classes, fake_competition, prepare_and_fake_jobs

NAN = float("nan")


def test_errors_are_scaled_until_their_mean_square_is_lower_by_the_variance() -> None:
    y = np.array([[0.0, 1.0], [0.0, NAN], [0.0, 1.0]])
    y_pred = np.array([[1.0, 1.0], [1.0, 5.0], [2.0, 1.0]])
    corrected = less_variance(y, y_pred, np.array([1.5, 0.3]))
    # target 0: mean square 2, so errors times sqrt(.5 / 2); target 1 has no error that could be lower
    np.testing.assert_allclose(corrected[:, 0], [0.5, 0.5, 1.0])
    np.testing.assert_array_equal(corrected[:, 1], y_pred[:, 1])
    assert METRICS["mse"](y[:, :1], corrected[:, :1]) == pytest.approx(0.5)
    np.testing.assert_array_equal(less_variance(y, y_pred, np.array([9.0, 9.0]))[:, 0], y[:, 0])


def test_a_mean_of_models_has_the_score_that_is_expected_of_it() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(20_000, 1))
    models = 0.8 * y + rng.normal(scale=0.5, size=(5, 20_000, 1)) + rng.normal(scale=0.3, size=y.shape)
    variance = models.var(axis=0).mean(axis=0)
    for name, tolerance in (
        ("rmse", 0.01),
        ("mae", 0.01),
        ("r2", 0.01),
        ("pearson", 0.02),
        ("spearman", 0.02),
    ):
        expected = METRICS[name](y, less_variance(y, models[0], variance))
        assert expected == pytest.approx(METRICS[name](y, models.mean(axis=0)), abs=tolerance)
        assert abs(METRICS[name](y, models[0]) - expected) > 0.04


@pytest.mark.parametrize(
    ("problem_type", "models"),
    [
        ("binary", [[[0.5]], [[0.9]]]),
        ("multilabel", [[[0.5, 0.2]], [[0.9, 0.2]]]),
        ("multiclass", [[[0.5, 0.5]], [[0.9, 0.1]]]),
    ],
)
def test_the_loss_of_a_mean_of_probabilities_is_lower_by_the_divergence_of_its_members(
    problem_type: Any, models: list
) -> None:
    task = Task(["a", "b"] if problem_type == "multilabel" else ["a"], None, problem_type, ["0", "1"])
    metric = get_metric("log_loss", problem_type)
    assert metric is not None
    of_first = 0.7 * np.log(0.7 / np.array([0.5, 0.9])) + 0.3 * np.log(0.3 / np.array([0.5, 0.1]))
    expected = of_first.mean() / (2 if problem_type == "multilabel" else 1)
    assert mean_gap(metric, task, np.array(models)) == pytest.approx(expected)


def test_held_out_rows_count_by_the_odds_that_a_row_of_their_similarity_is_a_test_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "work"))
    path = fake_competition(tmp_path, n_train=200, n_test=100, submissions={"stack": False})
    prepare_and_fake_jobs(path)
    run = built(path)
    assert run.part(CHOICE)["expected"]["similar_rows"] is None  # without molecules and texts
    rule = selection_rule(run)
    is_near = np.arange(200) % 2 == 0
    y_pred = rule.y + np.where(is_near, 1.0, 3.0)[:, None]  # errors of 1 near training rows, else of 3
    held_out = np.where(is_near, 0.9, 0.2)
    rng = np.random.default_rng(0)
    for test, expected in ((np.full(100, 0.9), (1.0, 1.6)), (rng.choice([0.9, 0.2], 100), (2.0, 2.5))):
        made_up = Similarity("made up", test, {"kfold": test}, {"kfold": held_out}, {"kfold": np.arange(200)})
        monkeypatch.setattr(expected_score, "similarities", lambda *_, found=made_up: [found])
        similar_rows = score_of_similar_rows(run, rule, y_pred)
        assert similar_rows is not None
        assert expected[0] < similar_rows["score"] < expected[1]  # rmse; of all rows 2.24
    y_pred = rule.y + np.repeat(rng.normal(size=20), 10)[:, None]  # ten rows have the same error
    errors = []
    for groups in (np.arange(200), np.arange(200) // 10):
        similar_rows = score_of_similar_rows(run, replace(rule, groups=groups), y_pred)
        assert similar_rows is not None
        errors.append(similar_rows["standard_error"])
    assert errors[1] / errors[0] == pytest.approx(np.sqrt(10), rel=0.3)
    perfect = score_of_similar_rows(run, rule, rule.y)
    assert perfect == {"score": 0.0, "standard_error": 0.0}
    extra = read_table(run.paths.train).assign(**{EXTRA: np.repeat([0, 1], [150, 50])})
    monkeypatch.setattr(expected_score, "read_table", lambda file: extra)
    n_rows = []
    monkeypatch.setattr(expected_score, "similarities", lambda rows, *_: n_rows.append(len(rows)))
    score_of_similar_rows(run, rule, y_pred)
    assert n_rows == [150]  # rows of extra_train are in no fold


def test_the_report_leads_with_it_and_its_error_counts_the_rows_of_both_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "work"))
    path = fake_competition(tmp_path, n_train=150, n_test=30, submissions={"stack": False, "postprocess": []})
    prepare_and_fake_jobs(path)
    run = built(path)
    choice = run.part(CHOICE)
    models = of_fold_models(run, load_model(run))
    assert models.shape == (run.plan.n_folds, 30, 2)
    first_fold = [job for job in run.plan.jobs if job.fold == 0]
    stages = list(run.config.stages)
    preds = np.stack(
        [_mean_of_seeds(run, [job for job in first_fold if job.stage == stage]) for stage in sorted(stages)],
        axis=1,
    )
    np.testing.assert_allclose(models[0], load_model(run).candidate(preds))
    np.testing.assert_allclose(models.mean(axis=0), load_model(run).candidate(run.stage_predictions.test))
    score, error = run.expected_score
    assert score < choice["procedure"]["cross_fitted_score"]  # rmse
    assert error > choice["procedure"]["standard_error"]


def test_it_needs_no_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "work"))
    path = fake_competition(tmp_path, submissions={"stack": False})
    prepare_and_fake_jobs(path)
    files = []
    for _ in range(2):
        run = built(path)
        files.append(
            [(run.folder / name).read_bytes() for name in ("run.json", "submission.csv", "spread.csv")]
        )
        (tmp_path / "answers.csv").unlink(missing_ok=True)
        shutil.rmtree(run.folder)
    assert files[0] == files[1]


def _mean_of_seeds(run: Any, jobs: list) -> Array:
    ids = run.stage_predictions.test_ids
    files = [job.test_file(run.plan.test_key) for job in jobs]
    return np.mean([read_predictions(file, ids, run.task.outputs) for file in files], axis=0)


def test_scores_of_labels_are_not_corrected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "work"))
    path = fake_classes(tmp_path, "multiclass", "accuracy")
    prepare_and_fake_jobs(path)
    run = built(path)
    procedure = run.part(CHOICE)["procedure"]
    score, error = run.expected_score
    assert score == procedure["cross_fitted_score"]
    assert error > procedure["standard_error"]


def test_far_test_rows_do_not_promise_more_than_independent_errors(tmp_path: Path) -> None:
    """Predictions of the fold models differ by thousands on the test table, and the errors out of fold are about 1."""
    path = fake_competition(tmp_path, submissions={"stack": False})
    plan = prepare_and_fake_jobs(path)
    for job in plan.jobs:
        file = job.test_file(plan.test_key)
        table = read_table(file)
        numbers = table.columns.drop("id")
        write_table(file, table.assign(**{name: table[name] + 1e3 * job.fold for name in numbers}))
    choice = built(path).stored[CHOICE]
    lowest = choice["procedure"]["cross_fitted_score"] * np.sqrt(1 / plan.n_folds)
    assert choice["expected"]["score"] == pytest.approx(lowest, rel=1e-6)
    assert choice["expected"]["standard_error"] > 0
