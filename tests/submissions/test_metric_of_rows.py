"""A metric with a third parameter gets the raw rows of the labels wherever a run scores."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models.jobs.run_job import run_job
from pipeline.check import check_all
from submissions.blend.candidates import single_column
from submissions.blend.selection import cross_fit
from submissions.build import build_submission
from submissions.columns import training_labels
from submissions.config import load_config
from submissions.report.report import build_report
from submissions.report.scores import load_answers
from submissions.run import CHOICE, SUBMISSION_FILE, Run, candidate_file, scored_rows
from tests.submissions.fakes import fake_classes, fake_competition, planned, prepare_and_fake_jobs, run_of

CODE = """
def score(y, y_pred, rows):
    labels = rows["mood"] == "yes" if "mood" in rows else rows["height"]
    assert (abs(labels - y[:, 0]) < 1e-9).all(), "rows and labels do not belong together"
    return (abs(y_pred[:, 0] - y[:, 0]) * rows["width"]).mean()
"""


def competition(folder: Path, is_classification: bool) -> Path:
    """A competition with a metric that weights each error by another column of the table."""
    (folder / "mine.py").write_text(CODE)
    roles = {"greater_is_better": False}
    if is_classification:
        path = fake_classes(
            folder, "binary", "mine.py:score", competition={**roles, "metric_needs": "classes"}
        )
    else:
        path = fake_competition(folder, 90, competition={**roles, "metric": "mine.py:score"})
    for name in ("train", "answers"):
        table = pd.read_csv(folder / f"{name}.csv", dtype={"id": str})
        table.assign(width=table["id"].astype(int) % 4 + 1).to_csv(folder / f"{name}.csv", index=False)
    return path


def built(folder: Path, is_classification: bool) -> Run:
    path = competition(folder, is_classification)
    check_all(load_config(str(path)))
    prepare_and_fake_jobs(path)
    run = run_of(path)
    build_submission(run)
    return run


def expected(y: pd.DataFrame, y_pred: pd.DataFrame) -> float:
    width = y.index.astype(int) % 4 + 1
    first = y.iloc[:, 0]
    return float(np.mean(np.abs(y_pred.iloc[:, 0].loc[first.index] - first) * width))


def test_a_job_prints_the_score_of_its_fold(tmp_path: Path) -> None:
    plan = planned(competition(tmp_path, is_classification=False))
    result = run_job(plan.jobs[0], plan)
    assert "fold 0 of 3  valid mine.py:score" in result.lines[0]


@pytest.mark.parametrize("is_classification", [False, True])
def test_every_score_of_a_run_reads_the_rows_of_its_labels(tmp_path: Path, is_classification: bool) -> None:
    run = built(tmp_path, is_classification)
    stage_preds = run.columns
    y = pd.DataFrame(stage_preds.y, stage_preds.ids)
    choice = run.stored[CHOICE]
    y_pred = scored_rows(run.folder, run.task)
    assert choice["cross_fitted_score"] == pytest.approx(expected(y, y_pred))
    good = partial(single_column, stage_preds, stage_preds.names.index("good"))
    of_good = pd.DataFrame(cross_fit(stage_preds, good).scored, stage_preds.ids, run.task.scored_columns)
    assert choice["stages"]["good"]["score"] == pytest.approx(expected(y, of_good))
    assert choice["standard_error"] > 0
    assert not any("could not be made" in str(section) for section in build_report(run).sections)
    labels = training_labels(run.config.competition, run.paths)
    pair = {"submission": labels.aligned(y_pred), "good": labels.aligned(of_good)}
    difference = labels.compare(pair, "good").loc["submission", "difference"]
    assert difference == pytest.approx(expected(y, y_pred) - expected(y, of_good))


def test_answers_are_scored_with_their_rows_if_they_have_the_columns(tmp_path: Path) -> None:
    run = built(tmp_path, is_classification=False)
    answers = pd.read_csv(tmp_path / "answers.csv", dtype={"id": str}).set_index("id")
    submission = pd.read_csv(run.folder / SUBMISSION_FILE, dtype={"id": str}).set_index("id")
    score = load_answers(run).score(candidate_file(run.chosen, ".csv"))
    assert score == pytest.approx(expected(answers[["height"]], submission[["height"]]))
    answers.drop(columns="width").to_csv(tmp_path / "answers.csv")
    without = load_answers(run)
    assert without.scores == {}
    assert "mine.py:score must return one number" in without.notes[0]
    assert not any(
        "on labels that nothing else has seen" in note for _, note in build_report(run).facts.values()
    )
