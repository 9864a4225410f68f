"""Runs of classes, from out-of-fold predictions to every file and section that holds some of them."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score, log_loss, precision_score, recall_score

from competition.task import Task, from_submission_columns
from core.files import read_table
from core.user_tables import read_text_table
from pipeline.json_output import largest_errors
from submissions.columns import scored_rows
from submissions.manifest import SUBMISSION_FILE
from submissions.predict import load_candidate
from submissions.report.predictions import cross_fitted, labels, reliability
from submissions.report.report import build_report, markdown, page
from submissions.run import latest_run
from submissions.submission_file import check_submission
from tests.submissions.fakes import by_id, fake_classes, finished
from tests.submissions.test_report import rows_of, scores_of, section

pytestmark = pytest.mark.draws_figures

CASES = [
    "binary f1", "multilabel f1_macro", "multiclass f1_macro", "ordinal quadratic_kappa", "multiclass log_loss"
]  # fmt: skip


@pytest.fixture(scope="module", params=CASES)
def made(request, tmp_path_factory):
    """A finished run and its report; of several labels with a network that drops."""
    folder = tmp_path_factory.mktemp("classes")
    problem_type, metric = request.param.split()
    stages: dict[str, Any] = {name: {"kind": "lightgbm"} for name in ("good", "fair", "poor")}
    if problem_type == "multilabel":
        stages["fair"] = {"kind": "gnn", "backbone_dropout": 0.25}
    roles = (
        {"classes": ["<b>a class with a very long name</b>", "None", "sad"]} if metric == "log_loss" else {}
    )
    sections = {"competition": roles, "stages": stages, "submissions": {"stack": False}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORK_DIR", str(folder / "work"))
        run = finished(fake_classes(folder, problem_type, metric, **sections))
        yield run, build_report(run)


def test_a_stored_run_gives_each_row_alone_what_its_submission_has(made, monkeypatch):
    run, _ = made
    monkeypatch.setenv("WORK_DIR", str(run.folder.parents[2]))
    for name in (SUBMISSION_FILE, "candidates/mean.csv"):
        check_submission(run.folder / name, read_table(run.paths.sample), "id", run.task)
    table = read_text_table(run.folder / SUBMISSION_FILE).set_index("id").loc[run.columns.test_ids]
    written = from_submission_columns(run.task, table)
    predict, preds = load_candidate(latest_run(run.paths.name), run.chosen).predict, run.columns.test
    np.testing.assert_allclose(predict(preds), written, rtol=1e-6)
    np.testing.assert_allclose(np.vstack([predict(preds[[i]]) for i in range(20)]), written[:20], rtol=1e-6)


def test_scores_are_those_of_the_predictions_or_labels_that_are_kept(made):
    run, _ = made
    y, choice, task = run.columns.y, run.choice, run.task
    assert run.metric(y, cross_fitted(run)) == pytest.approx(choice.submitted.score)
    table = read_table(run.folder / "candidates.parquet").set_index("id").loc[run.columns.ids]
    n_thresholds = {"multiclass": 4, "ordinal": 4}.get(task.problem_type, len(task.targets))
    for name, part in run.candidates.items():
        of_candidate = table[[f"{name} {column}" for column in task.scored_columns]].to_numpy()
        assert part.score == pytest.approx(run.metric(y, of_candidate))
        assert len(part.thresholds) == n_thresholds * task.scores_labels
    raw = pd.read_csv(run.config.competition.train, dtype={"id": str}, keep_default_na=False, na_values=[""])
    raw = raw.set_index("id").loc[run.columns.ids]
    np.testing.assert_array_equal(run.oof()[task.targets].to_numpy(), raw[task.targets].to_numpy())
    assert choice.default == ("shrunk_ridge" if task.problem_type == "ordinal" else "shrunk_logits")
    good, poor = (choice.stages[name].score for name in ("good", "poor"))
    assert run.columns.gain(good) > run.columns.gain(poor)
    assert choice.best_stage == "good"
    other_classes = replace(task, classes=task.classes[::-1])
    others = [task, other_classes, replace(task, scores_labels=not task.scores_labels)]
    assert [scored_rows(run.folder, other).empty for other in others] == [False, True, True]
    std_table = by_id(run.folder / "spread.csv")
    assert list(std_table.columns) == task.outputs
    assert (std_table > 0).all(axis=None)


def test_true_classes_and_levels_are_those_of_the_table(made):
    run, report = made
    title = "Largest errors" if run.task.problem_type == "ordinal" else "Most confident mistakes"
    cards = section(report, title)[1:]
    for card in cards:
        i_truth = card.errors.header.index("truth")
        assert {row[i_truth] for row in card.errors.rows} <= {*run.task.classes}
    if run.task.problem_type == "ordinal":
        truth = read_text_table(run.folder.parents[3] / "train.csv").set_index("id")["mood"]
        assert len(cards) == 20
        for card in cards:
            row = dict(zip(card.errors.header, card.errors.rows[0], strict=True))
            assert row["truth"] == truth[card.title.split(". ")[1].split(",")[0]]


def test_scores_shares_and_cuts_by_class_are_those_of_labels_that_were_made_without_the_rows_fold(
    made,
):
    run, report = made
    task, number = run.task, len(run.task.classes) - 1
    last = rows_of(report, "Scores by class")[-1]  # class 1 of the last target
    assert last["class"] == (task.targets[-1] if task.problem_type == "multilabel" else task.classes[-1])
    y, of_class = run.columns.y[:, -1], labels(run)[:, -1] == number
    true, predicted = y[~np.isnan(y)] == number, of_class[~np.isnan(y)]
    expected = {"rows": true.sum(), "share in training": true.mean(), "out of fold": of_class.mean()}
    for name, score in (("precision", precision_score), ("recall", recall_score), ("F1", f1_score)):
        expected[name] = score(true, predicted)
    chosen = run.choice.submitted
    if task.scores_labels:
        submitted = read_text_table(run.folder / SUBMISSION_FILE)[task.targets[-1]]
        expected |= {"on test": (submitted == task.classes[-1]).mean(), "threshold": chosen.thresholds[-1]}
        (tuned,) = re.findall(r" and (\d\S+) with thresholds", section(report, "Scores by class")[2])
        assert float(tuned) == pytest.approx(chosen.score, abs=1e-4)
    found = {name: float(cell) for name, cell in last.items() if name != "class"}
    assert found == pytest.approx({name: expected[name] for name in found}, abs=1e-3)


def test_figures_marks_and_notes_are_those_of_the_problem_type(made):
    run, report = made
    html, problem_type = page(report), run.task.problem_type
    assert len(html) < 1_500_000 and "://" not in html and "<b>" not in html
    assert ("Confusion matrix" in html) == (problem_type != "multilabel")
    assert ("expected calibration error" in html) == (problem_type != "ordinal")
    assert "| class" in markdown(report, run.paths.report)
    notes = section(report, "Scores")[1:]
    dropout = "fair: dropout 0.25 in the backbone, 0.0 before the last layer."
    assert (dropout in notes) == (problem_type == "multilabel")


def test_answers_with_names_of_classes_score_what_the_files_name(made):
    run, report = made
    scores = {name: float(line["test_score"]) for name, line in scores_of(report).items()}
    assert len(scores) == 7
    assert run.columns.gain(scores["good"]) > run.columns.gain(scores["poor"])
    if run.task.problem_type == "multilabel":
        return
    files = run.config.competition.answers, run.folder / SUBMISSION_FILE
    answers, submitted = (read_text_table(file).set_index("id").sort_index() for file in files)
    truth = answers["mood"]
    by_hand = {
        "f1": lambda: f1_score(truth == "yes", submitted["mood"] == "yes"),
        "f1_macro": lambda: f1_score(truth, submitted["mood"], average="macro"),
        "quadratic_kappa": lambda: cohen_kappa_score(truth, submitted["mood"], weights="quadratic"),
        "log_loss": lambda: log_loss(truth, submitted[sorted(submitted)].astype(float)),
    }
    assert scores[run.chosen] == pytest.approx(by_hand[run.metric.name](), rel=1e-3)


@pytest.mark.parametrize(
    ("classes", "y_pred", "y", "expected"),
    [
        (
            "no yes", [[0.2]] * 4 + [[0.8]] * 12, [1, 0, 0, 0] + 3 * [1, 1, 0, 0],
            [0.2, 0.8, 0.25, 0.5, 0.25 * 0.05 + 0.75 * 0.3],  # the mean distance over the rows
        ),
        (  # of several classes, how often the most probable one is true
            "a b c", [[0.6, 0.3, 0.1], [0.1, 0.6, 0.3], [0.1, 0.3, 0.6], [0.2, 0.2, 0.6]], [0, 1, 2, 0],
            [0.6, 0.75, 0.15],
        ),
    ],
)  # fmt: skip
def test_the_calibration_error_is_the_mean_distance_of_probability_and_frequency(
    classes, y_pred, y, expected
):
    problem_type = "binary" if classes == "no yes" else "multiclass"
    task = Task(["y"], problem_type=problem_type, classes=classes.split())
    probability, frequency, error = reliability(task, np.array(y, dtype=float)[:, None], np.array(y_pred))
    assert [*probability, *frequency, error] == pytest.approx(expected)


def test_largest_errors_of_classes_are_wrong_labels_with_their_probability(made, monkeypatch):
    run, _ = made
    monkeypatch.setenv("WORK_DIR", str(run.folder.parents[2]))
    errors = largest_errors(run)
    raw = read_text_table(run.config.competition.train).set_index("id")
    assert errors and all(each["truth"] == raw.loc[each["id"], each["target"]] for each in errors)
    if run.task.problem_type != "ordinal":
        assert all(
            0 < each["its_probability"] <= 1 and each["truth"] != each["prediction"] for each in errors
        )
