"""Scores beside those of scikit-learn and numbers computed by hand, and metrics of the user's own."""

from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sklearn

from competition.class_metrics import ClassCounts, class_counts
from competition.metrics import METRICS, get_metric, load_user_metric, raw_rows_for
from core.errors import ConfigError
from core.types import Array

TRUE = np.array([1.0, 2.0, 3.0, 4.0])
RNG = np.random.default_rng(0)
CLASSES, GUESSED = RNG.integers(4, size=(2, 300)).astype(float)
GUESSED[:150] = CLASSES[:150]
P = RNG.dirichlet(np.ones(4), 300)
IS_ONE, P_ONE = (CLASSES == 1).astype(float), P[:, 1].round(1).clip(0.01)  # with ties
LAST_IS_TWO_TOO_HIGH = {
    "r2": 1 - 4 / 5,
    "explained_variance": 1 - 0.75 / 1.25,
    "rmse": 1.0,
    "mse": 1.0,
    "rmsle": np.log(7 / 5) / 2,
    "mae": 0.5,
    "wmae": 0.5 / 3,
    "rae": 2 / 4,
    "median_ae": 0.0,
    "mape": 0.125,
    "max_error": 2.0,
    "pearson": 8 / np.sqrt(5 * 14),
}
NEIGHBOURS_SWAPPED = {"spearman": 1 - 6 * 4 / (4 * 15), "kendall": (4 - 2) / 6}
OF_LABELS = {
    "accuracy": sklearn.accuracy_score,
    "balanced_accuracy": sklearn.balanced_accuracy_score,
    "f1_macro": lambda y, p: sklearn.f1_score(y, p, average="macro"),
    "f1_micro": lambda y, p: sklearn.f1_score(y, p, average="micro"),
    "f1_weighted": lambda y, p: sklearn.f1_score(y, p, average="weighted"),
    "mcc": sklearn.matthews_corrcoef,
    "quadratic_kappa": lambda y, p: sklearn.cohen_kappa_score(y, p, weights="quadratic"),
}


@pytest.mark.parametrize(
    ("name", "y_true", "y_pred", "expected"),
    [
        *((name, TRUE, [1, 2, 3, 6], score) for name, score in LAST_IS_TWO_TOO_HIGH.items()),
        *((name, TRUE, [2, 1, 4, 3], score) for name, score in NEIGHBOURS_SWAPPED.items()),
        *((name, CLASSES, GUESSED, score(CLASSES, GUESSED)) for name, score in OF_LABELS.items()),
        ("r2", [0.1] * 7, [0.1] * 7, 1.0),  # their variance is a rounding error
        ("r2", [0.1] * 7, [0.6] * 7, 0.0),
        ("log_loss", CLASSES, P, sklearn.log_loss(CLASSES, P)),
        ("log_loss", IS_ONE, P_ONE, sklearn.log_loss(IS_ONE, P_ONE)),
        ("brier", CLASSES, P, ((P - np.eye(4)[CLASSES.astype(int)]) ** 2).sum(axis=1).mean()),
        ("brier", IS_ONE, P_ONE, sklearn.brier_score_loss(IS_ONE, P_ONE)),
        ("roc_auc", CLASSES, P, sklearn.roc_auc_score(CLASSES, P, multi_class="ovr")),
        ("roc_auc", IS_ONE, P_ONE, sklearn.roc_auc_score(IS_ONE, P_ONE)),
        ("average_precision", CLASSES, P, sklearn.average_precision_score(CLASSES, P)),
        ("average_precision", IS_ONE, P_ONE, sklearn.average_precision_score(IS_ONE, P_ONE)),
        ("f1", [0, 1, 1, 1], [1, 1, 0, 0], 2 * 1 / (3 + 2)),  # of class 1
        ("f1", [0, 1, 1, 1], [0, 0, 0, 0], 0.0),
        ("mcc", [0, 1, 1, 1], [0, 0, 0, 0], 0.0),
        ("map_at_2", [0, 1, 2], [[0.5, 0.3, 0.2]] * 3, (1 + 1 / 2 + 0) / 3),
        ("map_at_3", [0, 1, 2], [[0.5, 0.3, 0.2]] * 3, (1 + 1 / 2 + 1 / 3) / 3),
        ("rmsle", [1, 2, np.nan], [1, 2, -3], 0.0),
        # What is not defined is no number to win with.
        ("rmse", [1, np.nan], [1, 1], np.nan),
        ("rmse", [1, 2], [1, np.nan], np.nan),
        ("pearson", [1, 2, 3], [1, 1, 1], np.nan),
        ("rmsle", [1, 2, 3], [1, 2, -1], np.nan),
        ("wmae", [1, 1, 1], [0, 0, 0], np.nan),
        ("rae", [1, 1, 1], [0, 0, 0], np.nan),
    ],
)
def test_a_score_is_that_of_scikit_learn_or_computed_by_hand(name, y_true, y_pred, expected):
    y, predicted = np.array(y_true, dtype=float), np.array(y_pred, dtype=float)
    score = get_metric(name)(y[:, None], predicted.reshape(len(y), -1))
    assert score == pytest.approx(expected, nan_ok=True)
    assert get_metric(name).score_column(y, predicted) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("name", OF_LABELS)
def test_classes_that_no_row_has_change_no_score_of_labels(name):
    y, labels = CLASSES % 2, GUESSED % 2
    for guessed, expected in ((labels, OF_LABELS[name](y, labels)), (y, 1.0)):
        *by_class, distance = class_counts(y, guessed)
        padded = ClassCounts(*(np.pad(each, (0, 2)) for each in by_class), distance)
        assert METRICS[name].score_from_counts(padded) == pytest.approx(expected)


def test_errors_are_better_if_they_are_lower_and_other_scores_if_they_are_greater():
    lower = [name for name, metric in METRICS.items() if not metric.greater_is_better]
    assert " ".join(lower) == "rmse mse rmsle mae wmae rae median_ae mape max_error log_loss brier"
    assert (METRICS["r2"].direction, METRICS["mae"].direction) == ("greater is better", "lower is better")
    assert get_metric("pr_auc") is get_metric("auprc") is METRICS["average_precision"]  # other usual names
    assert get_metric("qwk") is METRICS["quadratic_kappa"]


def test_the_score_is_the_mean_over_targets_each_on_its_labelled_rows():
    y_true = np.array([[1.0, np.nan], [2.0, 10.0], [np.nan, 20.0]])
    y_pred = np.array([[2.0, 99.0], [4.0, 13.0], [99.0, 20.0]])
    assert METRICS["mae"](y_true, y_pred) == pytest.approx(((1 + 2) / 2 + (3 + 0) / 2) / 2)
    assert METRICS["rmse"](np.zeros((2, 2)), np.array([[1.0, 4.0], [1.0, 4.0]])) == (1 + 4) / 2  # mcrmse


def test_multilabel_scores_are_means_over_columns_without_missing_labels_and_columns_of_one_class():
    y: Array = np.array([[0, 1, 1], [1, np.nan, 1], [1, 0, 1], [0, 1, 1.0]])
    p: Array = np.array([[0.1, 0.9, 0.5], [0.8, 0.0, 0.4], [0.05, 0.3, 0.3], [0.2, 0.1, 0.2]])
    assert METRICS["roc_auc"](y, p) == pytest.approx((2 / 4 + 1 / 2) / 2)
    labels = (p > 0.25).astype(float)
    f1_of_columns = (2 / (2 + 1) + 2 / (2 + 2) + 2 * 3 / (3 + 4)) / 3
    for name, expected in (
        ("f1", f1_of_columns),
        ("f1_macro", f1_of_columns),  # what the field calls macro over labels
        ("f1_micro", 2 * 5 / (6 + 8)),
    ):
        assert get_metric(name, "multilabel")(y, labels) == pytest.approx(expected), name


def test_wmae_is_the_formula_of_the_polymer_competition():
    """Ranges 4 and 10, 4 labels and 2: w = 1/4 * 2 * (1/2) / s and 1/10 * 2 * sqrt(1/2) / s, s = 1/2 +
    sqrt(1/2).
    """
    y_true = np.array([[0.0, np.nan], [4.0, 10.0], [2.0, 20.0], [2.0, np.nan], [np.nan, np.nan]])
    y_pred = np.array([[1.0, 99.0], [4.0, 13.0], [5.0, 20.0], [2.0, 99.0], [99.0, 99.0]])
    s = 1 / 2 + np.sqrt(1 / 2)
    first, second = 1 / 4 * 2 * (1 / 2) / s, 1 / 10 * 2 * np.sqrt(1 / 2) / s
    assert METRICS["wmae"](y_true, y_pred) == pytest.approx((first * (1 + 3) + second * 3) / 4)


def user_metric(folder, body, parameters="y_true, y_pred"):
    (folder / "mine.py").write_text(f"import numpy as np\ndef score({parameters}):\n    {body}\n")
    return load_user_metric(f"{folder}/mine.py:score", False, None)


def test_a_user_defined_metric_sees_the_whole_arrays_and_cannot_change_them(tmp_path):
    body = "y_true[0, 0] += 0; y_pred -= y_true; y_true[:] = 0; return np.nanmax(abs(y_pred))"
    metric = user_metric(tmp_path, body)
    y_true, y_pred = np.array([[1.0, np.nan], [2.0, 5.0]]), np.array([[1.5, 9.0], [2.0, 2.0]])
    assert metric(y_true, y_pred) == metric(y_true, y_pred) == 3.0
    assert (metric.greater_is_better, metric.name) == (False, "mine.py:score")


@pytest.mark.parametrize(
    "parameters", ["y, p", "y, p, eps=1", "y, p, *, eps=1", "y, p, rows", "y, p, z", "y, p, rows=None"]
)
def test_a_metric_gets_the_rows_if_it_has_a_third_parameter_without_a_default_or_of_that_name(
    tmp_path, parameters
):
    y, rows = np.ones((2, 1)), pd.DataFrame({"z": [3, 4]})
    takes_rows = "rows" in parameters or parameters.endswith("z")
    name = "rows" if "rows" in parameters else "z"
    metric = user_metric(tmp_path, f"return {name}['z'].sum()" if takes_rows else "return 1", parameters)
    assert metric(y, y, rows) == (7 if takes_rows else 1)
    with pytest.raises(ConfigError, match="takes the rows of the table") if takes_rows else nullcontext():
        metric(y, y)


def test_rows_for_a_metric_keep_their_types_beside_ids_of_extra_rows(tmp_path):
    """Which are not scored, and would make numbers of the truth values and floats of the integers."""
    (tmp_path / "train.csv").write_text("id,noisy,n\na,True,1\nb,False,2\n")
    metric = user_metric(tmp_path, "return 1", "y, p, rows")
    rows = raw_rows_for(metric, tmp_path / "train.csv", "id", ["b", "a", "extra0_1"])
    assert rows["noisy"].tolist()[:2] == [False, True] and rows["n"].tolist()[:2] == [2, 1] and len(rows) == 3
    assert [kind.kind for kind in rows[["noisy", "n"]].dtypes] == ["b", "i"]


@pytest.mark.parametrize("body", ["raise ValueError('no')", "return 'high'", "return y_true", "return None"])
def test_a_metric_that_raises_or_returns_no_number_is_the_users_mistake(tmp_path, body):
    with pytest.raises(ConfigError, match=r"mine\.py:score must return one number for arrays \(2, 1\)"):
        user_metric(tmp_path, body)(np.ones((2, 1)), np.ones((2, 1)))
