"""The paired bootstrap, compared with formulas."""

from dataclasses import replace

import numpy as np
import pytest

from competition.metrics import METRICS
from competition.task import Task
from submissions.blend import scoring
from submissions.blend.scoring import Scorer


@pytest.fixture(autouse=True)
def many_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "MAX_RESAMPLES", 2000)


def scorer(metric: str, y: np.ndarray, groups: np.ndarray) -> Scorer:
    return Scorer(metric=METRICS[metric], task=Task(["y"]), y=y, folds=0 * groups, groups=groups)


def test_the_standard_error_of_a_difference_of_means_is_the_textbook_formula() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=(2000, 1))
    y = np.zeros((2000, 1)) + np.arange(2000)[:, None] * 1e-12  # labels that are not all equal
    y_pred = {"a": a, "b": a + 0.3 * rng.normal(size=(2000, 1))}
    scores = scorer("mse", y, np.arange(2000)).resampled(y_pred)
    expected = (y_pred["b"] ** 2 - a**2).std() / np.sqrt(2000)
    assert (scores["b"] - scores["a"]).std() == pytest.approx(expected, rel=0.06)
    assert scores["a"].std() > 2 * expected  # unpaired standard errors would hide the difference
    small = scorer("mse", y, np.arange(2000)).resampled(y_pred, n_rows=500)
    assert (small["b"] - small["a"]).std() == pytest.approx(2 * expected, rel=0.06)


def test_rows_of_a_group_are_drawn_together() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(rng.normal(size=(200, 1)), 4, axis=0)
    y_pred = {"a": y + np.repeat(rng.normal(size=(200, 1)), 4, axis=0)}
    alone, together = (
        scorer("rmse", y, groups).resampled(y_pred)["a"].std()
        for groups in (np.arange(800), np.repeat(np.arange(200), 4))
    )
    assert together == pytest.approx(2 * alone, rel=0.1)


def test_large_tables_have_fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    y = np.arange(100.0)[:, None]
    monkeypatch.setattr(scoring, "MAX_LABELS", 6000)
    assert len(scorer("mae", y, np.arange(100)).resampled({"a": y})) == 60
    monkeypatch.setattr(scoring, "MAX_LABELS", 100)
    assert len(scorer("mae", y, np.arange(100)).resampled({"a": y})) == 50


@pytest.mark.parametrize("name", ["r2", "pearson"])
def test_resamples_with_equal_labels_have_no_score(name: str) -> None:
    """Five labels of 200 differ from the others, so that some resamples have none of them."""
    y = np.full((200, 1), 0.1)
    y[:5] = 3.7
    scores = scorer(name, y, np.arange(200)).resampled({"a": 0.9 * y})["a"]
    assert 0 < scores.isna().sum() < 100
    assert scores.min() > 0.9 and scores.max() <= 1 + 1e-9


def test_targets_are_scored_together_and_each_on_its_labelled_rows() -> None:
    y = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, np.nan]])
    y_pred = np.array([[1.0, 2.0], [1.0, 4.0], [4.0, 9.0]])
    both = replace(scorer("mae", y, np.arange(3)), task=Task(["y0", "y1"]))
    assert both.target_scores(y_pred) == {"all": 2.5, "y0": 2.0, "y1": 3.0}
    assert scorer("mae", y[:, :1], np.arange(3)).target_scores(y_pred[:, :1]) == {"y": 2.0}
