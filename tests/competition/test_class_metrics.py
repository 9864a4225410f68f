"""Scores of classes by hand and beside scikit-learn's, for one target and for several with missing labels."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from competition.class_metrics import confusion
from competition.metrics import METRICS, get_metric
from core.types import Array

RNG = np.random.default_rng(0)
TRUE, GUESSED = RNG.integers(4, size=300).astype(float), RNG.integers(4, size=300).astype(float)
GUESSED[:150] = TRUE[:150]
P = RNG.dirichlet(np.ones(4), 300)
LABELS = {
    "accuracy": sklearn_metrics.accuracy_score,
    "balanced_accuracy": sklearn_metrics.balanced_accuracy_score,
    "f1_macro": lambda y, p: sklearn_metrics.f1_score(y, p, average="macro"),
    "f1_micro": lambda y, p: sklearn_metrics.f1_score(y, p, average="micro"),
    "mcc": sklearn_metrics.matthews_corrcoef,
    "quadratic_kappa": lambda y, p: sklearn_metrics.cohen_kappa_score(y, p, weights="quadratic"),
}


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("n_classes", [2, 4])
def test_a_score_of_labels_is_that_of_scikit_learn(name: str, n_classes: int) -> None:
    y, labels = TRUE % n_classes, GUESSED % n_classes
    expected = LABELS[name](y, labels)
    assert METRICS[name](y[:, None], labels[:, None]) == pytest.approx(expected)
    counts = np.pad(
        [confusion(y, labels), confusion(y, y)], [(0, 0), (0, 2), (0, 2)]
    )  # two classes that no row has
    assert METRICS[name].score_from_confusion(counts) == pytest.approx([expected, 1.0])


def test_f1_is_that_of_class_1_and_0_without_predicted_positives() -> None:
    y, labels = np.array([0.0, 1, 1, 1]), np.array([1.0, 1, 0, 0])
    assert METRICS["f1"].score_column(y, labels) == pytest.approx(2 * 1 / (3 + 2))
    assert METRICS["f1"].score_column(y, 0 * y) == METRICS["mcc"].score_column(y, 0 * y) == 0


def test_scores_of_probabilities_are_those_of_scikit_learn() -> None:
    y, column = TRUE[:, None], P[:, 1]
    one = (y[:, 0] == 1).astype(float)
    of_all = {
        "log_loss": sklearn_metrics.log_loss(TRUE, P),
        "roc_auc": sklearn_metrics.roc_auc_score(TRUE, P, multi_class="ovr"),
    }
    of_all["average_precision"] = np.mean(
        [sklearn_metrics.average_precision_score(c == TRUE, P[:, c]) for c in range(4)]
    )
    of_all["brier"] = ((P - np.eye(4)[TRUE.astype(int)]) ** 2).sum(axis=1).mean()
    of_one = {
        "log_loss": sklearn_metrics.log_loss,
        "roc_auc": sklearn_metrics.roc_auc_score,
        "brier": sklearn_metrics.brier_score_loss,
    }
    for name, expected in of_all.items():
        assert METRICS[name](y, P) == pytest.approx(expected), name
        alone = of_one.get(name, sklearn_metrics.average_precision_score)(one, column)
        assert METRICS[name](one[:, None], column[:, None]) == pytest.approx(alone), name
    tied = column.round(1)
    assert METRICS["roc_auc"].score_column(one, tied) == pytest.approx(
        sklearn_metrics.roc_auc_score(one, tied)
    )


def test_map_at_k_is_one_over_the_place_of_the_class_and_usual_names_are_accepted() -> None:
    P = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
    y = np.array([[0.0], [1.0], [2.0]])
    for name, expected in (("map_at_2", (1 + 1 / 2 + 0) / 3), ("map_at_3", (1 + 1 / 2 + 1 / 3) / 3)):
        assert get_metric(name)(y, P) == pytest.approx(expected)
    assert get_metric("pr_auc") is METRICS["average_precision"]  # other usual names
    assert get_metric("qwk") is METRICS["quadratic_kappa"]


def test_multilabel_scores_are_means_over_columns_without_missing_labels_and_columns_of_one_class() -> None:
    y: Array = np.array([[0, 1, 1], [1, np.nan, 1], [1, 0, 1], [0, 1, 1.0]])
    p: Array = np.array([[0.1, 0.9, 0.5], [0.8, 0.0, 0.4], [0.05, 0.3, 0.3], [0.2, 0.1, 0.2]])
    assert METRICS["roc_auc"](y, p) == pytest.approx((2 / 4 + 1 / 2) / 2)
    labels = (p > 0.25).astype(float)
    of_columns = [
        sklearn_metrics.f1_score(y[k, t], labels[k, t]) for t in range(3) for k in [~np.isnan(y[:, t])]
    ]
    is_labelled = ~np.isnan(y)
    for name, expected in (
        ("f1", np.mean(of_columns)),
        ("f1_macro", np.mean(of_columns)),  # what the field calls macro over labels
        ("f1_micro", sklearn_metrics.f1_score(y[is_labelled], labels[is_labelled])),
    ):
        assert get_metric(name, "multilabel")(y, labels) == pytest.approx(expected), name
