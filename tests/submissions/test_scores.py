"""What a run scores with a metric that reads the raw rows."""

from functools import partial

import pandas as pd
import pytest

from models.jobs.run_job import run_job
from submissions.blend.candidates import single_column
from submissions.blend.selection import cross_fit
from submissions.columns import scored_rows
from submissions.manifest import SUBMISSION_FILE, candidate_file
from submissions.report.report import build_report
from submissions.report.scores import load_answers
from tests.pipeline.made import checked
from tests.submissions.fakes import fake_classes, fake_competition, finished, planned

CODE = """
def score(y, y_pred, rows):
    labels = rows["mood"] == "yes" if "mood" in rows else rows["height"]
    assert (abs(labels - y[:, 0]) < 1e-9).all(), "rows and labels do not belong together"
    return (abs(y_pred[:, 0] - y[:, 0]) * rows["width"]).mean()
"""


def read(file):
    return pd.read_csv(file, dtype={"id": str}).set_index("id")


def weighted(folder, is_classification):
    """A competition with a metric that weights each error by another column of the table."""
    (folder / "mine.py").write_text(CODE)
    roles = {"metric": "mine.py:score", "greater_is_better": False}
    if is_classification:
        roles["metric_needs"] = "classes"
        path = fake_classes(folder, "binary", "mine.py:score", competition=roles)
    else:
        path = fake_competition(folder, 90, competition=roles)
    for file in (folder / "train.csv", folder / "answers.csv"):
        table = read(file)
        table.assign(width=table.index.astype(int) % 4 + 1).to_csv(file)
    return path


def expected(y, y_pred):
    errors = (y_pred.iloc[:, 0].loc[y.index] - y.iloc[:, 0]).abs()
    return (errors * (y.index.astype(int) % 4 + 1)).mean()


@pytest.mark.draws_figures
@pytest.mark.parametrize("is_classification", [False, True])
def test_every_score_of_a_run_reads_the_rows_of_its_labels(tmp_path, is_classification):
    path = weighted(tmp_path, is_classification)
    checked(path)
    run = finished(path)
    columns, choice = run.columns, run.choice
    y, y_pred = pd.DataFrame(columns.y, columns.ids), scored_rows(run.folder, run.task)
    assert choice.submitted.score == pytest.approx(expected(y, y_pred))
    good = cross_fit(columns, partial(single_column, columns, columns.names.index("good"))).scored
    of_good = pd.DataFrame(good, columns.ids, run.task.scored_columns)
    assert choice.stages["good"].score == pytest.approx(expected(y, of_good))
    assert choice.submitted.score_standard_error > 0
    assert "could not be made" not in str(build_report(run).sections)


def test_jobs_and_answers_are_scored_with_their_rows_if_they_have_the_columns(tmp_path):
    path = weighted(tmp_path, is_classification=False)
    plan = planned(path)
    assert "fold 0 of 3  valid mine.py:score" in run_job(plan.jobs[0], plan).lines[0]
    run = finished(path)
    answers, submission = read(tmp_path / "answers.csv"), read(run.folder / SUBMISSION_FILE)
    score = load_answers(run).score(candidate_file(run.chosen, ".csv"))
    assert score == pytest.approx(expected(answers[["height"]], submission[["height"]]))
    answers.drop(columns="width").to_csv(tmp_path / "answers.csv")
    without = load_answers(run)
    assert without.scores == {}
    assert "mine.py:score must return one number" in without.notes[0]


def test_rows_of_the_answers_that_were_not_scored_on_the_platform_have_no_label(tmp_path):
    """Kaggle writes -1."""
    run = finished(fake_classes(tmp_path, "multilabel", "roc_auc"))
    answers = read(tmp_path / "answers.csv").astype(object)
    answers.iloc[:7] = -1
    answers.to_csv(tmp_path / "answers.csv")
    scored = load_answers(run)
    assert scored.scores and scored.notes == ["7 test labels are missing or censored and not scored."]


@pytest.mark.parametrize(("renamed", "words"), [({}, "unscored"), ({"id": "name"}, "missing columns: id")])
def test_answers_that_cannot_be_read_cost_the_score_of_the_answers_only(tmp_path, renamed, words):
    path = weighted(tmp_path, is_classification=False)
    run = finished(path)
    answers = read(tmp_path / "answers.csv").reset_index().astype(object)
    answers.loc[0, "height"] = "unscored"
    answers.rename(columns=renamed).to_csv(tmp_path / "answers.csv", index=False)
    (note,) = load_answers(run).notes
    assert note.startswith("WARNING: test labels not scored: ") and words in note
    assert run.chosen in str(build_report(run).sections)
