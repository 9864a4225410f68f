"""The score to expect of rows that are as similar to the training rows as test rows are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from competition.dataset import EXTRA
from core.files import read_table
from folds.similarity import Similarity
from submissions import expected_score
from submissions.expected_score import score_of_similar_rows
from tests.submissions.fakes import fake_competition, finished


def test_held_out_rows_count_by_the_odds_that_a_row_of_their_similarity_is_a_test_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished(fake_competition(tmp_path, n_train=200, n_test=100, submissions={"stack": False}))
    assert run.choice["expected"]["similar_rows"] is None  # without molecules and texts
    scorer, rows = run.columns, np.arange(200)
    held_out = np.where(rows % 2 == 0, 0.9, 0.2)
    y_pred = (
        scorer.y + np.where(held_out > 0.5, 1.0, 3.0)[:, None]
    )  # errors of 1 near training rows, else of 3
    rng = np.random.default_rng(0)
    for test, low, high in ((np.full(100, 0.9), 1.0, 1.6), (rng.choice([0.9, 0.2], 100), 2.0, 2.5)):
        made_up = Similarity("made up", test, {"kfold": test}, {"kfold": held_out}, {"kfold": rows})
        monkeypatch.setattr(expected_score, "similarities", lambda *_, found=made_up: [found])
        assert low < score_of_similar_rows(run, scorer, y_pred)["score"] < high  # rmse; of all rows 2.24
    y_pred = scorer.y + np.repeat(rng.normal(size=20), 10)[:, None]  # ten rows have the same error
    alone, together = (
        score_of_similar_rows(run, replace(scorer, groups=groups), y_pred)["standard_error"]
        for groups in (rows, rows // 10)
    )
    assert together / alone == pytest.approx(np.sqrt(10), rel=0.3)
    perfect = score_of_similar_rows(run, scorer, scorer.y)
    assert perfect == {"score": 0.0, "standard_error": 0.0}
    extra = read_table(run.paths.train).assign(**{EXTRA: np.repeat([0, 1], [150, 50])})
    monkeypatch.setattr(expected_score, "read_table", lambda file: extra)
    n_rows = []
    monkeypatch.setattr(expected_score, "similarities", lambda rows, *_: n_rows.append(len(rows)))
    score_of_similar_rows(run, scorer, y_pred)
    assert n_rows == [150]  # rows of extra_train are in no fold
