"""The selection rule: the default is kept unless another candidate is better by a clear margin."""

import dataclasses

import numpy as np
import pytest

from competition.metrics import METRICS
from competition.task import Task
from submissions.blend.cross_fitting import CrossFitted
from submissions.blend.selection_rule import (
    Comparison,
    apply_rule,
    compare_to_default,
    mean_over_folds,
    min_gain,
)
from submissions.selection import cross_fit_procedure
from tests.submissions.blend.test_cross_fitting import STACK, selection_rule
from tests.submissions.fakes import columns_like

NAN = float("nan")


def test_rows_of_one_group_count_as_one_in_the_comparison() -> None:
    preds, y, _ = columns_like("independent", 200, 2)
    scored = {"shrunk_ridge": np.repeat(preds[:, :1], 4, axis=0), "mean": np.repeat(preds[:, 1:], 4, axis=0)}
    one_row_groups = selection_rule(np.repeat(y, 4), np.zeros(800, dtype=np.int64))
    four_row_groups = dataclasses.replace(one_row_groups, groups=np.repeat(np.arange(200), 4))
    one = compare_to_default(one_row_groups, scored)["mean"]
    four = compare_to_default(four_row_groups, scored)["mean"]
    assert four.standard_error == pytest.approx(2 * one.standard_error, rel=0.15)


@pytest.mark.parametrize(
    ("others", "metric", "margin", "chosen"),
    [
        ({"convex": (-0.1, 0.2)}, "rmse", 1.0, "shrunk_ridge"),  # better, but within one standard error
        ({"convex": (-0.3, 0.2)}, "rmse", 1.0, "convex"),
        ({"convex": (-0.3, 0.2)}, "rmse", 2.0, "shrunk_ridge"),
        ({"convex": (-0.3, 0.2)}, "r2", 1.0, "shrunk_ridge"),  # lower is worse here
        ({"convex": (0.3, 0.2)}, "r2", 1.0, "convex"),
        ({"convex": (-0.3, 0.2), "mean": (-0.4, 0.2)}, "rmse", 1.0, "mean"),
        ({"convex": (-0.3, NAN), "mean": (NAN, 0.1)}, "rmse", 0.0, "shrunk_ridge"),
        ({"convex": (0.0, 0.0)}, "rmse", 0.0, "shrunk_ridge"),
        ({"convex": (-0.0009, 0.0001)}, "rmse", 1.0, "shrunk_ridge"),  # significant, but below 0.1 % of 1 - 0
        ({"convex": (-0.0011, 0.0001)}, "rmse", 1.0, "convex"),
        ({}, "rmse", 1.0, "shrunk_ridge"),
    ],
)
def test_the_default_is_kept_unless_another_is_clearly_better(
    others: dict[str, tuple[float, float]], metric: str, margin: float, chosen: str
) -> None:
    comparisons = {"shrunk_ridge": Comparison(1.0, 0.0, 0.0)}
    for name, (difference, error) in others.items():
        comparisons[name] = Comparison(1 + difference, difference, error)
    name, reason = apply_rule(selection_rule(np.zeros(4), np.arange(4), metric, margin), comparisons)
    assert name == chosen
    assert chosen in reason


def test_a_default_without_a_score_is_replaced_by_the_best_candidate_with_a_score() -> None:
    comparisons = {
        "shrunk_ridge": Comparison(NAN, NAN, NAN),
        "mean": Comparison(2.0, NAN, NAN),
        "convex": Comparison(1.0, NAN, NAN),
    }
    name, reason = apply_rule(selection_rule(np.zeros(4), np.arange(4), "rmsle", 2.0), comparisons)
    assert name == "convex"
    assert reason == "convex is selected, since the default shrunk_ridge has no score."


@pytest.mark.parametrize(
    ("metric", "constant_score"),
    [
        ("rmse", np.sqrt(2)),  # labels 0, 0, 3 with the mean 1
        ("mae", 1.0),  # with the median 0
        ("r2", 0.0),
        ("spearman", 0.0),  # undefined for a constant
    ],
)
def test_the_smallest_gain_is_a_thousandth_of_the_gain_of_the_default_over_a_constant(
    metric: str, constant_score: float
) -> None:
    y = np.array([0.0, 0.0, np.nan, 3.0, 99.0])
    rule = selection_rule(y, np.arange(5), metric).on_rows(np.arange(5) < 4)
    assert min_gain(rule, 0.5) == pytest.approx(abs(0.5 - constant_score) / 1000)


def test_a_candidate_that_predicts_a_fold_like_the_default_is_not_chosen_for_it() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=60)
    folds = np.arange(60) % 3
    default = (y + rng.normal(size=60))[:, None]
    better = np.where((folds == 1)[:, None], default, y[:, None])

    def cross_fitted(y_pred: np.ndarray, nested_pred: np.ndarray) -> CrossFitted:
        nested = [np.where((folds == fold)[:, None], np.nan, nested_pred) for fold in range(3)]
        return CrossFitted(y_pred, y_pred, np.stack(nested))

    predictions = {"shrunk_ridge": cross_fitted(default, default), STACK: cross_fitted(better, y[:, None])}
    y_pred, chosen = cross_fit_procedure(selection_rule(y, folds), predictions, [])
    assert chosen == [STACK, "shrunk_ridge", STACK]
    np.testing.assert_array_equal(y_pred, better)


def test_auc_is_also_averaged_within_folds_since_fold_models_may_be_shifted() -> None:
    y = np.array([[0, 1, 0, 1, 0, 1, 0, 0], [0, 1, 0, 1, np.nan, 1, 1, 0]]).T
    folds = np.array([0, 0, 1, 1, 2, 2, 3, 3])  # one class: the second target in fold 2, the first in fold 3
    y_pred = (y[:, :1] + np.array([0, 2, 4, 6])[folds][:, None]) / 10 * [1, -1]
    task = Task(["a", "b"], None, "multilabel", ["0", "1"])
    rule = dataclasses.replace(selection_rule(y, folds), metric=METRICS["roc_auc"], task=task)
    scores = mean_over_folds(rule, y_pred)
    expected_mean = np.mean([1.0, np.mean([0, 0, 0.5])])
    assert scores == {"score_mean_over_folds": pytest.approx(expected_mean), "without_score": 2}
    assert scores["score_mean_over_folds"] > METRICS["roc_auc"](y, y_pred)
    assert mean_over_folds(dataclasses.replace(rule, metric=METRICS["log_loss"]), y_pred) == {}
