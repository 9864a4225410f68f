"""Test rows that differ from training rows: it is said, with the error of rows like them, and nothing leaks."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from competition.metrics import METRICS, load_user_metric
from core.files import read_table, write_table
from folds import compare
from folds.comparison import read_comparison
from models.jobs.run_job import predict_rows
from pipeline import commands, full, last_submission
from submissions.kaggle.ledger import page
from submissions.run import latest_run
from submissions.shift import error_of
from tests.conftest import write_competition
from tests.models.jobs.common import InlineExecutor
from tests.submissions.fakes import run_of

pytestmark = pytest.mark.usefixtures("jobs_in_process")

LINE = {"kind": "sklearn", "estimator": "sklearn.linear_model.Ridge"}


def curve(moved, n=400, n_test=150):
    """A curve that a line follows only near the middle; test rows are moved along it."""
    rng = np.random.default_rng(0)
    x = np.append(rng.normal(0.7, 1, n), rng.normal(0.7 + moved, 1, n_test))
    table = pd.DataFrame({"id": [f"r{i}" for i in range(len(x))], "x": x, "z": rng.normal(size=len(x))})
    return table.assign(y=x**2 + 0.3 * rng.normal(size=len(x)))[:n], table.assign(y=x**2)[n:]


def competition_of_curve(folder, moved, **roles):
    train, test = curve(moved)
    write_table(folder / "answers.csv", test[["id", "y"]])
    own = {"targets": ["y"], "smiles": [], "text": [], "numeric": ["x", "z"], "categorical": []}
    return write_competition(
        folder,
        train,
        test.drop(columns="y"),
        stages={"line": LINE},
        competition={**own, "answers": "answers.csv", **roles},
    )


@pytest.fixture
def moved(tmp_path, monkeypatch):
    """The YAML of a finished run whose test rows are moved."""
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "work"))
    path = competition_of_curve(tmp_path, moved=2.0)
    assert commands.main(["full", str(path), "--workers", "1"]) in (0, None)
    return path


def test_a_shift_is_said_first_and_the_range_holds_the_score_of_the_test_rows(moved, capsys):
    run = latest_run(str(moved))
    summary = (run.paths.report / "report.md").read_text().replace("\n", " ")
    start = summary.index("Test rows differ from training rows (AUC 0.")
    assert (
        summary.index("most in x")
        < summary.index("Expect rmse")
        < summary.index("times the error. Submitted")
    )
    assert summary[:start].count(".") < 3  # only the title is above
    expected = run.choice.expected
    shift = expected.shift
    truth = float(summary.partition("test_score: ")[2].split(",")[0])
    assert shift.factor > 1.3
    assert shift.score == pytest.approx(expected.score * shift.factor)
    assert expected.score * 1.2 < truth
    assert abs(np.log(truth / shift.score)) < abs(np.log(truth / expected.score))
    commands.main(["submit", str(moved)])
    assert page(run.config.competition).startswith(shift.sentence)
    (warning,) = expected.warnings
    assert warning.startswith("WARNING: test predictions differ in mean or standard deviation")
    assert summary.count(warning[:50]) == 1


def test_neither_answers_nor_labels_of_the_held_out_rows_have_a_part_in_it(moved, tmp_path):
    paths = latest_run(str(moved)).paths
    before, submission = paths.shift.read_text(), paths.submission.read_bytes()
    (tmp_path / "answers.csv").unlink()
    moved.write_text(moved.read_text().replace("answers: answers.csv", "answers: null"))
    shutil.rmtree(tmp_path / "work")
    commands.main(["full", str(moved), "--workers", "1"])
    run = run_of(moved)
    assert run.paths.shift.read_text() == before
    assert run.paths.submission.read_bytes() == submission
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    train = read_table(run.paths.train)
    is_held_out = (train["x"] > 1.7).to_numpy()
    first = replace(run.plan.jobs[0], fold=run.plan.n_folds, folder=tmp_path / "first")
    y_pred = predict_rows(first, run.plan, is_held_out)
    write_table(run.paths.train, train.assign(y=train["y"].mask(is_held_out, 1e6)))
    second = replace(first, folder=tmp_path / "second")
    np.testing.assert_array_equal(predict_rows(second, run.plan, is_held_out), y_pred)


def test_without_a_shift_one_score_is_expected(tmp_path, monkeypatch):
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "work"))
    path = competition_of_curve(tmp_path, moved=0.0)
    commands.main(["full", str(path), "--workers", "1"])
    run = latest_run(str(path))
    comparison = read_comparison(run.paths)
    assert not comparison.adversarial_validation.is_clear and comparison.error_ratio is None
    assert run.choice.expected.shift is None
    assert "Expect rmse" in (run.paths.report / "report.md").read_text().splitlines()[4]
    assert run.choice.expected.warnings == []


def test_a_stage_that_takes_longer_than_allowed_is_not_trained_again(moved, monkeypatch):
    monkeypatch.setattr(full, "make_executor", lambda *options: InlineExecutor())
    paths = latest_run(str(moved)).paths
    paths.shift.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(last_submission, "seconds_without_budget", lambda plan: 0.0)
        commands.main(["full", str(moved)])
    comparison = read_comparison(paths)
    assert comparison.adversarial_validation.is_clear
    assert (comparison.error_ratio.stage, comparison.error_ratio.ratio) == ("", None)
    assert latest_run(str(moved)).choice.expected.shift.factor is None
    commands.main(["full", str(moved)])  # the jobs are the same, and there is more time
    assert read_comparison(paths).error_ratio.stage == "line"
    assert latest_run(str(moved)).choice.expected.shift.factor > 1.3


def test_one_file_has_what_folds_and_full_find_out_and_no_classifier_is_trained_twice(
    moved, monkeypatch, capsys
):
    def stop(*given):
        raise RuntimeError("again")

    paths = latest_run(str(moved)).paths
    of_full = read_comparison(paths)
    assert of_full.recommended is None and of_full.error_ratio.ratio > 1.3
    run_file = latest_run(str(moved)).folder / "run.json"
    written = run_file.stat().st_mtime_ns
    monkeypatch.setattr(compare, "adversarial_validation", stop)
    monkeypatch.setattr(full, "make_executor", lambda *options: InlineExecutor())
    commands.main(["folds", str(moved)])
    both = read_comparison(paths)
    assert both.recommended is not None
    assert both.model_copy(update={"recommended": None}) == of_full
    commands.main(["full", str(moved)])
    assert read_comparison(paths) == both and run_file.stat().st_mtime_ns == written
    assert "Recommended folds" in (paths.report / "index.html").read_text()
    paths.shift.unlink()
    assert commands.main(["full", str(moved)]) == 0
    assert "were not compared (RuntimeError: again)" in capsys.readouterr().out  # and it ends no run


def test_errors_of_scores(tmp_path):
    assert error_of(METRICS["rmse"], 0.4) == 0.4
    assert error_of(METRICS["roc_auc"], 0.9) == pytest.approx(0.1)
    (tmp_path / "mine.py").write_text("def gain(y, y_pred):\n    return 1000.0\n")
    assert error_of(load_user_metric(f"{tmp_path}/mine.py:gain", True, None), 1000.0) is None
