"""Scores against numbers computed by hand, their direction, and metrics of the user's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from competition.errors import ConfigError
from competition.metrics import METRICS, load_metric

TRUE = np.array([1.0, 2.0, 3.0, 4.0])
LAST_IS_TWO_TOO_HIGH = np.array([1.0, 2.0, 3.0, 6.0])
NEIGHBOURS_SWAPPED = np.array([2.0, 1.0, 4.0, 3.0])

BY_HAND = {
    "r2": (LAST_IS_TWO_TOO_HIGH, 1 - 4 / 5, True),
    "explained_variance": (LAST_IS_TWO_TOO_HIGH, 1 - 0.75 / 1.25, True),
    "rmse": (LAST_IS_TWO_TOO_HIGH, 1.0, False),
    "mse": (LAST_IS_TWO_TOO_HIGH, 1.0, False),
    "mae": (LAST_IS_TWO_TOO_HIGH, 0.5, False),
    "median_ae": (LAST_IS_TWO_TOO_HIGH, 0.0, False),
    "mape": (LAST_IS_TWO_TOO_HIGH, 0.125, False),
    "max_error": (LAST_IS_TWO_TOO_HIGH, 2.0, False),
    "pearson": (LAST_IS_TWO_TOO_HIGH, 8 / np.sqrt(5 * 14), True),
    "spearman": (NEIGHBOURS_SWAPPED, 1 - 6 * 4 / (4 * 15), True),
    "kendall": (NEIGHBOURS_SWAPPED, (4 - 2) / 6, True),
}


def test_every_metric_has_a_number_computed_by_hand() -> None:
    assert BY_HAND.keys() == METRICS.keys()


@pytest.mark.parametrize("name", BY_HAND)
def test_a_metric_gives_the_number_computed_by_hand_and_knows_its_direction(name: str) -> None:
    y_pred, expected, greater_is_better = BY_HAND[name]
    metric = load_metric(name)
    assert metric(TRUE[:, None], y_pred[:, None]) == pytest.approx(expected)
    assert metric.one(TRUE, y_pred) == pytest.approx(expected)
    assert metric.greater_is_better is greater_is_better
    assert metric.better(2.0, 1.0) is greater_is_better
    assert metric.better(1.0, 1.0) is False


@pytest.mark.parametrize("name", BY_HAND)
def test_a_perfect_prediction_is_never_beaten(name: str) -> None:
    metric = METRICS[name]
    perfect = metric.one(TRUE, TRUE)
    assert not metric.better(metric.one(TRUE, BY_HAND[name][0]), perfect)


def test_the_score_is_the_mean_over_targets_each_on_its_labelled_rows() -> None:
    y_true = np.array([[1.0, np.nan], [2.0, 10.0], [np.nan, 20.0]])
    y_pred = np.array([[2.0, 99.0], [4.0, 13.0], [99.0, 20.0]])
    assert METRICS["mae"](y_true, y_pred) == pytest.approx(((1 + 2) / 2 + (3 + 0) / 2) / 2)


def test_a_score_that_is_not_defined_is_nan_and_not_a_number_to_win_with() -> None:
    rmse, pearson = METRICS["rmse"], METRICS["pearson"]
    assert np.isnan(rmse.one(np.array([1.0, np.nan]), np.array([1.0, 1.0])))
    assert np.isnan(rmse.one(np.array([1.0, 2.0]), np.array([1.0, np.nan])))
    assert np.isnan(pearson.one(TRUE, np.ones(4)))
    assert rmse.one(np.array([1.0, 2.0, np.nan]), np.array([1.0, 2.0, np.nan])) == 0.0


def own(tmp_path: Path, body: str, function: str = "score") -> str:
    path = tmp_path / "mine.py"
    path.write_text(body)
    return f"{path}:{function}"


def test_a_metric_of_the_users_own_sees_the_whole_arrays(tmp_path: Path) -> None:
    name = own(tmp_path, "import numpy as np\ndef score(y_true, y_pred):\n    return np.nanmax(abs(y_true - y_pred))\n")
    metric = load_metric(name, greater_is_better=False)
    assert metric(np.array([[1.0, np.nan], [2.0, 5.0]]), np.array([[1.5, 9.0], [2.0, 2.0]])) == 3.0
    assert metric.better(1.0, 2.0)


def test_a_metric_of_the_users_own_cannot_change_the_arrays(tmp_path: Path) -> None:
    metric = load_metric(own(tmp_path, "def score(y_true, y_pred):\n    y_true[:] = 0\n    return 1\n"), True)
    y_true = np.ones((2, 1))
    assert metric(y_true, np.ones((2, 1))) == 1.0
    assert (y_true == 1).all()


@pytest.mark.parametrize("body", ["raise ValueError('no')", "return 'high'", "return y_true", "return None"])
def test_a_metric_that_raises_or_returns_no_number_is_the_users_mistake(tmp_path: Path, body: str) -> None:
    metric = load_metric(own(tmp_path, f"def score(y_true, y_pred):\n    {body}\n"), True)
    with pytest.raises(ConfigError, match=r"mine\.py:score must return one number for arrays \(2, 1\)"):
        metric(np.ones((2, 1)), np.ones((2, 1)))


def test_a_metric_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"one of r2, .*'accuracy'"):
        load_metric("accuracy")
    with pytest.raises(ConfigError, match=r"absent\.py, which is not there"):
        load_metric(f"{tmp_path / 'absent.py'}:score", True)
    with pytest.raises(ConfigError, match="must define other"):
        load_metric(own(tmp_path, "def score(a, b): ...\n", "other"), True)
    with pytest.raises(ConfigError, match="SyntaxError"):
        load_metric(own(tmp_path, "def score(:\n"), True)


def test_a_direction_that_contradicts_a_named_metric_is_refused() -> None:
    assert load_metric("r2", greater_is_better=True).name == "r2"
    with pytest.raises(ConfigError, match="contradicts the metric r2"):
        load_metric("r2", greater_is_better=False)
