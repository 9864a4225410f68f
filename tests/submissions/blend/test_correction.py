"""The best constant for a metric, and blends that are corrected for a metric that is far from the mean."""

import numpy as np
import pytest

from competition.metrics import METRICS, Metric
from submissions.blend.correction import best_constant, fit_correction
from tests.submissions.blend.data import classes, cross_fitted, numbers

SKEWED = [1.0, 1.0, 2.0, 10.0, 100.0]


def constant_of(y, metric):
    constant, score = best_constant(numbers(np.zeros((len(y), 1)), np.array(y), metric=metric))
    return constant.tolist(), score


@pytest.mark.parametrize(
    ("metric", "constant", "score"),
    [
        ("rmse", 22.8, np.std(SKEWED)),
        ("mae", 2.0, 21.6),
        ("mape", 1.0, (0.5 + 0.9 + 0.99) / 5),  # errors of small labels count most
        ("median_ae", 2.0, 1.0),
        ("max_error", 50.5, 49.5),
        ("r2", 22.8, 0.0),
    ],
)
def test_the_best_constant_is_that_of_the_metric(metric, constant, score):
    found, found_score = constant_of(SKEWED, metric)
    assert found == [pytest.approx(constant)]
    assert found_score == pytest.approx(score)


def test_each_target_has_its_constant_without_its_missing_labels():
    y = np.column_stack([SKEWED, [np.nan, 7.0, 7.0, 7.0, 500.0]])
    assert constant_of(y, "mae")[0] == [2.0, 7.0]


def test_a_correlation_with_a_constant_is_0():
    assert constant_of(SKEWED, "spearman")[1] == 0.0


def test_an_undefined_score_of_a_metric_of_the_user_is_no_score():
    data = numbers(np.zeros((5, 1)), np.array(SKEWED))
    metric = Metric("mine", True, None, lambda y_true, y_pred: np.nan)
    assert np.isnan(best_constant(type(data)(**{**vars_of(data), "metric": metric}))[1])


def vars_of(data):
    return {name: getattr(data, name) for name in ("task", "y", "folds", "groups", "preds")}


@pytest.mark.parametrize(
    ("metric", "constant", "score"),
    [
        ("f1", 1.0, 0.4),  # 1 of 4 rows: all of class 1 has a recall of 1 and a precision of 1/4
        ("accuracy", 0.0, 0.75),
        ("roc_auc", 0.25, 0.5),
        ("brier", 0.25, 0.1875),
    ],
)
def test_of_classes_it_is_their_share_or_the_best_of_them(metric, constant, score):
    y = np.array([0.0, 0.0, 0.0, 1.0])[:, None]
    found, found_score = best_constant(classes(np.full((4, 1, 1), 0.5), y, metric))
    assert (found.tolist(), found_score) == ([pytest.approx(constant)], pytest.approx(score))


@pytest.mark.parametrize("metric", ["mape", "median_ae"])
@pytest.mark.parametrize("has_zeros", [False, True])
def test_a_corrected_blend_is_not_worse_than_the_blend_or_the_best_constant(metric, has_zeros):
    rng = np.random.default_rng(0)
    mean = rng.normal(size=300)
    y = np.exp(mean + rng.normal(size=300))
    y[: 30 * has_zeros] = 0
    y_pred = np.exp(mean + 0.5)[:, None]  # the mean of y
    intercept, slope = fit_correction(METRICS[metric], y[:, None], y_pred)[:, 0]
    score = METRICS[metric].score_column(y, intercept + slope * y_pred[:, 0])
    assert score <= METRICS[metric].score_column(y, y_pred[:, 0])
    assert score <= constant_of(y, metric)[1]
    if metric == "mape" and has_zeros:  # nothing but 0 is near a label that is 0
        assert (intercept, slope) == (0.0, 0.0)


def test_only_a_metric_far_from_the_mean_corrects_the_blend():
    y = np.exp(2 * np.random.default_rng(0).normal(size=200))
    preds = np.full((200, 1), y.mean())
    for metric, is_corrected in (("mape", True), ("median_ae", True), ("mae", False), ("rmsle", False)):
        assert (cross_fitted("mean", numbers(preds, y, metric=metric)).final.correction is not None) is (
            is_corrected
        )
    corrected = cross_fitted("mean", numbers(preds, y, metric="mape"))
    assert np.median(corrected.scored) < np.median(y) < y.mean()


def test_a_corrected_blend_predicts_no_number_below_the_lowest_label():
    y = np.exp(np.random.default_rng(0).normal(size=200))
    final = cross_fitted("mean", numbers(y[:, None], y, metric="mape")).final
    assert final.outputs(np.array([[[-5.0]], [[50.0]]])).tolist() == [
        [y.min()],
        [pytest.approx(50.0, rel=0.2)],
    ]


@pytest.mark.parametrize("metric", ["rmsle", "spearman"])
def test_for_rmsle_and_ranks_of_skewed_labels_weights_are_those_of_the_logarithms(metric):
    """Of two columns, the one that is right for small labels is better, though its errors of large ones are large."""
    rng = np.random.default_rng(0)
    y = np.exp(3 * rng.normal(size=400))
    noise = rng.normal(size=(400, 2))
    good = np.expm1(np.log1p(y) + 0.3 * noise[:, 0])
    preds = np.column_stack([good, y + 3 * np.abs(noise[:, 1])])
    of_logs, of_values = (cross_fitted("convex", numbers(preds, y, metric=name)) for name in (metric, "rmse"))
    assert of_logs.final.predictor.weights[0, 0] > 0.8 > 0.1 > of_values.final.predictor.weights[0, 0]
    error, order = METRICS["rmsle"].score_column, METRICS["spearman"].score_column
    assert error(y, of_logs.scored[:, 0]) < 0.5 * error(y, of_values.scored[:, 0])
    assert order(y, of_logs.scored[:, 0]) > order(y, of_values.scored[:, 0])


def test_predictions_below_0_keep_their_order_in_blends_for_ranks_of_skewed_labels():
    """External predictions may be on another scale, such as logarithms."""
    rng = np.random.default_rng(0)
    y = np.exp(3 * rng.normal(size=400))
    right = np.log10(y) - 9 + 0.1 * rng.normal(size=400)
    blend = cross_fitted(
        "best_single", numbers(np.column_stack([right, rng.permutation(y)]), y, metric="spearman")
    )
    assert METRICS["spearman"].score_column(y, blend.scored[:, 0]) > 0.95
