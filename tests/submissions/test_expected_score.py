"""The score to expect on the test table: its error counts the rows of both tables."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from competition.dataset import EXTRA
from core.files import read_table, write_table
from folds.similarity import Similarity
from submissions import expected_score
from submissions.expected_score import score_of_similar_rows
from tests.submissions.fakes import built, fake_competition, prepare_and_fake_jobs


def test_held_out_rows_count_by_the_odds_that_a_row_of_their_similarity_is_a_test_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "work"))
    path = fake_competition(tmp_path, n_train=200, n_test=100, submissions={"stack": False})
    prepare_and_fake_jobs(path)
    run = built(path)
    assert run.choice["expected"]["similar_rows"] is None  # without molecules and texts
    scorer = run.columns
    is_near = np.arange(200) % 2 == 0
    y_pred = scorer.y + np.where(is_near, 1.0, 3.0)[:, None]  # errors of 1 near training rows, else of 3
    held_out = np.where(is_near, 0.9, 0.2)
    rng = np.random.default_rng(0)
    for test, expected in ((np.full(100, 0.9), (1.0, 1.6)), (rng.choice([0.9, 0.2], 100), (2.0, 2.5))):
        made_up = Similarity("made up", test, {"kfold": test}, {"kfold": held_out}, {"kfold": np.arange(200)})
        monkeypatch.setattr(expected_score, "similarities", lambda *_, found=made_up: [found])
        similar_rows = score_of_similar_rows(run, scorer, y_pred)
        assert similar_rows is not None
        assert expected[0] < similar_rows["score"] < expected[1]  # rmse; of all rows 2.24
    y_pred = scorer.y + np.repeat(rng.normal(size=20), 10)[:, None]  # ten rows have the same error
    errors = []
    for groups in (np.arange(200), np.arange(200) // 10):
        similar_rows = score_of_similar_rows(run, replace(scorer, groups=groups), y_pred)
        assert similar_rows is not None
        errors.append(similar_rows["standard_error"])
    assert errors[1] / errors[0] == pytest.approx(np.sqrt(10), rel=0.3)
    perfect = score_of_similar_rows(run, scorer, scorer.y)
    assert perfect == {"score": 0.0, "standard_error": 0.0}
    extra = read_table(run.paths.train).assign(**{EXTRA: np.repeat([0, 1], [150, 50])})
    monkeypatch.setattr(expected_score, "read_table", lambda file: extra)
    n_rows = []
    monkeypatch.setattr(expected_score, "similarities", lambda rows, *_: n_rows.append(len(rows)))
    score_of_similar_rows(run, scorer, y_pred)
    assert n_rows == [150]  # rows of extra_train are in no fold


def test_it_is_the_cross_fitted_score_and_its_error_counts_the_rows_of_both_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "work"))
    path = fake_competition(tmp_path, n_train=150, n_test=30, submissions={"stack": False})
    prepare_and_fake_jobs(path)
    run = built(path)
    expected = run.choice["expected"]
    assert expected["score"] == run.choice["cross_fitted_score"]
    assert expected["standard_error"] == pytest.approx(run.choice["standard_error"] * np.sqrt(1 + 150 / 30))


def test_it_needs_no_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "work"))
    path = fake_competition(tmp_path, submissions={"stack": False})
    prepare_and_fake_jobs(path)
    files = []
    for _ in range(2):
        run = built(path)
        files.append(
            [(run.folder / name).read_bytes() for name in ("run.json", "submission.csv", "spread.csv")]
        )
        (tmp_path / "answers.csv").unlink(missing_ok=True)
        shutil.rmtree(run.folder)
    assert files[0] == files[1]


def test_far_test_rows_do_not_improve_the_score(tmp_path: Path) -> None:
    """Predictions of the fold models differ by thousands on the test table, and the errors out of fold are about 1."""
    path = fake_competition(tmp_path, submissions={"stack": False})
    plan = prepare_and_fake_jobs(path)
    for job in plan.jobs:
        file = job.test_file(plan.test_key)
        table = read_table(file)
        numbers = table.columns.drop("id")
        write_table(file, table.assign(**{name: table[name] + 1e3 * job.fold for name in numbers}))
    run = built(path)
    assert run.choice["expected"]["score"] == run.choice["cross_fitted_score"]
