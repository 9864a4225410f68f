"""The report of classes: its numbers are those of the labels, and a page is made for every problem type."""

import re
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score, precision_score, recall_score

from competition.task import Task
from core.files import read_table, read_text_table, write_table
from submissions.report.elements import Report
from submissions.report.predictions import labels, reliability
from submissions.report.report import build_report, markdown, page
from submissions.run import CROSS_FITTED, SUBMISSION_FILE, Run
from tests.conftest import SMOKE
from tests.submissions.fakes import built, fake_classes, prepare_and_fake_jobs
from tests.submissions.test_report import scores_of, section

HOSTILE = "<b>a class with a very long name</b>"
CASES = [
    ("binary", "f1", {}),
    ("multilabel", "roc_auc", {}),
    ("multiclass", "log_loss", {"classes": [HOSTILE, "None", "sad"]}),
    ("ordinal", "quadratic_kappa", {}),
]


def made(folder: Path, problem_type: str, metric: str, roles: dict[str, Any]) -> Run:
    """A finished run; of several labels with molecules and a network that drops."""
    stages: dict[str, Any] = {name: {"kind": "lightgbm"} for name in ("good", "fair", "poor")}
    if problem_type == "binary":
        stages["fair"]["class_weights"] = "balanced"
    if problem_type == "multilabel":
        roles, stages["fair"] = {"smiles": ["SMILES"]}, {"kind": "gnn", "backbone_dropout": 0.25}
    sections = {"competition": roles, "stages": stages, "submissions": {"stack": False}}
    path = fake_classes(folder, problem_type, metric, 160, 40, **sections)
    molecules = read_text_table(SMOKE / "train.csv")["SMILES"]
    for file in (folder / "train.csv", folder / "test.csv"):
        table = read_text_table(file)
        write_table(file, table.assign(SMILES=list(islice(cycle(molecules), len(table)))))
    prepare_and_fake_jobs(path)
    return built(path)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case[0])
def run_and_report(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Run, Report]]:
    folder = tmp_path_factory.mktemp("classes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORK_DIR", str(folder / "work"))
        run = made(folder, *request.param)
        yield run, build_report(run)


def test_scores_by_class_are_those_of_the_labels_that_were_made_without_the_rows_fold(
    run_and_report: tuple[Run, Report],
) -> None:
    run, report = run_and_report
    task = run.task
    scored = read_table(run.folder / CROSS_FITTED, ["id"]).set_index("id").loc[run.columns.ids].to_numpy()
    labels, y = scored if task.scores_labels else task.default_labels(scored), run.columns.y
    t, (header, rows) = len(task.targets) - 1, section(report, "Scores by class")[0]
    is_labelled = ~np.isnan(y[:, t])
    last = dict(zip(header, rows[-1], strict=True))  # class 1 of the last target
    assert last["class"] == (task.targets[-1] if task.problem_type == "multilabel" else task.classes[-1])
    true, predicted = (
        y[is_labelled, t] == len(task.classes) - 1,
        labels[is_labelled, t] == len(task.classes) - 1,
    )
    assert int(last["rows"]) == true.sum()
    for name, score in (("precision", precision_score), ("recall", recall_score), ("F1", f1_score)):
        assert float(last[name]) == pytest.approx(score(true, predicted), abs=1e-3)


def test_the_page_has_figures_of_its_problem_type_and_stays_small(run_and_report: tuple[Run, Report]) -> None:
    run, report = run_and_report
    html = page(report)
    assert len(html) < 1_500_000 and "://" not in html and "<b>" not in html
    figures = [part.caption for each in report.sections for part in each.elements if hasattr(part, "image")]
    assert any("Confusion matrix" in each for each in figures) == (len(run.task.targets) == 1)
    assert any("calibration error" in each for each in figures) == run.task.has_probabilities
    assert "| class" in markdown(report, run.paths.report)


def test_rates_of_dropout_and_balanced_weights_of_classes_are_reported(
    run_and_report: tuple[Run, Report],
) -> None:
    run, report = run_and_report
    notes = section(report, "Scores")[1:]
    flags = {line["stage or candidate"]: line["flags"] for line in scores_of(report)}
    balanced, drops = run.task.problem_type == "binary", run.task.problem_type == "multilabel"
    assert [flags[stage] for stage in ("good", "fair", "poor")] == ["", "class weights" * balanced, ""]
    assert any(line.startswith("class weights: ") for line in notes) == balanced
    assert ("fair: dropout 0.25 in the backbone, 0.0 before the last layer." in notes) == drops


def test_errors_are_sorted_by_the_probability_of_the_wrong_class(run_and_report: tuple[Run, Report]) -> None:
    run, report = run_and_report
    if not run.task.has_probabilities:
        assert "residual (sd)" in section(report, "Largest errors")[1].errors.header
        return
    cards = section(report, "Most confident mistakes")[1:]
    errors = [[dict(zip(card.errors.header, row, strict=True)) for row in card.errors.rows] for card in cards]
    assert all(row["truth"] != row["predicted"] for rows in errors for row in rows)
    largest = [max(float(row["its probability"]) for row in rows) for rows in errors]
    assert largest == sorted(largest, reverse=True) and 5 < len(largest) <= 20


def test_answers_with_names_of_classes_score_what_the_files_name(run_and_report: tuple[Run, Report]) -> None:
    run, report = run_and_report
    lines = [line for line in scores_of(report) if line["stage or candidate"]]
    scores = {line["stage or candidate"]: float(line["test_score"]) for line in lines}
    answers = read_text_table(run.config.competition.answers).set_index("id")
    submitted = read_text_table(run.folder / SUBMISSION_FILE).set_index("id")
    assert len(scores) == 7 and np.isfinite(list(scores.values())).all()
    if run.task.scores_labels:
        truth, labels = (each.loc[answers.index, "mood"] for each in (answers, submitted))
        if run.metric.name == "f1":
            by_hand = f1_score(truth == "yes", labels == "yes")
        else:
            by_hand = cohen_kappa_score(truth, labels, weights="quadratic")
        assert scores[run.chosen] == pytest.approx(by_hand, rel=1e-3)
    else:
        assert run.metric.better(scores["good"], scores["poor"])


def test_shares_and_cuts_of_a_metric_of_labels_are_next_to_the_classes(
    run_and_report: tuple[Run, Report],
) -> None:
    run, report = run_and_report
    header, rows = section(report, "Scores by class")[0]
    if not run.task.scores_labels:
        assert "threshold" not in header
        return
    last, name = dict(zip(header, rows[-1], strict=True)), run.task.classes[-1]
    submitted = read_text_table(run.folder / SUBMISSION_FILE)["mood"]
    thresholds = run.candidates[run.chosen]["thresholds"]
    in_training = run.columns.y == len(run.task.classes) - 1
    out_of_fold = labels(run) == len(run.task.classes) - 1
    expected = [in_training.mean(), out_of_fold.mean(), (submitted == name).mean(), thresholds[-1]]
    titles = ("share in training", "out of fold", "on test", "threshold")
    assert [float(last[each]) for each in titles] == pytest.approx(expected, abs=1e-3)
    words = section(report, "Scores by class")[2]
    (tuned,) = map(float, re.findall(r" and (\d\S+) with thresholds", words))
    assert tuned == pytest.approx(run.candidates[run.chosen]["score"], abs=1e-4)


def test_the_calibration_error_is_the_mean_distance_of_probability_and_share_over_the_rows() -> None:
    task = Task(["ill"], problem_type="binary", classes=["no", "yes"])
    y_pred = np.repeat([0.2, 0.8], [4, 12])[:, None]
    y = np.array([1, 0, 0, 0] + 3 * [1, 1, 0, 0], dtype=float)[:, None]
    mean, share, error = reliability(task, y, y_pred)
    assert [*mean, *share] == pytest.approx([0.2, 0.8, 0.25, 0.5])
    assert error == pytest.approx(0.25 * 0.05 + 0.75 * 0.3)


def test_of_several_classes_the_most_probable_one_is_compared_with_how_often_it_is_true() -> None:
    task = Task(["mood"], problem_type="multiclass", classes=["a", "b", "c"])
    y_pred = np.array([[0.6, 0.3, 0.1], [0.1, 0.6, 0.3], [0.1, 0.3, 0.6], [0.2, 0.2, 0.6]])
    mean, share, error = reliability(task, np.array([[0.0], [1.0], [2.0], [0.0]]), y_pred)
    assert [*mean, *share, error] == pytest.approx([0.6, 0.75, 0.15])
