"""Test rows that differ from training rows: it is said, with the error of rows like them, and nothing leaks."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from competition.dataset import FOLD
from competition.metrics import METRICS, load_user_metric
from core.files import read_table, write_table
from folds import compare
from folds.comparison import Comparison, ErrorRatio, Shift, made_from, read_comparison
from models.jobs.job import write_predictions
from models.jobs.job_files import write_report
from models.jobs.run_job import predict_rows
from pipeline import commands, full, last_submission
from submissions import shift as shift_module
from submissions.build import build
from submissions.config import load_config
from submissions.kaggle.ledger import page
from submissions.run import latest_run
from submissions.shift import error_of, expected_under_shift, measure_error_ratio, surplus_rows
from tests.conftest import new_process, write_competition
from tests.models.jobs.common import InlineExecutor
from tests.submissions.fakes import fake_classes, fake_competition, planned, prepare_and_fake_jobs, run_of

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


def test_a_shift_is_said_first_and_the_expected_score_is_nearer_to_that_of_the_test_rows(moved, capsys):
    run = latest_run(str(moved))
    summary = (run.paths.report / "report.md").read_text().replace("\n", " ")
    start = summary.index("Test rows differ from training rows (AUC 0.")
    assert summary.index("most in x") < summary.index("Expect rmse") < summary.index("80 % interval")
    assert summary[:start].count(".") < 3  # only the title is above
    expected = run.choice.expected
    shift = expected.shift
    truth = float(summary.partition("test_score: ")[2].split(",")[0])
    assert shift.factor > 1.3
    assert expected.score == pytest.approx(run.choice.submitted.score * shift.factor)
    assert run.choice.submitted.score * 1.2 < truth
    assert expected.score < expected.interval.upper < truth  # far along the curve, where no training row is
    assert run.choice.submitted.score < expected.interval.lower
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
        patch.setattr(last_submission, "longest_fold_seconds", lambda plan: 0.0)
        commands.main(["full", str(moved)])
    comparison = read_comparison(paths)
    assert comparison.adversarial_validation.is_clear
    assert (comparison.error_ratio.stage, comparison.error_ratio.ratio) == ("", None)
    assert latest_run(str(moved)).choice.expected.shift.factor is None
    commands.main(["full", str(moved)])  # the jobs are the same, and there is more time
    assert read_comparison(paths).error_ratio.stage == "line"
    assert latest_run(str(moved)).choice.expected.shift.factor > 1.3


POWER = """from pathlib import Path

def error(y_true, y_pred, name="power"):
    power = float(Path(f"{Path(__file__).parent}/{name}.txt").read_text())
    return (abs(y_true - y_pred) ** power).mean()
"""


def test_the_error_of_rows_like_test_rows_is_measured_again_for_another_metric_or_an_edit_of_its_data(
    moved, monkeypatch
):
    monkeypatch.setattr(full, "make_executor", lambda *options: InlineExecutor())
    paths = latest_run(str(moved)).paths
    ratios = [read_comparison(paths).error_ratio.ratio]  # of rmse
    (moved.parent / "mine.py").write_text(POWER)
    users = ["--set", "competition.metric=mine.py:error", "--set", "competition.greater_is_better=false"]
    for power in ("1", "1", "2"):
        (moved.parent / "power.txt").write_text(power)
        new_process()
        commands.main(["full", str(moved), *users])
        ratios.append(read_comparison(paths).error_ratio.ratio)
    of_rmse, of_power_1, again, of_power_2 = ratios
    assert of_power_1 == again != of_rmse
    assert of_power_2 == pytest.approx(of_rmse**2)


def test_the_error_of_rows_like_test_rows_is_that_of_a_stage_of_the_run(moved, tmp_path, monkeypatch):
    """A stage of earlier settings is gone; without the time for another one, the error is not known."""
    monkeypatch.setattr(full, "make_executor", lambda *options: InlineExecutor())
    neighbors = ["--set", "stages.line.estimator=sklearn.neighbors.KNeighborsRegressor"]
    expected = []
    for is_timely in (True, False, True):
        with monkeypatch.context() as patch:
            if not is_timely:
                patch.setattr(last_submission, "measure_error_ratio", lambda *given: None)
            commands.main(["full", str(moved), *(neighbors if expected else [])])
        expected.append(latest_run(str(moved)).choice.expected)
    of_line, unknown, after = expected
    assert (
        unknown.interval is None and unknown.unknown == "The error of rows like test rows was not measured."
    )
    assert of_line.interval and after.interval and of_line.shift.factor != after.shift.factor
    shutil.rmtree(tmp_path / "work")
    commands.main(["full", str(moved), *neighbors])
    assert latest_run(str(moved)).choice.expected == after


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


SHIFT = Shift(auc=0.9, standard_error=0.01, features=[{"feature": "x"}])


def comparison_of(paths, **values):
    return Comparison(
        made_from=made_from(paths) if paths else {},
        wasserstein_distances=[],
        recommended=None,
        **{"adversarial_validation": SHIFT, "error_ratio": None, **values},
    )


def measured(path, plan, like_test):
    """The error ratio on the rows with some ids."""
    shift = SHIFT.model_copy(update={"like_test": like_test})
    comparison = comparison_of(plan.paths, adversarial_validation=shift)
    measure_error_ratio(load_config(str(path)), plan, comparison, 60.0)
    return read_comparison(plan.paths).error_ratio


@pytest.mark.parametrize(
    ("ratio", "standard_error", "factor"),
    [
        (1.3, 0.5, 1.3),  # above 1 it needs no evidence
        (0.9, 0.2, 1.0),
        (0.75, 0.25, 1.0),  # below 1 by its standard error, and not by more
        (0.5, 0.25, 0.5),
        (0.9, None, 1.0),
        (None, None, None),
    ],
)
def test_the_factor_is_below_1_only_by_more_than_its_standard_error(ratio, standard_error, factor):
    error_ratio = ErrorRatio(stage="line", ratio=ratio, standard_error=standard_error)
    assert error_ratio.factor == factor
    expected = expected_under_shift(comparison_of(None, error_ratio=error_ratio))
    power = 2 * 0.9 - 1
    assert expected.factor == (factor if factor is None else pytest.approx(factor**power))


def test_the_error_of_one_model_is_compared_with_that_of_one_seed_and_as_many_training_rows(
    tmp_path, monkeypatch
):
    """Errors of 1 and -1 of two seeds are 0 in their mean; 150 rows in three folds, so that 100 train a model."""
    seeds = {"good": {"kind": "lightgbm", "seeds": [3, 4]}}
    path = fake_competition(tmp_path, stages=seeds)
    plan = planned(path)
    train, test = read_table(plan.paths.train), read_table(plan.paths.test)
    y = np.nan_to_num(train[plan.competition.targets].to_numpy())
    for job in plan.jobs:
        rows = (train[FOLD] == job.fold).to_numpy()
        write_predictions(
            job.oof_file, list(train["id"][rows]), ["height", "Depth"], y[rows] + {3: 1, 4: -1}[job.seed]
        )
        write_predictions(job.test_file(plan.test_key), list(test["id"]), ["height", "Depth"], y[: len(test)])
        write_report(job.folder, {"seconds": 1.5})
    fits = []

    def predict(job, plan, is_held_out):
        fits.append((job, is_held_out))
        return y[is_held_out] + 3.0

    monkeypatch.setattr(shift_module, "predict_rows", predict)
    like_test = list(train["id"][:30])
    ratio = measured(path, plan, like_test)
    assert (ratio.stage, ratio.ratio, ratio.standard_error) == ("good", pytest.approx(3), pytest.approx(0))
    ((job, is_held_out),) = fits
    assert (job.seed, job.fold) == (3, 3) and is_held_out.sum() == 50 and is_held_out[:30].all()


def test_thresholds_are_fitted_without_the_rows_that_they_are_scored_on_in_both_errors(tmp_path, monkeypatch):
    path = fake_classes(tmp_path, "binary", "accuracy", stages={"poor": {"kind": "lightgbm"}})
    plan = prepare_and_fake_jobs(path)
    run = run_of(path)
    build(run)
    alone = run.choice.stages["poor"]
    in_sample = run.choice.candidates["best_single"].in_sample_score
    assert alone.score != in_sample  # of thresholds that are fitted on the same rows
    monkeypatch.setattr(shift_module, "predict_rows", lambda job, plan, rows: np.ones((rows.sum(), 1)))
    ratio = measured(path, plan, run.columns.ids[:48])
    of_class_0 = 1 - run.columns.y[:48].mean()
    assert ratio.ratio == pytest.approx(of_class_0 / (1 - alone.score))
    relative = [np.sqrt(p * (1 - p) / n) / p for p, n in ((of_class_0, 48), (1 - alone.score, 240))]
    assert ratio.standard_error == pytest.approx(ratio.ratio * np.hypot(*relative), rel=0.2)


def test_surplus_rows_are_whole_groups_with_a_fold_and_never_too_many(tmp_path):
    path = fake_competition(tmp_path, n_train=12, n_test=4)
    prepare_and_fake_jobs(path)
    groups = np.repeat([0, 1, 2, 3], 3)
    folds = np.where(groups == 1, -1, groups % 2)
    columns = replace(run_of(path).columns, groups=groups, folds=folds)
    is_held_out = groups == 0
    assert not surplus_rows(columns, is_held_out, 6.5).any()  # 9 rows train, and each group has 3
    for n_rows, n_surplus in ((6.0, 3), (4.0, 3), (3.0, 6), (0.0, 6)):
        surplus = surplus_rows(columns, is_held_out, n_rows)
        assert surplus.sum() == n_surplus and not surplus[groups < 2].any()
