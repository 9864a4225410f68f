"""The report: its numbers are those of the run, names stay text, and the page asks nothing of the network."""

import os
import re
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from markupsafe import escape

from competition.metrics import METRICS
from core.files import read_json, write_table
from core.text import format_with_error
from core.user_tables import read_text_table
from models.job_folder import LOSSES
from models.jobs.budget_stages import Clock
from models.jobs.job_files import write_report
from pipeline.full import describe_run
from submissions.manifest import SUBMISSION_FILE, ExpectedShift, LeftOut
from submissions.report import figures
from submissions.report import report as report_module
from submissions.report.predictions import cross_fitted
from submissions.report.report import build_report, markdown, page
from submissions.report.scores import time_line
from tests.conftest import SMOKE
from tests.submissions.fakes import (
    TARGETS,
    built,
    by_id,
    fake_competition,
    prepare_and_fake_jobs,
    run_of,
)

pytestmark = pytest.mark.draws_figures

ATTACK = "<img src=x onerror=alert(1)>"
TEXT = '</script><script>alert(2)</script> & "more"'
COLUMN = "<b>note</b>"
CURVE = (
    "epoch,step,loss,learning_rate,seconds,held_out_score\n"
    "1,5,9.0,1e-4,0.5,\n1,9,3.0,1e-4,1.0,{0}1\n2,18,2.0,1e-4,2.0,{0}2\n3,27,1.0,1e-4,3.0,{0}3\n"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
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
            write_report(job.folder, {"seconds": 1.5})
        for job in plan.jobs_of_stage("fair"):
            (job.folder / LOSSES).write_text(CURVE.format(job.fold))
        run = built(path)
        yield run, build_report(run)


def section(found, title):
    (parts,) = [each.elements for each in found.sections if each.title == title]
    return parts


def rows_of(found, title="Scores"):
    """The rows of the table of a section by the names of its columns."""
    header, rows = section(found, title)[0]
    return [dict(zip(header, row, strict=True)) for row in rows]


def scores_of(found):
    """The first row of each stage and candidate in the table of scores."""
    return {line["stage or candidate"]: line for line in rows_of(found) if line["stage or candidate"]}


def test_ids_texts_and_names_of_columns_stay_text_and_nothing_on_the_page_asks_the_network(
    made,
):
    html = page(made[1])
    assert all(escape(name) in html for name in (ATTACK, TEXT, COLUMN))
    assert not any(name in html for name in (ATTACK, "<script", COLUMN))
    sources = re.findall(r'src="([^"]*)', html)
    assert len(sources) > 15 and all(source.startswith("data:image/") for source in sources)
    assert "://" not in html and len(html.encode()) < 3_000_000
    assert "default-src 'none'" in html
    assert re.findall(r'href="#(s\d+)"', html) == re.findall(r'id="(s\d+)"', html)


def test_the_page_has_all_sections_and_begins_with_the_score_to_expect(made, monkeypatch):
    run, report = made
    expected, n_models = run.choice.expected, sum(job.predicts_test for job in run.plan.jobs)
    assert report.summary == (
        f"Expect rmse {expected.text}. It was not examined whether test rows differ from training rows. Submitted: "
        f"{run.chosen} of good, fair, poor; a test prediction uses {n_models} models (folds and seeds)."
    )
    caveat = "It was not examined whether test rows differ from training rows."
    assert describe_run(run, None)["warnings"] == [caveat]
    titles = {each.title for each in report.sections}
    assert {"Tables", "Scores", "Predictions", "Learning curves", "Largest errors"} <= titles
    chart = section(report, "Stages and blends")[0].image
    assert all(name in chart for name in ("good", "fair", "poor", *run.candidates))
    numbers = re.findall(r"\| +(\d\S+) ", markdown(report, run.paths.report))
    html = page(report)
    assert len(numbers) > 25 and all(number in html for number in numbers)
    assert "could not be made" not in html
    monkeypatch.setenv("WORK_DIR", str(run.folder.parents[2]))
    answers = {"answers": ["WARNING: more.csv has labels"]}
    with monkeypatch.context() as patch:
        patch.setattr(report_module, "read_json", lambda *given: {**read_json(*given), **answers})
        assert ". WARNING: more.csv has labels. Submitted" in build_report(run).summary
    report = build_report(replace(run, left_out=[LeftOut("gone", 1, "error", "ValueError")]))
    first, second, *_, last = report.closing
    assert first.startswith(f"Submission: {run.paths.submission}, a copy of ")
    assert second == "Left out, at least in part: gone; the reasons are under Left out"
    assert last.startswith("Next: edit the YAML, then ./run.sh full mixed and ./run.sh compare mixed; ")
    assert section(report, "What next") == report.closing[1:]


def test_what_could_be_better_is_a_line_each(made, monkeypatch):
    run, _ = made
    monkeypatch.setenv("WORK_DIR", str(run.folder.parents[2]))
    shift = ExpectedShift(sentence="They differ.", factor=None)
    unknown = {"shift": shift, "interval": None, "unknown": "No stage is fast enough."}
    expected = run.choice.expected.model_copy(update=unknown)
    choice = run.choice.model_copy(update={"expected": expected}, deep=True)
    for weights in choice.submitted.weights.values():
        weights["poor"] = 0.0004
    stack = choice.model_copy(update={"chosen": "lightgbm_stack"})
    monkeypatch.setattr(type(run), "choice", choice)
    unused = {"unused_columns": ["batch"]}
    monkeypatch.setattr(report_module, "read_json", lambda *given: {**read_json(*given), **unused})
    report = build_report(run)
    assert report.summary.startswith(
        f"They differ. The error of the test rows is not known, and rmse {expected.score:#.4g} may not hold. "
        "No stage is fast enough. Submitted: "
    )
    assert "of good, fair; a test" in report.summary or "of fair, good; a test" in report.summary
    lines = "\n".join(report.closing)
    assert re.search(r"Without weight in the submission: poor, which took \S+ s\n", lines)
    assert "Test rows differ: ./run.sh folds mixed recommends" in lines
    assert "Columns of both tables that no setting reads: 'batch'" in lines
    n_models = sum(job.predicts_test and job.stage != "poor" for job in run.plan.jobs)
    assert f"a test prediction uses {n_models} models" in report.summary
    monkeypatch.setattr(type(run), "choice", stack)  # whose trees read every stage
    assert "Without weight" not in "\n".join(build_report(run).closing)


def test_scores_by_fold_are_those_of_its_rows_and_the_errors_are_of_what_was_resampled(made):
    run, report = made
    *lines, mean = rows_of(report, "Scores by fold")
    scores = run.choice.stages["good"].fold_scores["all"]
    assert mean["good"] == format_with_error(np.mean(scores), np.std(scores, ddof=1))
    assert [line["fold"] for line in lines] == ["0", "1", "2"]
    columns = run.columns
    for line in lines:
        which = columns.folds == int(line["fold"])
        assert int(line["rows"]) == which.sum()
        by_hand = METRICS["rmse"](columns.y[which], columns.stage_oof("good")[which])
        assert float(line["good"]) == pytest.approx(by_hand, rel=1e-3)
    assert report.subtitle.endswith("+- is a standard error (bootstrap over rows)")


def test_the_time_line_has_the_jobs_of_the_command_and_of_no_earlier_one(made):
    run, report = made
    assert "Time line" not in {each.title for each in report.sections}  # there is no clock
    for job in run.plan.jobs:
        ended = time.time() - (7200 if job.stage == "poor" else 60)
        os.utime(job.folder / "report.json", (ended, ended))
    (figure,) = time_line(replace(run, clock=Clock(time.monotonic() - 600)))
    assert all(name in figure.image for name in ("good", "fair")) and "poor" not in figure.image
    assert time_line(replace(run, clock=Clock(time.monotonic() - 1))) == []


def test_paths_on_the_page_are_relative_to_it_and_those_in_the_terminal_to_the_reader(made, monkeypatch):
    run, _ = made
    monkeypatch.setenv("WORK_DIR", str(run.folder.parents[2]))
    assert f"Submission: {run.paths.submission}" in report_module.report(run)
    html = (run.paths.report / "index.html").read_text()
    assert str(run.paths.root) not in html
    assert f"Submission: ../submission.csv, a copy of ../submissions/{run.name}/submission.csv" in html
    assert (run.paths.report / "../submission.csv").exists()


def test_a_section_with_an_error_is_a_note_and_ends_no_report(made, monkeypatch, capsys):
    monkeypatch.setenv("WORK_DIR", str(made[0].folder.parents[2]))
    monkeypatch.delattr(figures, "panels")
    (note,) = section(build_report(made[0]), "Predictions")
    assert note.startswith("This section could not be made (AttributeError: ")
    assert "AttributeError" in capsys.readouterr().err


def test_the_worst_rows_come_first(made):
    run, report = made
    columns = run.columns
    errors = np.abs(cross_fitted(run) - columns.y) / np.nanstd(columns.y, axis=0)
    worst = np.argsort(-np.nanmax(errors, axis=1))[:20]
    cards = section(report, "Largest errors")[1:]
    titles = [f"{rank}. {columns.ids[i]}, fold {columns.folds[i]}" for rank, i in enumerate(worst, start=1)]
    assert [card.title for card in cards] == titles
    assert "<svg" in next(iter(cards[0].molecules.values()))


def test_weights_stand_under_their_targets(made):
    run, report = made
    lines = rows_of(report, "Scores by target")
    expected = [(name, t, f"{run.weights[t][name]:.3f}") for name in run.config.stages for t in TARGETS]
    assert [(line["stage"], line["target"], line["weight"]) for line in lines] == expected
    assert "weight" not in rows_of(report)[0]


def test_a_stage_that_helps_has_a_gain_above_0_in_either_direction_of_the_metric(done):
    first = run_of(done)
    settings = {"competition": {"metric": "r2"}, "submissions": {"stack": False}}
    for run, sign in ((first, 1), (built(fake_competition(done.parent, **settings)), -1)):
        without = run.choice.ablation["good"]
        assert sign * without.difference > 0  # without minus with, in the metric's own sign: worse without
        assert float(scores_of(build_report(run))["good"]["gain"].partition(" +-")[0]) > 0


def test_one_table_has_the_scores_of_candidates_and_stages_out_of_fold_and_on_the_answers(
    made,
):
    run, report = made
    lines, choice = scores_of(report), run.choice
    for name, record in (choice.candidates | choice.stages).items():
        score, _, error = lines[name]["score"].partition(" +- ")
        assert float(score) == pytest.approx(record.score, rel=1e-2)
        assert float(error) == pytest.approx(record.score_standard_error, rel=0.05)
        in_sample = f"{record.in_sample_score:#.4g}" if name in choice.candidates else ""
        assert lines[name]["in_sample_score"] == in_sample
    chosen = lines[run.chosen]
    assert "chosen" in chosen["flags"]
    answers = by_id(run.config.competition.answers)[TARGETS]
    submitted = by_id(run.folder / SUBMISSION_FILE).loc[answers.index, TARGETS]
    by_hand = METRICS["rmse"](answers.to_numpy(), submitted.to_numpy())
    assert float(chosen["test_score"]) == pytest.approx(by_hand, rel=1e-3)
    assert report.facts["test_score"][0] == chosen["test_score"]
