"""Cross-fitting and the selection rule: labels of a fold do not reach it, and the default stays unless it is beaten."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from submissions.blend import selection
from submissions.blend.candidates import CANDIDATES, LIGHTGBM_STACK
from submissions.blend.selection import min_gain, select
from submissions.blend.settings import SubmissionsConfig
from tests.submissions.blend.data import classes, cross_fitted, fit, noisy_classes, noisy_numbers, numbers

NAN = float("nan")
NAMES = [*(name for name in CANDIDATES if name != "shrunk_logits"), LIGHTGBM_STACK]
each_candidate = pytest.mark.parametrize("name", NAMES)


@pytest.mark.parametrize("metric", ["rmse", "mae", "spearman", "mape", "rmsle"])
@each_candidate
def test_labels_of_a_fold_that_would_change_all_weights_do_not_reach_its_predictions(name, metric):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(120, 2))
    folds = np.arange(120) % 4
    preds = y[:, None] + 0.5 * rng.uniform(-1, 1, size=(120, 3, 2))  # three columns of similar quality
    y[::7, 1] = np.nan
    in_fold = folds == 1
    before = numbers(preds, y, folds, metric)
    worst = int(np.argmin(before.convex(0, before.all_folds)))
    new_y = np.where(in_fold[:, None] & ~np.isnan(y), 3 * preds[:, worst], y)
    one, other = (cross_fitted(name, data) for data in (before, replace(before, y=new_y)))
    np.testing.assert_array_equal(one.scored[in_fold], other.scored[in_fold])
    if name in ("shrunk_ridge", "convex", LIGHTGBM_STACK):  # other rows do change
        assert (one.scored[~in_fold] != other.scored[~in_fold]).any()


@pytest.mark.parametrize("metric", ["log_loss", "roc_auc", "f1_macro"])
@pytest.mark.parametrize("name", ["best_single", "convex", "shrunk_logits", LIGHTGBM_STACK])
@pytest.mark.parametrize("problem_type", ["binary", "multiclass"])
def test_labels_of_a_fold_reach_neither_its_probabilities_nor_its_thresholds(name, metric, problem_type):
    preds, y = noisy_classes(problem_type, 200)
    in_fold = np.arange(200) % 5 == 2
    new_y = np.where(in_fold[:, None], (y + 1) % 2, y)
    before, after = (cross_fitted(name, classes(preds, labels, metric)) for labels in (y, new_y))
    np.testing.assert_array_equal(before.outputs[in_fold], after.outputs[in_fold])
    np.testing.assert_array_equal(before.scored[in_fold], after.scored[in_fold])


@pytest.mark.parametrize("n_folds", [2, 3])
@each_candidate
def test_every_row_with_a_fold_is_predicted_and_no_other_row(name, n_folds):
    preds, y = noisy_numbers(90)
    folds = np.arange(90) % n_folds
    y[::7] = np.nan
    folds[:10] = -1
    preds[:10] = np.nan
    part = cross_fitted(name, numbers(preds, y, folds, "mae"))
    for values in (part.outputs, part.scored):
        assert (np.isfinite(values[:, 0]) == (folds >= 0)).all()


def test_only_for_a_metric_with_a_lower_bound_low_numbers_are_raised_to_the_lowest_label_of_the_other_folds():
    y = np.arange(20.0)
    preds = np.stack([2 * y - 10, 2 * y - 10], axis=1)
    raised = cross_fitted("mean", numbers(preds, y, metric="rmsle"))
    assert raised.scored[:2, 0].tolist() == [1, 0]  # the folds without row 0 have labels from 1
    assert raised.final.predict(np.array([[[-50.0]] * 2, [[50.0]] * 2]))[:, 0].tolist() == [0, 50]
    assert cross_fitted("mean", numbers(preds, y)).scored[:, 0].tolist() == (2 * y - 10).tolist()


@pytest.mark.parametrize("metric", ["rmsle", "mape", "median_ae"])
def test_a_target_that_is_labelled_in_one_fold_only_has_finite_predictions_and_scores(metric):
    rng = np.random.default_rng(0)
    y = np.exp(rng.normal(size=(100, 2)))
    preds = y[:, None] * np.exp(0.3 * rng.normal(size=(100, 2, 2)))
    y[np.arange(100) % 5 != 2, 1] = np.nan
    data = numbers(preds, y, metric=metric)
    for name in ("mean", "shrunk_ridge"):
        part = cross_fitted(name, data)
        assert np.isfinite(part.outputs).all() and np.isfinite(data.score(part.scored))


def test_with_two_folds_the_blend_that_is_scored_is_the_one_that_is_submitted():
    preds, y = noisy_numbers(60)
    weights = [
        cross_fitted(name, numbers(preds, y, np.arange(60) % 2)).final.predictor.weights
        for name in ("shrunk_ridge", "convex")
    ]
    np.testing.assert_array_equal(*weights)
    probabilities, labels = noisy_classes("binary", 60)
    data = replace(classes(probabilities, labels), folds=np.arange(60) % 2)
    parts = [fit("shrunk_logits", data, folds) for folds in (data.all_folds, frozenset({0}))]
    assert parts[0].settings == parts[1].settings


def test_missing_labels_are_masked_in_scores():
    preds, y = noisy_numbers(150)
    rows = np.flatnonzero(np.arange(150) % 6)
    sparse = numbers(preds, np.where(np.arange(150) % 6, y, np.nan))
    labelled = numbers(preds[rows], y[rows], rows % 5)
    for name in ("mean", "shrunk_ridge", LIGHTGBM_STACK):
        scores = [data.score(cross_fitted(name, data).scored) for data in (sparse, labelled)]
        assert scores[0] == pytest.approx(scores[1], rel=1e-6)


def test_the_stack_of_many_classes_is_left_out_with_a_line(monkeypatch):
    monkeypatch.setattr(selection, "MAX_CLASSES_OF_STACK", 2)
    preds, y = noisy_classes("multiclass", 60)
    selected = selection.select_candidate(classes(preds, y), preds, SubmissionsConfig())
    assert LIGHTGBM_STACK not in selected.candidates
    assert selected.failed == ["lightgbm_stack is left out: with 3 classes it would take hours."]


# The rule


def rule(y, folds, metric):
    return numbers(np.zeros((len(y), 1)), np.array(y), np.array(folds), metric)


@pytest.mark.parametrize(
    ("others", "metric", "margin", "chosen"),
    [
        ("convex -0.1 0.2", "rmse", 1.0, "shrunk_ridge"),  # better, but within one standard error
        ("convex -0.3 0.2", "rmse", 1.0, "convex"),
        ("convex -0.25 0.2", "rmse", 1.0, "shrunk_ridge"),  # 1.25 errors, of four groups
        ("convex -0.3 0.2", "rmse", 2.0, "shrunk_ridge"),
        ("convex -0.3 0.2", "r2", 1.0, "shrunk_ridge"),  # lower is worse here
        ("convex 0.3 0.2", "r2", 1.0, "convex"),
        ("convex -0.3 0.2, mean -0.4 0.2", "rmse", 1.0, "mean"),
        ("convex -0.3 nan, mean nan 0.1", "rmse", 0.0, "shrunk_ridge"),
        ("convex 0.0 0.0", "rmse", 0.0, "shrunk_ridge"),
        ("convex -0.0009 0.0001", "rmse", 1.0, "shrunk_ridge"),  # significant, but below 0.1 % of 1 - 0
        ("convex -0.0011 0.0001", "rmse", 1.0, "convex"),
        ("shrunk_ridge nan nan, mean 1 nan, convex 0 nan", "rmsle", 2.0, "convex"),
    ],
)
def test_the_default_is_kept_unless_another_is_clearly_better_or_it_has_no_score(
    others, metric, margin, chosen
):
    """Differences to the score 1 of the default, and their standard errors."""
    rows = {"shrunk_ridge": [1.0, 0.0, 0.0]}
    for name, *cells in map(str.split, others.split(",")):
        difference, error = map(float, cells)
        rows[name] = [1 + difference, difference, error]
    compared = pd.DataFrame(rows, ["score", "difference", "standard_error"]).T
    name, reason = select(rule([0.0] * 4, [0, 1, 2, 3], metric), compared, "shrunk_ridge", margin)
    assert name == chosen
    assert chosen in reason


@pytest.mark.parametrize(
    ("metric", "constant_score"),
    [
        ("rmse", np.sqrt(2)),  # labels 0, 0, 3 with the mean 1
        ("mae", 1.0),  # with the median 0
        ("r2", 0.0),
        ("spearman", 0.0),  # undefined for a constant
    ],
)
def test_the_smallest_gain_is_a_thousandth_of_the_gain_of_the_default_over_a_constant(metric, constant_score):
    scorer = rule([0.0, 0.0, NAN, 3.0, 99.0], [0, 1, 2, 3, -1], metric)
    assert min_gain(scorer, 0.5) == pytest.approx(abs(0.5 - constant_score) / 1000)
