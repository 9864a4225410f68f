"""Runs whose metric scores labels, from out-of-fold predictions to every file that holds some of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.task import from_submission_columns
from core.errors import SubmissionError
from core.files import read_table, read_text_table, write_table
from submissions.kernel import verify
from submissions.predict import load_candidate
from submissions.report.predictions import cross_fitted, predictions
from submissions.run import Run, latest_run
from submissions.submission_file import check_submission
from tests.submissions.fakes import built, fake_classes, prepare_and_fake_jobs

OF_METRICS = {
    "binary": "f1",
    "multilabel": "f1_macro",
    "multiclass": "f1_macro",
    "ordinal": "quadratic_kappa",
}


@pytest.fixture(scope="module", params=list(OF_METRICS))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of each problem type."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORK_DIR", str(folder / "work"))
        path = fake_classes(folder, request.param, OF_METRICS[request.param])
        prepare_and_fake_jobs(path)
        return built(path)


@pytest.fixture(autouse=True)
def _products_stay(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORK_DIR", str(run.folder.parents[2]))


def submitted(run: Run, file: str = "submission.csv") -> np.ndarray:
    return from_submission_columns(
        run.task, read_text_table(run.folder / file).set_index("id").loc[run.columns.test_ids]
    )


def test_submissions_hold_names_that_a_stored_run_gives_each_row_alone(run: Run) -> None:
    sample = read_text_table(run.folder.parents[3] / "sample_submission.csv")
    for file in ("submission.csv", "candidates/mean.csv"):
        check_submission(run.folder / file, sample, "id", run.task)
        assert np.isfinite(submitted(run, file)).all()
    preds = run.columns.test
    predict = load_candidate(latest_run(run.paths.name), run.chosen).predict
    np.testing.assert_array_equal(predict(preds), submitted(run))
    alone = [predict(preds[[i]]) for i in range(20)]
    np.testing.assert_array_equal(np.vstack(alone), submitted(run)[:20])


def test_scores_are_those_of_the_labels_that_are_kept(run: Run) -> None:
    y = run.columns.y
    labels = cross_fitted(run)
    assert labels.shape == y.shape
    assert set(np.unique(labels)) <= set(range(len(run.task.classes)))
    assert run.metric(y, labels) == pytest.approx(run.choice["cross_fitted_score"])
    table = read_table(run.folder / "candidates.parquet").set_index("id").loc[run.columns.ids]
    for name, part in run.candidates.items():
        of_candidate = table[[f"{name} {target}" for target in run.task.targets]].to_numpy()
        assert part["score"] == pytest.approx(run.metric(y, of_candidate))
        assert len(part["thresholds"]) in (
            len(run.task.classes),
            len(run.task.classes) - 1,
            len(run.task.targets),
        )
    assert predictions(run).shape == (len(y), len(run.task.outputs))
    std_table = read_table(run.folder / "spread.csv", ["id"]).set_index("id")
    assert list(std_table.columns) == run.task.outputs
    assert (std_table.to_numpy() > 0).all()


def test_the_run_says_how_good_its_stages_are(run: Run) -> None:
    choice = run.choice
    assert choice["stages"]["good"]["score"] > choice["stages"]["poor"]["score"]
    assert choice["best_stage"] == "good"
    without = run.choice["ablation"]["good"]
    default = run.candidates[run.choice["default"]]["score"]
    assert without["difference"] == pytest.approx(without["score"] - default, abs=0.05)


def test_other_labels_than_those_of_predict_are_refused_in_a_proof(run: Run, tmp_path: Path) -> None:
    here, there, unreadable = run.folder / "submission.csv", tmp_path / "there.csv", {"id": verify.UNREADABLE}
    table, task = read_text_table(here), run.task
    default_label = task.default_labels(np.array([run.stored["label_means"]]))[0]
    most_frequent = {name: task.classes[int(c)] for name, c in zip(task.targets, default_label, strict=True)}
    rows = pd.concat([table.iloc[::-1], pd.DataFrame([unreadable | most_frequent])])
    write_table(there, rows)
    verify.compare_predictions(run, there, here)
    rows.iloc[3, 1] = next(name for name in task.classes if name != rows.iloc[3, 1])
    write_table(there, rows)
    with pytest.raises(SubmissionError, match="differ"):
        verify.compare_predictions(run, there, here)
