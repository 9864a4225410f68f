"""The report: its numbers are those of the run, names stay text, and the page asks nothing of the network."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from markupsafe import escape
from sklearn.metrics import cohen_kappa_score, f1_score, precision_score, recall_score

from competition.metrics import METRICS
from competition.task import Task
from core.files import read_text_table, write_json, write_table
from core.plots import new_figure
from models.jobs.compute import UNUSED_LABELS
from models.jobs.job_files import write_report
from models.training.loss_log import LOSSES
from submissions.report import figures
from submissions.report.elements import Report
from submissions.report.predictions import cross_fitted, labels, reliability
from submissions.report.report import build_report, markdown, page
from submissions.run import SUBMISSION_FILE, Run
from tests.conftest import SMOKE
from tests.submissions.fakes import (
    TARGETS,
    built,
    by_id,
    fake_classes,
    fake_competition,
    finished,
    prepare_and_fake_jobs,
    run_of,
)

ATTACK = "<img src=x onerror=alert(1)>"
TEXT = '</script><script>alert(2)</script> & "more"'
COLUMN = "<b>note</b>"
SHIFT = {
    "made_from": {"folds.csv": "of other folds"},
    "similarity": [],
    "adversarial": {"auc": 0.5123, "standard_deviation": 0.034, "features": []},
    "recommended": {"kind": "scaffold", "reason": "test molecules are far from training molecules"},
}
CURVE = (
    "phase,epoch,step,loss,learning_rate,seconds,held_out_score\n"
    "train,1,5,9.0,1e-4,0.5,\ntrain,1,9,3.0,1e-4,1.0,{0}1\ntrain,2,18,2.0,1e-4,2.0,{0}2\ntrain,3,27,1.0,1e-4,3.0,{0}3\n"
)
UNUSED = "the labels of y in others.csv are not used"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, Report]]:
    """A finished run whose ids, texts and column names try to become markup, and its report."""
    folder = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORK_DIR", str(folder / "work"))
        roles = {"smiles": ["SMILES"], "text": [COLUMN], "numeric": ["x", "z"]}
        neural = {"kind": "gnn", "epochs": 3, "batch_size": 10, "schedule": "linear", "warmup": 0.1}
        stages = {"good": {"kind": "lightgbm"}, "fair": neural, "poor": {"kind": "lightgbm"}}
        path = fake_competition(folder, 90, 30, competition=roles, stages=stages)
        molecules = pd.read_csv(SMOKE / "train.csv")["SMILES"]
        for name in ("train", "test", "sample_submission", "answers"):
            table = read_text_table(folder / f"{name}.csv")
            inputs = {"SMILES": molecules, COLUMN: TEXT} if name in ("train", "test") else {}
            write_table(folder / f"{name}.csv", table.assign(id=ATTACK + table["id"], **inputs))
        plan = prepare_and_fake_jobs(path)
        for job in plan.jobs:
            write_report(job.folder, {"seconds": 1.5, UNUSED_LABELS: [UNUSED] * (job.fold == 1)})
        for job in plan.jobs_of_stage("fair"):
            (job.folder / LOSSES).write_text(CURVE.format(job.fold))
        run = built(path)
        write_json(run.paths.shift, SHIFT)
        new_figure()[0].savefig(run.paths.shift.parent / "sizes.png")
        yield run, build_report(run)


def section(found: Report, title: str) -> list[Any]:
    (parts,) = [each.elements for each in found.sections if each.title == title]
    return parts


def rows_of(found: Report, title: str = "Scores") -> list[dict[str, str]]:
    """The rows of the table of a section by the names of its columns."""
    header, rows = section(found, title)[0]
    return [dict(zip(header, row, strict=True)) for row in rows]


def scores_of(found: Report) -> dict[str, dict[str, str]]:
    """The first row of each stage and candidate in the table of scores."""
    return {line["stage or candidate"]: line for line in rows_of(found) if line["stage or candidate"]}


def test_ids_texts_and_names_of_columns_stay_text_and_nothing_on_the_page_asks_the_network(
    made: tuple[Run, Report],
) -> None:
    html = page(made[1])
    assert all(escape(name) in html for name in (ATTACK, TEXT, COLUMN))
    assert not any(name in html for name in (ATTACK, "<script", COLUMN))
    sources = re.findall(r'src="([^"]*)', html)
    assert len(sources) > 15 and all(source.startswith("data:image/") for source in sources)
    assert "://" not in html and len(html.encode()) < 3_000_000
    assert "default-src 'none'" in html
    assert re.findall(r'href="#(s\d+)"', html) == re.findall(r'id="(s\d+)"', html)


def test_the_page_has_all_sections_and_begins_with_the_score_to_expect(made: tuple[Run, Report]) -> None:
    run, report = made
    expected, n_models = run.choice["expected"], sum(job.predicts_test for job in run.plan.jobs)
    assert report.summary == (
        f"Expect rmse {expected['score']:#.4g} +- {expected['standard_error']:#.2g}. Submitted: "
        f"{run.chosen} of good, fair, poor; a test prediction uses {n_models} models of folds and seeds."
    )
    titles = {each.title for each in report.sections}
    assert {"Tables", "Scores", "Predictions", "Learning curves", "Largest errors"} <= titles
    assert section(report, "Tables").count(f"In fold_1 {UNUSED}.") == 1  # once for all stages
    chart = section(report, "Overview")[0].image
    assert all(name in chart for name in ("good", "fair", "poor", *run.candidates))
    numbers = re.findall(r"\| +(\d\S+) ", markdown(report, run.paths.report))
    html = page(report)
    assert len(numbers) > 40 and all(number in html for number in numbers)
    assert "could not be made" not in html


def test_a_section_with_an_error_is_a_note_and_ends_no_report(
    made: tuple[Run, Report], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORK_DIR", str(made[0].folder.parents[2]))
    monkeypatch.delattr(figures, "panels")
    (note,) = section(build_report(made[0]), "Predictions")
    assert note.startswith("This section could not be made (AttributeError: ")
    assert "AttributeError" in capsys.readouterr().err


def test_the_worst_rows_come_first(made: tuple[Run, Report]) -> None:
    run, report = made
    columns = run.columns
    errors = np.abs(cross_fitted(run) - columns.y) / np.nanstd(columns.y, axis=0)
    worst = np.argsort(-np.nanmax(errors, axis=1))[:20]
    cards = section(report, "Largest errors")[1:]
    titles = [f"{rank}. {columns.ids[i]}, fold {columns.folds[i]}" for rank, i in enumerate(worst, start=1)]
    assert [card.title for card in cards] == titles
    assert "<svg" in next(iter(cards[0].molecules.values()))


def test_weights_stand_under_their_targets(made: tuple[Run, Report]) -> None:
    run, report = made
    lines = rows_of(report)
    first = [line["stage or candidate"] for line in lines].index("good")
    expected = [["", *(f"{run.weights[t][name]:.3f}" for t in TARGETS)] for name in run.config.stages]
    assert [line["weight"] for line in lines[first:]] == sum(expected, [])


def test_a_stage_that_helps_has_a_gain_above_0_in_either_direction_of_the_metric(done: Path) -> None:
    first = run_of(done)
    settings = {"competition": {"metric": "r2"}, "submissions": {"stack": False}}
    for run, sign in ((first, 1), (built(fake_competition(done.parent, **settings)), -1)):
        without = run.choice["ablation"]["good"]
        assert sign * without["difference"] > 0  # without minus with, in the metric's own sign: worse without
        assert float(scores_of(build_report(run))["good"]["gain"].partition(" +-")[0]) > 0


def test_one_table_has_the_scores_of_candidates_and_stages_out_of_fold_and_on_the_answers(
    made: tuple[Run, Report],
) -> None:
    run, report = made
    lines, choice = scores_of(report), run.choice
    for name, record in (choice["candidates"] | choice["stages"]).items():
        assert float(lines[name]["score"]) == pytest.approx(record["score"], rel=1e-3)
        in_sample = f"{record['in_sample_score']:#.4g}" if name in choice["candidates"] else ""
        assert lines[name]["in_sample_score"] == in_sample
    chosen = lines[run.chosen]
    assert "chosen" in chosen["flags"]
    answers = by_id(run.config.competition.answers)[TARGETS]
    submitted = by_id(run.folder / SUBMISSION_FILE).loc[answers.index, TARGETS]
    by_hand = METRICS["rmse"](answers.to_numpy(), submitted.to_numpy())
    assert float(chosen["test_score"]) == pytest.approx(by_hand, rel=1e-3)
    assert report.facts["test_score"][0] == chosen["test_score"]


# Classes


@pytest.fixture(
    scope="module",
    params=["binary f1", "multilabel roc_auc", "multiclass log_loss", "ordinal quadratic_kappa"],
)
def of_classes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Run, Report]]:
    """A finished run and its report; of several labels with a network that drops."""
    folder = tmp_path_factory.mktemp("classes")
    problem_type, metric = request.param.split()
    stages: dict[str, Any] = {name: {"kind": "lightgbm"} for name in ("good", "fair", "poor")}
    if problem_type == "binary":
        stages["fair"]["class_weights"] = "balanced"
    if problem_type == "multilabel":
        stages["fair"] = {"kind": "gnn", "backbone_dropout": 0.25}
    roles = {"classes": [COLUMN, "None", "sad"]} if problem_type == "multiclass" else {}
    sections = {"competition": roles, "stages": stages, "submissions": {"stack": False}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORK_DIR", str(folder / "work"))
        run = finished(fake_classes(folder, problem_type, metric, 160, 40, **sections))
        yield run, build_report(run)


def test_scores_by_class_are_those_of_the_labels_that_were_made_without_the_rows_fold(
    of_classes: tuple[Run, Report],
) -> None:
    run, report = of_classes
    task = run.task
    last = rows_of(report, "Scores by class")[-1]  # class 1 of the last target
    assert last["class"] == (task.targets[-1] if task.problem_type == "multilabel" else task.classes[-1])
    scored = cross_fitted(run)
    label = scored if task.scores_labels else task.default_labels(scored)
    is_labelled = ~np.isnan(run.columns.y[:, -1])
    true, predicted = (y[is_labelled, -1] == len(task.classes) - 1 for y in (run.columns.y, label))
    assert int(last["rows"]) == true.sum()
    for name, score in (("precision", precision_score), ("recall", recall_score), ("F1", f1_score)):
        assert float(last[name]) == pytest.approx(score(true, predicted), abs=1e-3)


def test_shares_and_cuts_of_a_metric_of_labels_are_next_to_the_classes(
    of_classes: tuple[Run, Report],
) -> None:
    run, report = of_classes
    last, number = rows_of(report, "Scores by class")[-1], len(run.task.classes) - 1
    assert ("threshold" in last) == run.task.scores_labels
    if not run.task.scores_labels:
        return
    submitted = read_text_table(run.folder / SUBMISSION_FILE)["mood"] == run.task.classes[-1]
    shares = [(run.columns.y == number).mean(), (labels(run) == number).mean(), submitted.mean()]
    chosen = run.candidates[run.chosen]
    titles = ("share in training", "out of fold", "on test", "threshold")
    expected = [*shares, chosen["thresholds"][-1]]
    assert [float(last[each]) for each in titles] == pytest.approx(expected, abs=1e-3)
    (tuned,) = re.findall(r" and (\d\S+) with thresholds", section(report, "Scores by class")[2])
    assert float(tuned) == pytest.approx(chosen["score"], abs=1e-4)


def test_figures_marks_and_notes_are_those_of_the_problem_type(of_classes: tuple[Run, Report]) -> None:
    run, report = of_classes
    html, problem_type = page(report), run.task.problem_type
    assert len(html) < 1_500_000 and "://" not in html and "<b>" not in html
    captions = str(
        [part.caption for each in report.sections for part in each.elements if hasattr(part, "image")]
    )
    assert ("Confusion matrix" in captions) == (problem_type != "multilabel")
    assert ("calibration error" in captions) == (problem_type != "ordinal")
    assert "| class" in markdown(report, run.paths.report)
    flags = [scores_of(report)[stage]["flags"] for stage in ("good", "fair", "poor")]
    assert flags == ["", "class weights" * (problem_type == "binary"), ""]
    notes = str(section(report, "Scores")[1:])
    assert ("'class weights: " in notes) == (problem_type == "binary")
    dropout = "fair: dropout 0.25 in the backbone, 0.0 before the last layer."
    assert (dropout in notes) == (problem_type == "multilabel")


def test_answers_with_names_of_classes_score_what_the_files_name(of_classes: tuple[Run, Report]) -> None:
    run, report = of_classes
    scores = {name: float(line["test_score"]) for name, line in scores_of(report).items()}
    assert len(scores) == 7 and np.isfinite(list(scores.values())).all()
    assert run.metric.better(scores["good"], scores["poor"])
    if run.task.scores_labels:
        files = run.config.competition.answers, run.folder / SUBMISSION_FILE
        truth, submitted = (read_text_table(file).set_index("id")["mood"].sort_index() for file in files)
        kappa = cohen_kappa_score(truth, submitted, weights="quadratic")
        is_f1 = run.metric.name == "f1"
        by_hand = f1_score(truth == "yes", submitted == "yes") if is_f1 else kappa
        assert scores[run.chosen] == pytest.approx(by_hand, rel=1e-3)


@pytest.mark.parametrize(
    ("classes", "y_pred", "y", "expected"),
    [
        (
            ["no", "yes"], [[0.2]] * 4 + [[0.8]] * 12, [1, 0, 0, 0] + 3 * [1, 1, 0, 0],
            [0.2, 0.8, 0.25, 0.5, 0.25 * 0.05 + 0.75 * 0.3],  # the mean distance over the rows
        ),
        (  # of several classes, how often the most probable one is true
            ["a", "b", "c"], [[0.6, 0.3, 0.1], [0.1, 0.6, 0.3], [0.1, 0.3, 0.6], [0.2, 0.2, 0.6]], [0, 1, 2, 0],
            [0.6, 0.75, 0.15],
        ),
    ],
)  # fmt: skip
def test_the_calibration_error_is_the_mean_distance_of_probability_and_frequency(
    classes: list[str], y_pred: list, y: list, expected: list[float]
) -> None:
    task = Task(["y"], problem_type="binary" if len(classes) == 2 else "multiclass", classes=classes)
    probability, frequency, error = reliability(task, np.array(y, dtype=float)[:, None], np.array(y_pred))
    assert [*probability, *frequency, error] == pytest.approx(expected)
