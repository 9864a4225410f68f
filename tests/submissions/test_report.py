"""The report: its numbers are those of the run, names stay text, and the page asks nothing of the network."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score, precision_score, recall_score

from competition.metrics import METRICS
from competition.task import Task
from core.files import read_text_table, write_json, write_table
from core.plots import new_figure
from models.jobs.compute import UNUSED_LABELS
from models.jobs.job_files import write_report
from models.training.loss_log import LOSSES
from submissions.report import figures
from submissions.report import report as report_step
from submissions.report.elements import Report
from submissions.report.predictions import cross_fitted, labels, learning_curve_section, reliability
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


class Reader(HTMLParser):
    """All elements with their attributes, the text outside of styles, and every tag that does not fit."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.wrong: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        self.wrong += self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "link", "img", "input", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += f" {data}"


class Made(NamedTuple):
    """A finished made-up run whose ids, texts and column names try to become markup, and its report."""

    run: Run
    found: Report
    html: str
    reader: Reader
    summary: str


def add_molecules(folder: Path, **columns: Any) -> None:
    molecules = read_text_table(SMOKE / "train.csv")["SMILES"]
    for file in (folder / "train.csv", folder / "test.csv"):
        table = read_text_table(file)
        write_table(file, table.assign(SMILES=list(islice(cycle(molecules), len(table))), **columns))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORK_DIR", str(folder / "work"))
        roles = {"smiles": ["SMILES"], "text": [COLUMN], "numeric": ["x", "z"]}
        neural = {"kind": "gnn", "epochs": 3, "batch_size": 10, "schedule": "linear", "warmup": 0.1}
        stages = {"good": {"kind": "lightgbm"}, "fair": neural, "poor": {"kind": "lightgbm"}}
        path = fake_competition(folder, 90, 30, competition=roles, stages=stages)
        add_molecules(folder, **{COLUMN: TEXT})
        for name in ("train", "test", "sample_submission", "answers"):
            table = read_text_table(folder / f"{name}.csv")
            write_table(folder / f"{name}.csv", table.assign(id=ATTACK + table["id"]))
        plan = prepare_and_fake_jobs(path)
        for job in plan.jobs:
            write_report(job.folder, {"seconds": 1.5, UNUSED_LABELS: [UNUSED] * (job.fold == 1)})
        for job in plan.jobs_of_stage("fair"):
            (job.folder / LOSSES).write_text(CURVE.format(job.fold))
        run = built(path)
        write_json(run.paths.shift, SHIFT)
        new_figure()[0].savefig(run.paths.shift.parent / "sizes.png")
        found = build_report(run)
        html = page(found)
        yield Made(run, found, html, Reader(html), markdown(found, run.paths.report))


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


def test_every_section_is_there_and_linked_and_every_tag_is_closed(made: Made) -> None:
    assert made.reader.wrong == []
    ids = {attributes["id"] for _, attributes in made.reader.elements if "id" in attributes}
    links = {str(attributes["href"])[1:] for tag, attributes in made.reader.elements if tag == "a"}
    assert links == ids
    titles = {each.title for each in made.found.sections}
    assert {"Tables", "Scores", "Predictions", "Learning curves", "Largest errors"} <= titles
    assert section(made.found, "Tables").count(f"In fold_1 {UNUSED}.") == 1  # once for all stages


def test_numbers_of_the_page_are_those_of_the_summary_and_of_the_run(made: Made) -> None:
    rows = [line.split("|")[2:-1] for line in made.summary.splitlines() if line.startswith("| ")]
    numbers = [cell.strip() for row in rows for cell in row if re.search(r"\d", cell)]
    assert len(numbers) > 40
    assert [number for number in numbers if number.replace("+-", "±") not in made.reader.text] == []
    choice = made.run.choice
    assert f"{choice['cross_fitted_score']:#.4g} ± {choice['standard_error']:#.2g}" in made.reader.text


def test_ids_texts_and_names_of_columns_stay_text_and_nothing_on_the_page_asks_the_network(
    made: Made,
) -> None:
    elements, text = made.reader.elements, made.reader.text
    assert not {"script", "b"} & {tag for tag, _ in elements}
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on")]
    assert ATTACK in text and TEXT in text
    assert COLUMN in [attributes.get("aria-label") for _, attributes in elements]
    sources = [str(attributes["src"]) for _, attributes in elements if "src" in attributes]
    assert len(sources) > 15 and all(source.startswith("data:image/") for source in sources)
    assert "://" not in made.html and len(made.html.encode()) < 3_000_000
    policy = next(a["content"] for _, a in elements if a.get("http-equiv") == "Content-Security-Policy")
    assert str(policy).startswith("default-src 'none'")


def test_the_page_begins_with_the_score_to_expect_and_a_chart_of_all_stages_and_candidates(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = made.run.choice["expected"]
    n_models = sum(job.predicts_test for job in made.run.plan.jobs)
    assert made.found.summary == (
        f"Expect rmse {expected['score']:#.4g} +- {expected['standard_error']:#.2g}. Submitted: "
        f"{made.run.chosen} of good, fair, poor; a test prediction uses {n_models} models of folds and seeds."
    )
    monkeypatch.setattr(report_step, "read_json", lambda path: {"n_censored": 1212})
    assert "1,212 censored training labels have no score, so" in report_step._summary(made.run)
    chart = section(made.found, "Overview")[0]
    for name in ("good", "fair", "poor", *made.run.candidates):
        assert name in chart.image
    assert "could not be made" not in made.reader.text


def test_a_section_with_an_error_is_a_note_and_ends_no_report(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORK_DIR", str(made.run.folder.parents[2]))
    monkeypatch.delattr(figures, "panels")
    (note,) = section(build_report(made.run), "Predictions")
    assert note.startswith("This section could not be made (AttributeError: ")
    assert "AttributeError" in capsys.readouterr().err


def test_learning_curves_are_the_loss_of_each_job_and_the_mean_held_out_score_over_folds(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    panels: dict[str, Any] = {}
    monkeypatch.setattr(figures, "panels", lambda curves, x_label: panels.update(curves) or "")
    learning_curve_section(made.run)
    losses = [(list(epochs), list(losses)) for epochs, losses, _ in panels["fair, loss"]]
    assert losses == [([1, 2, 3], [3.0, 2.0, 1.0])] * 3
    ((epochs, scores, _),) = panels["fair, held-out rmse"]
    assert (list(epochs), list(scores)) == ([1, 2, 3], [11, 12, 13])  # of the folds 0, 1 and 2: 1, 11 and 21


def test_the_worst_rows_come_first(made: Made) -> None:
    columns = made.run.columns
    errors = np.abs(cross_fitted(made.run) - columns.y) / np.nanstd(columns.y, axis=0)
    worst = np.argsort(-np.nanmax(errors, axis=1))[:20]
    cards = section(made.found, "Largest errors")[1:]
    titles = [f"{rank}. {columns.ids[i]}, fold {columns.folds[i]}" for rank, i in enumerate(worst, start=1)]
    assert [card.title for card in cards] == titles
    assert "<svg" in next(iter(cards[0].molecules.values()))


def test_weights_stand_under_their_targets_and_correlations_under_their_columns(made: Made) -> None:
    columns, chosen = made.run.columns, made.run.weights
    lines = rows_of(made.found)
    first = [line["stage or candidate"] for line in lines].index("good")
    expected = [["", *(f"{chosen[t][name]:.3f}" for t in TARGETS)] for name in made.run.config.stages]
    assert [line["weight"] for line in lines[first:]] == sum(expected, [])
    chart = section(made.found, "Error correlation")[1].image
    assert [chart.count(f">{name}<") for name in columns.names] == [2, 2, 2]  # of a row and a column
    correlations = []
    for target in range(2):
        rows = ~np.isnan(columns.y[:, target])  # depth lacks some labels
        errors = columns.preds[rows, :, target] - columns.y[rows, target, None]
        correlations.append(np.corrcoef(errors, rowvar=False))
    numbers = [float(number) for number in re.findall(r">(-?[01]\.\d\d)<", chart)]
    np.testing.assert_allclose(numbers, np.mean(correlations, axis=0).ravel(), atol=0.006)


def test_a_stage_that_helps_has_a_gain_above_0_in_either_direction_of_the_metric(done: Path) -> None:
    first = run_of(done)
    settings = {"competition": {"metric": "r2"}, "submissions": {"stack": False}}
    for run, sign in ((first, 1), (built(fake_competition(done.parent, **settings)), -1)):
        without = run.choice["ablation"]["good"]
        assert sign * without["difference"] > 0  # without minus with, in the metric's own sign: worse without
        assert float(scores_of(build_report(run))["good"]["gain"].partition(" +-")[0]) > 0


def test_one_table_has_the_scores_of_candidates_and_stages_out_of_fold_and_on_the_answers(made: Made) -> None:
    lines, choice = scores_of(made.found), made.run.choice
    for name, record in (choice["candidates"] | choice["stages"]).items():
        assert float(lines[name]["score"]) == pytest.approx(record["score"], rel=1e-3)
        in_sample = f"{record['in_sample_score']:#.4g}" if name in choice["candidates"] else ""
        assert lines[name]["in_sample_score"] == in_sample
    chosen = lines[made.run.chosen]
    assert "chosen" in chosen["flags"]
    answers = by_id(made.run.folder.parents[3] / "answers.csv")[TARGETS]
    written = by_id(made.run.folder / "submission.csv").loc[answers.index, TARGETS]
    by_hand = METRICS["rmse"](answers.to_numpy(), written.to_numpy())
    assert float(chosen["test_score"]) == pytest.approx(by_hand, rel=1e-3)
    assert made.found.facts["test_score"][0] == chosen["test_score"]


# Classes


@pytest.fixture(
    scope="module",
    params=["binary f1", "multilabel roc_auc", "multiclass log_loss", "ordinal quadratic_kappa"],
)
def of_classes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Run, Report]]:
    """A finished run and its report; of several labels with molecules and a network that drops."""
    folder = tmp_path_factory.mktemp("classes")
    problem_type, metric = request.param.split()
    stages: dict[str, Any] = {name: {"kind": "lightgbm"} for name in ("good", "fair", "poor")}
    roles: dict[str, Any] = {}
    if problem_type == "binary":
        stages["fair"]["class_weights"] = "balanced"
    elif problem_type == "multilabel":
        roles, stages["fair"] = {"smiles": ["SMILES"]}, {"kind": "gnn", "backbone_dropout": 0.25}
    elif problem_type == "multiclass":
        roles = {"classes": ["<b>a class with a very long name</b>", "None", "sad"]}
    sections = {"competition": roles, "stages": stages, "submissions": {"stack": False}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORK_DIR", str(folder / "work"))
        path = fake_classes(folder, problem_type, metric, 160, 40, **sections)
        add_molecules(folder)
        run = finished(path)
        yield run, build_report(run)


def test_scores_by_class_are_those_of_the_labels_that_were_made_without_the_rows_fold(
    of_classes: tuple[Run, Report],
) -> None:
    run, report = of_classes
    task, scored = run.task, cross_fitted(run)
    made_labels = scored if task.scores_labels else task.default_labels(scored)
    last = rows_of(report, "Scores by class")[-1]  # class 1 of the last target
    assert last["class"] == (task.targets[-1] if task.problem_type == "multilabel" else task.classes[-1])
    y, label = run.columns.y[:, -1], made_labels[:, -1]
    is_labelled = ~np.isnan(y)
    true, predicted = (each[is_labelled] == len(task.classes) - 1 for each in (y, label))
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


def test_errors_are_sorted_by_the_probability_of_the_wrong_class(of_classes: tuple[Run, Report]) -> None:
    run, report = of_classes
    if not run.task.has_probabilities:
        assert "residual (sd)" in section(report, "Largest errors")[1].errors.header
        return
    cards = section(report, "Most confident mistakes")[1:]
    errors = [[dict(zip(card.errors.header, row, strict=True)) for row in card.errors.rows] for card in cards]
    assert all(row["truth"] != row["predicted"] for rows in errors for row in rows)
    largest = [max(float(row["its probability"]) for row in rows) for rows in errors]
    assert largest == sorted(largest, reverse=True) and 5 < len(largest) <= 20


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
