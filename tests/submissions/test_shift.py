"""Test rows that differ from training rows: it is said, with the error of rows like them, and nothing leaks."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from competition.metrics import METRICS, load_user_metric
from core.files import read_table, write_table
from models.jobs.plan import make_plan
from models.jobs.run_job import predict_rows
from pipeline import commands
from submissions.config import load_config
from submissions.leaderboard.ledger import page
from submissions.run import latest_run
from submissions.shift import error_of, measure_shift, read_shift
from tests.conftest import write_competition
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
    expected = run.choice["expected"]
    shift = expected["shift"]
    truth = float(summary.partition("test_score: ")[2].split(",")[0])
    assert shift["factor"] > 1.3
    assert shift["score"] == pytest.approx(expected["score"] * shift["factor"])
    assert expected["score"] * 1.2 < truth
    assert abs(np.log(truth / shift["score"])) < abs(np.log(truth / expected["score"]))
    commands.main(["submit", str(moved)])
    assert page(run.config.competition).startswith(shift["sentence"])
    (warning,) = expected["warnings"]
    assert warning.startswith("WARNING: test predictions differ in mean or standard deviation")
    assert summary.count(warning[:50]) == 1


def test_neither_answers_nor_labels_of_the_held_out_rows_have_a_part_in_it(moved, tmp_path):
    paths = latest_run(str(moved)).paths
    before, submission = paths.held_out.read_text(), paths.submission.read_bytes()
    (tmp_path / "answers.csv").unlink()
    moved.write_text(moved.read_text().replace("answers: answers.csv", "answers: null"))
    shutil.rmtree(tmp_path / "work")
    commands.main(["full", str(moved), "--workers", "1"])
    run = run_of(moved)
    assert run.paths.held_out.read_text() == before
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
    shift = read_shift(run.paths)
    assert shift is not None and not shift.is_clear and shift.stage == ""
    assert run.choice["expected"]["shift"] is None
    assert "Expect rmse" in (run.paths.report / "report.md").read_text().splitlines()[4]
    assert run.choice["expected"]["warnings"] == []


def test_a_stage_that_takes_longer_than_allowed_is_not_trained_again(moved):
    config = load_config(str(moved))
    plan = make_plan(config.competition, dict(config.stages))
    plan.paths.held_out.unlink()
    measure_shift(config, plan, seconds=0.0)
    shift = read_shift(plan.paths)
    assert shift is not None and shift.is_clear and (shift.stage, shift.ratio) == ("", None)
    commands.main(["full", str(moved), "--workers", "1"])  # the jobs are the same, and there is more time
    assert read_shift(plan.paths).stage == "line"
    assert latest_run(str(moved)).choice["expected"]["shift"]["factor"] > 1.3


def test_errors_of_scores(tmp_path):
    assert error_of(METRICS["rmse"], 0.4) == 0.4
    assert error_of(METRICS["roc_auc"], 0.9) == pytest.approx(0.1)
    (tmp_path / "mine.py").write_text("def gain(y, y_pred):\n    return 1000.0\n")
    assert error_of(load_user_metric(f"{tmp_path}/mine.py:gain", True, None), 1000.0) is None
