"""Scores against numbers computed by hand, their direction, and metrics of the user's own."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.metrics import METRICS, REGRESSION, load_user_metric
from core.errors import ConfigError

TRUE = np.array([1.0, 2.0, 3.0, 4.0])
LAST_IS_TWO_TOO_HIGH = np.array([1.0, 2.0, 3.0, 6.0])
NEIGHBOURS_SWAPPED = np.array([2.0, 1.0, 4.0, 3.0])

BY_HAND = {
    "r2": (LAST_IS_TWO_TOO_HIGH, 1 - 4 / 5, True),
    "explained_variance": (LAST_IS_TWO_TOO_HIGH, 1 - 0.75 / 1.25, True),
    "rmse": (LAST_IS_TWO_TOO_HIGH, 1.0, False),
    "rmsle": (LAST_IS_TWO_TOO_HIGH, np.log(7 / 5) / 2, False),
    "wmae": (LAST_IS_TWO_TOO_HIGH, 0.5 / 3, False),
    "rae": (LAST_IS_TWO_TOO_HIGH, 2 / 4, False),
    "mse": (LAST_IS_TWO_TOO_HIGH, 1.0, False),
    "mae": (LAST_IS_TWO_TOO_HIGH, 0.5, False),
    "median_ae": (LAST_IS_TWO_TOO_HIGH, 0.0, False),
    "mape": (LAST_IS_TWO_TOO_HIGH, 0.125, False),
    "max_error": (LAST_IS_TWO_TOO_HIGH, 2.0, False),
    "pearson": (LAST_IS_TWO_TOO_HIGH, 8 / np.sqrt(5 * 14), True),
    "spearman": (NEIGHBOURS_SWAPPED, 1 - 6 * 4 / (4 * 15), True),
    "kendall": (NEIGHBOURS_SWAPPED, (4 - 2) / 6, True),
}


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.types == REGRESSION])
def test_a_metric_gives_the_number_computed_by_hand_knows_its_direction_and_is_best_for_the_labels(
    name: str,
) -> None:
    y_pred, expected, greater_is_better = BY_HAND[name]
    metric = METRICS[name]
    assert metric(TRUE[:, None], y_pred[:, None]) == pytest.approx(expected)
    assert metric.score_column(TRUE, y_pred) == pytest.approx(expected)
    assert metric.greater_is_better is greater_is_better
    assert metric.better(2.0, 1.0) is greater_is_better
    assert metric.better(1.0, 1.0) is False
    assert not metric.better(metric.score_column(TRUE, y_pred), metric.score_column(TRUE, TRUE))
    assert metric.kind == ("ranks" if name in ("spearman", "kendall") else "values")


def test_the_score_is_the_mean_over_targets_each_on_its_labelled_rows() -> None:
    y_true = np.array([[1.0, np.nan], [2.0, 10.0], [np.nan, 20.0]])
    y_pred = np.array([[2.0, 99.0], [4.0, 13.0], [99.0, 20.0]])
    assert METRICS["mae"](y_true, y_pred) == pytest.approx(((1 + 2) / 2 + (3 + 0) / 2) / 2)
    y_true, y_pred = np.zeros((2, 2)), np.array([[1.0, 4.0], [1.0, 4.0]])
    assert METRICS["rmse"](y_true, y_pred) == (1 + 4) / 2  # the mean over columns, mcrmse


def test_a_score_that_is_not_defined_is_nan_and_not_a_number_to_win_with() -> None:
    rmse, rmsle, wmae = METRICS["rmse"], METRICS["rmsle"], METRICS["wmae"]
    assert np.isnan(rmse.score_column(np.array([1.0, np.nan]), np.array([1.0, 1.0])))
    assert np.isnan(rmse.score_column(np.array([1.0, 2.0]), np.array([1.0, np.nan])))
    assert np.isnan(METRICS["pearson"].score_column(TRUE, np.ones(4)))
    assert rmse.score_column(np.array([1.0, 2.0, np.nan]), np.array([1.0, 2.0, np.nan])) == 0.0
    for lowest in (-1.0, -3.0):
        assert np.isnan(rmsle.score_column(TRUE, np.array([1.0, 2.0, 3.0, lowest])))
        assert rmsle.score_column(np.array([1.0, 2.0, np.nan]), np.array([1.0, 2.0, lowest])) == 0.0
    assert np.isnan(wmae(np.array([[1.0, np.nan], [2.0, np.nan]]), np.zeros((2, 2))))
    for metric in (wmae, METRICS["rae"]):
        assert np.isnan(metric(np.ones((3, 1)), np.zeros((3, 1))))


@pytest.mark.parametrize("label", [0.0, 0.1])
def test_r2_of_equal_labels_is_that_of_scikit_learn(label: float) -> None:
    y = np.full((7, 1), label)
    assert METRICS["r2"](y, y) == 1.0
    assert METRICS["r2"](y, y + 0.5) == 0.0


def test_wmae_is_the_formula_of_the_polymer_competition() -> None:
    """Ranges 4 and 10, 4 labels and 2: w = 1/4 * 2 * (1/2) / s and 1/10 * 2 * sqrt(1/2) / s, s = 1/2 +
    sqrt(1/2).
    """
    y_true = np.array([[0.0, np.nan], [4.0, 10.0], [2.0, 20.0], [2.0, np.nan], [np.nan, np.nan]])
    y_pred = np.array([[1.0, 99.0], [4.0, 13.0], [5.0, 20.0], [2.0, 99.0], [99.0, 99.0]])
    s = 1 / 2 + np.sqrt(1 / 2)
    first, second = 1 / 4 * 2 * (1 / 2) / s, 1 / 10 * 2 * np.sqrt(1 / 2) / s
    assert METRICS["wmae"](y_true, y_pred) == pytest.approx((first * (1 + 3) + second * 3) / 4)


def user_metric(tmp_path: Path, body: str, function: str = "score") -> str:
    path = tmp_path / "mine.py"
    path.write_text(f"import numpy as np\ndef score(y_true, y_pred):\n    {body}\n")
    return f"{path}:{function}"


def test_a_user_defined_metric_sees_the_whole_arrays_and_cannot_change_them(tmp_path: Path) -> None:
    name = user_metric(
        tmp_path, "y_true[0, 0] += 0; y_pred -= y_true; y_true[:] = 0; return np.nanmax(abs(y_pred))"
    )
    metric = load_user_metric(name, False, None)
    y_true, y_pred = np.array([[1.0, np.nan], [2.0, 5.0]]), np.array([[1.5, 9.0], [2.0, 2.0]])
    assert metric(y_true, y_pred) == metric(y_true, y_pred) == 3.0
    assert (metric.better(1.0, 2.0), metric.name) == (True, "mine.py:score")


@pytest.mark.parametrize(
    ("parameters", "takes_rows"),
    [("y, p", False), ("y, p, eps=1", False), ("y, p, *, eps=1", False), ("y, p, rows", True)],
)
def test_a_metric_gets_the_rows_if_it_has_a_third_parameter_without_a_default(
    tmp_path: Path, parameters: str, takes_rows: bool
) -> None:
    value = "rows['z'].sum()" if takes_rows else "1"
    (tmp_path / "mine.py").write_text(f"def score({parameters}):\n    return {value}\n")
    metric = load_user_metric(f"{tmp_path}/mine.py:score", True, None)
    y = np.ones((2, 1))
    assert metric.takes_rows == takes_rows
    assert metric(y, y, pd.DataFrame({"z": [3, 4]})) == (7 if takes_rows else 1)
    if takes_rows:
        with pytest.raises(ConfigError, match="mine.py:score takes the rows of the table"):
            metric(y, y)


def test_a_metric_that_raises_returns_no_number_or_is_not_there_is_the_users_mistake(tmp_path: Path) -> None:
    for body in ("raise ValueError('no')", "return 'high'", "return y_true", "return None"):
        metric = load_user_metric(user_metric(tmp_path, body), True, None)
        with pytest.raises(ConfigError, match=r"mine\.py:score must return one number for arrays \(2, 1\)"):
            metric(np.ones((2, 1)), np.ones((2, 1)))
    for name, words in (
        (user_metric(tmp_path, "return 1", "other"), "must define other"),
        (f"{tmp_path / 'absent.py'}:score", r"there is no file .*absent\.py"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_user_metric(name, True, None)
