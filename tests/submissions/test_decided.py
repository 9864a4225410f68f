"""Runs whose metric scores labels, from out-of-fold predictions to every file that holds some of them."""

import numpy as np
import pytest

from competition.task import from_submission_columns
from core.files import read_table, read_text_table
from submissions.predict import load_candidate
from submissions.report.predictions import cross_fitted
from submissions.run import Run, latest_run
from submissions.submission_file import check_submission
from tests.submissions.fakes import by_id, fake_classes, finished

OF_METRICS = {
    "binary": "f1",
    "multilabel": "f1_macro",
    "multiclass": "f1_macro",
    "ordinal": "quadratic_kappa",
}


@pytest.fixture(scope="module", params=OF_METRICS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of each problem type."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORK_DIR", str(folder / "work"))
        return finished(fake_classes(folder, request.param, OF_METRICS[request.param]))


@pytest.fixture(autouse=True)
def _products_stay(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORK_DIR", str(run.folder.parents[2]))


def test_submissions_hold_names_that_a_stored_run_gives_each_row_alone(run: Run) -> None:
    task, file = run.task, run.folder / "submission.csv"
    for name in ("submission.csv", "candidates/mean.csv"):
        check_submission(run.folder / name, read_table(run.paths.sample), "id", task)
    labels = from_submission_columns(task, read_text_table(file).set_index("id").loc[run.columns.test_ids])
    predict, preds = load_candidate(latest_run(run.paths.name), run.chosen).predict, run.columns.test
    np.testing.assert_array_equal(predict(preds), labels)
    np.testing.assert_array_equal(np.vstack([predict(preds[[i]]) for i in range(20)]), labels[:20])


def test_scores_are_those_of_the_labels_that_are_kept(run: Run) -> None:
    y, choice, task = run.columns.y, run.choice, run.task
    labels = cross_fitted(run)
    assert {*np.unique(labels)} <= {*range(len(task.classes))}
    assert run.metric(y, labels) == pytest.approx(choice["cross_fitted_score"])
    table = read_table(run.folder / "candidates.parquet").set_index("id").loc[run.columns.ids]
    n_thresholds = {"multiclass": 4, "ordinal": 4}.get(task.problem_type, len(task.targets))
    for name, part in run.candidates.items():
        of_candidate = table[[f"{name} {target}" for target in task.targets]].to_numpy()
        assert part["score"] == pytest.approx(run.metric(y, of_candidate))
        assert len(part["thresholds"]) == n_thresholds
    assert choice["default"] == ("shrunk_ridge" if task.problem_type == "ordinal" else "shrunk_logits")
    assert choice["stages"]["good"]["score"] > choice["stages"]["poor"]["score"]
    assert choice["best_stage"] == "good"
    std_table = by_id(run.folder / "spread.csv")
    assert list(std_table.columns) == task.outputs
    assert (std_table > 0).all(axis=None)
