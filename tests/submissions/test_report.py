"""The report: its numbers are those of the run, names stay text, and the page asks nothing of the network."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from competition.metrics import METRICS
from core.files import PROJECT, read_table, read_text_table, write_json, write_table
from core.plots import new_figure
from models.training.loss_log import LOSSES
from submissions.report import figures
from submissions.report import report as report_step
from submissions.report.elements import Report, Section, Table
from submissions.report.predictions import learning_curve_section
from submissions.report.report import build_report, markdown, page
from submissions.run import CROSS_FITTED, LEFT_OUT_HEADER, LeftOut, Run
from tests.submissions.fakes import TARGETS, built, fake_competition, prepare_and_fake_jobs, run_of

ATTACK = "<img src=x onerror=alert(1)>"
TEXT = '</script><script>alert(2)</script> & "more"'
COLUMN = "<b>note</b>"
SHIFT = {
    "made_from": {"folds.csv": "of other folds"},
    "similarity": [],
    "adversarial": {"auc": 0.5123, "standard_deviation": 0.034, "features": []},
    "recommended": {"kind": "scaffold", "reason": "test molecules are far from training molecules"},
}


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


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORK_DIR", str(folder / "work"))
        roles = {"smiles": ["SMILES"], "text": [COLUMN], "numeric": ["x", "z"]}
        neural = {"kind": "gnn", "epochs": 3, "batch_size": 10, "schedule": "linear", "warmup": 0.1}
        stages = {"good": {"kind": "lightgbm"}, "fair": neural, "poor": {"kind": "lightgbm"}}
        path = fake_competition(folder, 90, 30, competition=roles, stages=stages)
        molecules = read_text_table(PROJECT / "competition" / "data" / "smoke" / "train.csv")["SMILES"]
        for name in ("train", "test", "sample_submission", "answers"):
            table = read_text_table(folder / f"{name}.csv")
            table["id"] = ATTACK + table["id"]
            if name in ("train", "test"):
                table["SMILES"] = molecules[: len(table)]
                table[COLUMN] = [f"{TEXT} {i}" for i in range(len(table))]
            write_table(folder / f"{name}.csv", table)
        planned = prepare_and_fake_jobs(path)
        for job in planned.jobs_of_stage("fair"):
            header = "phase,epoch,step,loss,learning_rate,seconds,held_out_score\n"
            rows = [
                "train,1,5,9.0,1e-4,0.5,\n",
                *(f"train,{n},{9 * n},{4 - n}.0,1e-4,{n}.0,{n + job.fold}.0\n" for n in (1, 2, 3)),
            ]
            (job.folder / LOSSES).write_text("".join([header, *rows]))
        run = built(path)
        write_json(run.paths.shift, SHIFT)
        new_figure()[0].savefig(run.paths.shift.parent / "sizes.png")
        found = build_report(run)
        html = page(found)
        yield Made(run, found, html, Reader(html), markdown(found, run.paths.report))


def section(found: Report, title: str) -> list[Any]:
    (parts,) = [each.elements for each in found.sections if each.title == title]
    return parts


def test_every_section_is_there_and_linked_and_every_tag_is_closed(made: Made) -> None:
    assert made.reader.wrong == []
    ids = {attributes["id"] for _, attributes in made.reader.elements if "id" in attributes}
    links = {str(attributes["href"])[1:] for tag, attributes in made.reader.elements if tag == "a"}
    assert links == ids
    titles = {each.title for each in made.found.sections}
    assert {
        "Tables",
        "Scores",
        "Predictions",
        "Learning curves",
        "Largest errors",
    } <= titles


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
    def broken(*arguments: Any) -> str:
        raise ValueError("no fonts")

    monkeypatch.setenv("WORK_DIR", str(made.run.folder.parents[2]))
    monkeypatch.setattr(figures, "panels", broken)
    content = build_report(made.run)
    assert section(content, "Predictions") == ["This section could not be made (ValueError: no fonts)."]
    assert "no fonts" in capsys.readouterr().err


def test_learning_curves_are_the_loss_of_each_job_and_the_mean_held_out_score_over_folds(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    panels: dict[str, Any] = {}
    monkeypatch.setattr(figures, "panels", lambda curves, x_label: panels.update(curves) or "")
    learning_curve_section(made.run)
    n_jobs = len(made.run.plan.jobs_of_stage("fair"))
    losses = [(list(epochs), list(losses)) for epochs, losses, _ in panels["fair, loss"]]
    assert losses == [([1, 2, 3], [3.0, 2.0, 1.0])] * n_jobs
    ((epochs, scores, _),) = panels["fair, held-out rmse"]
    middle = (made.run.plan.n_folds - 1) / 2
    assert (list(epochs), list(scores)) == ([1, 2, 3], [1 + middle, 2 + middle, 3 + middle])


def test_the_worst_rows_come_first(made: Made) -> None:
    stage_preds = made.run.columns
    cross_fitted = (
        read_table(made.run.folder / CROSS_FITTED, ["id"]).set_index("id").loc[stage_preds.ids].to_numpy()
    )
    largest = np.nanmax(np.abs(cross_fitted - stage_preds.y) / np.nanstd(stage_preds.y, axis=0), axis=1)
    cards, order = section(made.found, "Largest errors")[1:], np.argsort(-largest)[:20]
    titles = [
        f"{rank}. {stage_preds.ids[i]}, fold {stage_preds.folds[i]}" for rank, i in enumerate(order, start=1)
    ]
    assert [card.title for card in cards] == titles
    assert "<svg" in next(iter(cards[0].molecules.values()))


def scores_of(found: Report) -> list[dict[str, str]]:
    """The rows of the table of scores by the names of its columns."""
    header, rows = section(found, "Scores")[0]
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_weights_stand_under_their_targets_and_correlations_under_their_columns(made: Made) -> None:
    stage_preds, chosen = made.run.columns, made.run.weights
    names = made.run.config.stages
    lines = scores_of(made.found)
    first = [line["stage or candidate"] for line in lines].index("good")
    weights = [line["weight"] for line in lines[first:]]
    assert weights == [cell for name in names for cell in ("", *(f"{chosen[t][name]:.3f}" for t in TARGETS))]
    _, chart = section(made.found, "Error correlation")
    assert [chart.image.count(f">{name}<") for name in stage_preds.names] == [
        2,
        2,
        2,
    ]  # of a row and a column
    is_labelled = ~np.isnan(stage_preds.y[:, 1])  # depth lacks some labels
    height = np.corrcoef(stage_preds.preds[:, :, 0] - stage_preds.y[:, :1], rowvar=False)
    depth = np.corrcoef(stage_preds.preds[is_labelled, :, 1] - stage_preds.y[is_labelled, 1:], rowvar=False)
    numbers = [float(number) for number in re.findall(r">(-?[01]\.\d\d)<", chart.image)]
    np.testing.assert_allclose(numbers, ((height + depth) / 2).ravel(), atol=0.006)


def test_a_long_reason_wraps_and_a_molecule_has_its_smiles_below_it(made: Made) -> None:
    reason = "its first job of 5 was not finished after 45.4 s, with 1.5 min left of the budget"
    left_out = [LeftOut("fair", None, "time", reason), LeftOut("good", 1, "error", "ValueError")]
    table = Table(LEFT_OUT_HEADER, [each.row for each in left_out])
    html = page(made.found._replace(sections=[Section("Left out", [table])]))
    assert f'<td class="long">{reason}</td>' in html
    assert "<td>ValueError</td>" in html
    assert ".cards img { display: block; }" in html


def test_a_stage_that_helps_has_a_gain_above_0_in_either_direction_of_the_metric(done: Path) -> None:
    runs = [run_of(done)]
    runs.append(
        built(fake_competition(done.parent, competition={"metric": "r2"}, submissions={"stack": False}))
    )
    for run, sign in zip(runs, (1, -1), strict=True):
        without = run.choice["ablation"]["good"]
        assert sign * without["difference"] > 0  # without minus with, in the metric's own sign: worse without
        found = build_report(run)
        (gain,) = [line["gain"] for line in scores_of(found) if line["stage or candidate"] == "good"]
        assert float(gain.partition(" +-")[0]) > 0


def test_one_table_has_the_scores_of_candidates_and_stages_out_of_fold_and_on_the_answers(made: Made) -> None:
    lines = {line["stage or candidate"]: line for line in scores_of(made.found)}
    choice = made.run.choice
    for name, candidate in choice["candidates"].items():
        assert float(lines[name]["score"]) == pytest.approx(candidate["score"], rel=1e-3)
        assert float(lines[name]["in_sample_score"]) == pytest.approx(candidate["in_sample_score"], rel=1e-3)
    assert "chosen" in lines[made.run.chosen]["flags"]
    for name, stage in choice["stages"].items():
        assert float(lines[name]["score"]) == pytest.approx(stage["score"], rel=1e-3)
        assert lines[name]["in_sample_score"] == ""
    answers = read_table(made.run.folder.parents[3] / "answers.csv", ["id"]).set_index("id")[TARGETS]
    written = (
        read_table(made.run.folder / "submission.csv", ["id"]).set_index("id").loc[answers.index, TARGETS]
    )
    by_hand = METRICS["rmse"](answers.to_numpy(), written.to_numpy())
    assert float(lines[made.run.chosen]["test_score"]) == pytest.approx(by_hand, rel=1e-3)
    assert made.found.facts["test_score"][0] == lines[made.run.chosen]["test_score"]
