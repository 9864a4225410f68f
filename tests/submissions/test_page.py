"""The page: whole, valid, inert; its numbers are those of the Markdown; its pictures those of the rows."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from competition.paths import PROJECT
from models.settings import NeuralStage
from models.training import mlm, trainer
from submissions import details, pictures
from submissions.findings import Compared, gather
from submissions.markup import Html, element
from submissions.page import page
from submissions.report import markdown
from tests.submissions.fakes import fake_competition, prepare_and_fake_jobs, run_steps
from tests.submissions.pages import ATTACK, COLUMN, TEXT, Made, made

VOID = {"meta", "link", "img", "input", "br"}
SECTIONS = [
    "Candidates",
    "Stages",
    "Blend weights",
    "Predictions",
    "Errors between stages",
    "Learning curves",
    "Folds",
    "Worst rows",
    "Uncertain test rows",
    "Tables",
    "Settings and versions",
]


class Reader(HTMLParser):
    """All elements with their attributes, the text outside scripts, and every tag that does not fit."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.wrong: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        self.wrong += self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if len(dict(attrs)) < len(attrs):
            self.wrong.append(f"{tag} has an attribute twice")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.text.append(data)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORK_DIR", str(folder / "work"))
        yield made(folder)


@pytest.fixture(scope="module")
def reader(report: Made) -> Reader:
    return Reader(report.html)


def test_every_section_is_there_and_linked(reader: Reader) -> None:
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    links = [str(attributes["href"]) for tag, attributes in reader.elements if tag == "a"]
    assert {link.removeprefix("#") for link in links} <= set(ids)
    for title in SECTIONS:
        assert reader.text.count(title) == 2, title  # the heading and the link


def test_every_tag_is_closed_in_its_place(reader: Reader) -> None:
    assert reader.wrong == []


def test_numbers_are_those_of_the_summary(report: Made, reader: Reader) -> None:
    text = " ".join(reader.text)
    rows = [line.split("|")[2:-1] for line in report.summary.splitlines() if line.startswith("| ")]
    numbers = [cell.strip() for row in rows for cell in row if re.search(r"\d", cell)]
    assert len(numbers) > 40
    assert [number for number in numbers if number.replace("+-", "±") not in text] == []
    whole = report.found.whole
    for value in (whole.cross_fitted_score, whole.in_sample_score, report.found.optimism):
        assert f"{value:#.5g}" in text
    assert f"± {whole.standard_error:.2g}" in text


def test_ids_texts_and_names_of_columns_stay_text(report: Made, reader: Reader) -> None:
    tags = [tag for tag, _ in reader.elements]
    assert tags.count("script") == 2
    assert "b" not in tags
    assert not [name for _, attributes in reader.elements for name in attributes if name.startswith("on")]
    text = " ".join(reader.text)
    assert ATTACK in text
    assert TEXT in text
    assert COLUMN in [attributes.get("aria-label") for _, attributes in reader.elements]
    points = re.search(r'<script type="application/json" id="points">(.*?)</script>', report.html, flags=re.DOTALL)
    assert points
    assert all(row_id.startswith(ATTACK) for row_id in json.loads(points[1])["ids"])


def test_nothing_on_the_page_asks_the_network(report: Made, reader: Reader) -> None:
    assert "://" not in report.html
    assert "url(" not in report.html
    assert "@import" not in report.html
    places = [
        str(attributes[name]) for _, attributes in reader.elements for name in ("src", "href") if name in attributes
    ]
    assert places
    assert all(place.startswith(("#", "data:")) for place in places)
    policy = next(a["content"] for _, a in reader.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert str(policy).startswith("default-src 'none'")


def test_the_page_is_small(report: Made) -> None:
    assert len(report.html.encode()) < 5_000_000


def test_points_stay_few_with_many_columns() -> None:
    n, n_stages, targets = 6000, 40, ["a", "b", "c", "d", "e"]
    rng = np.random.default_rng(0)
    stages = [f"s{j}" for j in range(n_stages)]
    oof = {stage: rng.normal(size=(n, 5)) for stage in stages}
    found = SimpleNamespace(
        columns=SimpleNamespace(
            y=rng.normal(size=(n, 5)),
            oof_of=oof.__getitem__,
            folds=np.arange(n) % 5,
            ids=[f"molecule {i}" for i in range(n)],
        ),
        cross_fitted=rng.normal(size=(n, 5)),
        run=SimpleNamespace(
            config=SimpleNamespace(stages=stages, competition=SimpleNamespace(targets=targets, seed=0))
        ),
    )
    points = details.points(found)  # type: ignore[arg-type]
    assert points["of"] == n
    assert len(points["ids"]) == 150_000 // (5 * 42)
    assert len(json.dumps(points)) < 2_000_000
    row = found.columns.ids.index(points["ids"][7])
    assert points["predictions"]["s3"][1][7] == float(f"{oof['s3'][row, 1]:.5g}")
    assert points["truth"][4][7] == float(f"{found.columns.y[row, 4]:.5g}")


def test_the_error_of_the_score_is_that_of_theory(tmp_path: Path) -> None:
    path = fake_competition(tmp_path, 400, competition={"metric": "mse"}, submissions={"bootstrap": 1000})
    prepare_and_fake_jobs(path)
    found = gather(run_steps(path))
    squares = (found.cross_fitted - found.columns.y) ** 2
    variance = [np.nanvar(part) / np.isfinite(part).sum() for part in squares.T]
    assert found.whole.standard_error == pytest.approx(np.sqrt(np.sum(variance)) / 2, rel=0.2)


def test_optimism_is_what_the_in_sample_score_looks_better_by(report: Made) -> None:
    whole = report.found.whole
    assert report.found.optimism == pytest.approx(whole.cross_fitted_score - whole.in_sample_score)  # rmse


def test_the_worst_rows_are_those_with_the_largest_scaled_errors(report: Made) -> None:
    found = report.found
    scale = np.nanstd(found.columns.y, axis=0)
    largest = np.nanmax(np.abs(found.cross_fitted - found.columns.y) / scale, axis=1)
    expected = [found.columns.ids[i] for i in np.argsort(-largest)[:20]]
    found_ids = re.findall(r"<h3>\d+\. (\S.*?) <small>fold", report.html)
    assert [Reader(row_id).text for row_id in found_ids] == [[row_id] for row_id in expected]


def test_the_most_uncertain_test_row_comes_first(report: Made) -> None:
    section = report.html[report.html.index('id="uncertain-test-rows"') :]
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</th><td.*?>(.*?)</td>", section)
    assert rows[0][1].endswith("± 29")
    assert rows[19][1].endswith("± 10")


def test_correlation_of_errors_by_hand() -> None:
    y = np.array([[1.0], [2.0], [3.0], [np.nan], [5.0]])
    errors = np.array([[1.0, 2.0, 1.0], [-1.0, -2.0, 1.0], [2.0, 4.0, -1.0], [9.0, 0.0, 0.0], [9.0, 9.0, 9.0]])
    columns = SimpleNamespace(y=y, oof=(y + errors)[:, :, None], folds=np.array([0, 1, 0, 1, -1]))
    found = details.error_correlation(columns, 0)  # type: ignore[arg-type]
    np.testing.assert_allclose(found[0, 1], 1.0)
    np.testing.assert_allclose(found[0, 2], np.corrcoef([1, -1, 2], [1, 1, -1])[0, 1])


def test_the_schedule_is_drawn_from_the_settings() -> None:
    stage = NeuralStage(epochs=2, batch_size=5, learning_rate=0.5, schedule="linear", warmup=0)
    rates = details.schedule_of(stage, np.repeat([0, 1], 10))  # 10 rows to train on: 4 steps
    assert rates == [(0.5, 0.5), (1.0, 0.375), (1.5, 0.25), (2.0, 0.125)]
    short = NeuralStage(epochs=1, batch_size=100, warmup=50)
    assert max(rate for _, rate in details.schedule_of(short, np.repeat([0, 1], 10))) <= short.learning_rate


def test_names_of_the_files_of_a_training_are_those_of_the_trainer() -> None:
    assert (details.TRAINING, details.PRETRAINING) == (trainer.TRAINING, mlm.FILE)


def test_curves_are_the_losses_of_each_job(report: Made) -> None:
    (curves,) = details.learning_curves(report.found)
    assert (curves.stage, curves.phase) == ("fair", "labels")
    assert curves.losses == [[3.0 + fold, 2.0 + fold, 1.0 + fold] for fold in range(3)]
    assert "it ends at 2.0000" in report.html
    assert "Learning rate: linear, warm-up 0.1" in report.html


def test_what_was_found_about_folds_is_inside(report: Made, reader: Reader) -> None:
    picture = (PROJECT / "docs" / "schedules.png").read_bytes()
    assert f'src="data:image/png;base64,{base64.b64encode(picture).decode()}"' in report.html
    text = " ".join(reader.text)
    for words in ("0.51230 ± 0.034", "0.31250", "scaffold: test molecules are far", "run ./run.sh folds again"):
        assert words in text, words


def test_what_later_steps_add_is_shown_by_page_and_summary(report: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORK_DIR", str(report.found.run.config.competition.train.parent / "work"))
    found = replace(
        report.found,
        drop_one=[Compared("good", None, 0.7771, 0.1234, 0.0456)],
        against=[Compared("the previous run abc", None, None, 0.0321, 0.0123)],
        postprocessing={
            "height": [{"step": "isotonic", "kept": True, "score_without": 0.8181, "score_with": 0.8080}],
            "depth": [{"step": "clip", "kept": False, "score_without": 0.7, "score_with": 0.6}],
        },
    )
    summary, text = markdown(found), " ".join(Reader(page(found)).text)
    for words in (
        "0.77710",
        "0.12340",
        "0.045600",
        "isotonic",
        "0.81810",
        "0.80800",
        "left out for all targets, since the score does not clearly gain: clip",
        "previous run abc",
    ):
        assert words in " ".join(summary.split()), words
        assert words in text, words


@pytest.mark.parametrize(("metric", "sign"), [("rmse", 1), ("r2", -1)])
def test_a_stage_that_helps_has_a_gain_above_0(tmp_path: Path, metric: str, sign: int) -> None:
    path = fake_competition(tmp_path, competition={"metric": metric})
    prepare_and_fake_jobs(path)
    run = run_steps(path)
    stored = run.part("blend")
    part = {"cross_fitted_score": 0.9, "difference": sign * 0.25, "standard_error": 0.1}
    stored["drop_one"] = {"good": part}  # without minus with, in the metric's own sign: worse without
    run.keep("blend", stored, list(stored["files"]))
    assert gather(run).drop_one == [Compared("good", None, 0.9, 0.25, 0.1)]


def test_text_is_escaped_and_markup_is_not() -> None:
    assert element("p", "a < b & c", Html("<i>d</i>"), class_='"x"') == (
        '<p class="&quot;x&quot;">a &lt; b &amp; c<i>d</i></p>'
    )


def test_a_molecule_is_drawn_in_the_colour_of_the_text() -> None:
    drawing = pictures.molecule("CC(=O)Nc1ccc(O)cc1")
    assert Reader(drawing).wrong == []
    assert "currentColor" in drawing
    assert "#000000" not in drawing
    assert drawing.count("<path") > 10
