"""One vector of weights for all targets: units do not decide, and nothing of a held-out fold enters."""

from __future__ import annotations

import numpy as np
import pytest

from competition.metrics import METRICS
from submissions.blenders import BLENDERS
from submissions.crossfit import cross_fit, fit_of
from submissions.target import Target, share_weights
from tests.submissions.fakes import columns_like


def shared(parts: list[tuple[np.ndarray, np.ndarray]], folds: np.ndarray, metric: str = "rmse") -> list[Target]:
    targets = [
        Target(columns, y, folds, METRICS[metric], trials=8, seed=t, weight_trials=8)
        for t, (columns, y) in enumerate(parts)
    ]
    share_weights(targets)
    return targets


def two_targets(n: int = 120) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """Two targets, of which each has its best column where the other has its worst; one has gaps."""
    (a, y_a, folds), (b, y_b, _) = columns_like("independent", n, 3, 0), columns_like("independent", n, 3, 1)
    y_b[::7] = np.nan
    return [(a, y_a), (b[:, ::-1], y_b)], folds


@pytest.mark.parametrize("name", list(BLENDERS))
@pytest.mark.parametrize("metric", ["rmse", "mae", "spearman"])
def test_units_and_zeros_of_a_target_change_no_weight(name: str, metric: str) -> None:
    parts, folds = two_targets()
    (a, y_a), (b, y_b) = parts
    before = shared(parts, folds, metric)
    after = shared([(a, y_a), (1000 * b + 273, 1000 * y_b + 273)], folds, metric)
    weights = before[0].fit(name).weights
    assert (before[1].fit(name).weights == weights).all()
    np.testing.assert_allclose(after[0].fit(name).weights, weights, atol=1e-7)
    np.testing.assert_allclose(
        after[1].fit(name).predict(1000 * b + 273), 1000 * before[1].fit(name).predict(b) + 273, rtol=1e-6
    )


def test_targets_that_want_opposite_weights_meet_in_the_middle_and_each_counts_the_same() -> None:
    y = np.tile([0.0, 3.0, 1.0, -2.0], 20)
    small, large = np.tile([1.0, -1.0, 1.0, -1.0], 20), np.tile([2.0, 2.0, -2.0, -2.0], 20)
    first, second = np.column_stack([y + small, y + large]), np.column_stack([y + large, y + small])
    sparse = np.where(np.arange(80) < 40, y, np.nan)  # half the labels, of the same spread
    targets = shared([(first, y), (second, sparse)], np.arange(80) % 5)
    np.testing.assert_allclose(targets[0].fit("convex").weights, [0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(targets[0].fit("hill_climb").weights, [0.5, 0.5], atol=1e-12)
    alone = Target(first, y, np.arange(80) % 5, METRICS["rmse"]).fit("convex").weights
    np.testing.assert_allclose(alone, [0.8, 0.2], atol=1e-6)


@pytest.mark.parametrize("name", list(BLENDERS))
def test_equal_targets_share_what_each_would_have_alone(name: str) -> None:
    columns, y, folds = columns_like("independent", 100)
    alone = Target(columns, y, folds, METRICS["r2"], trials=8, weight_trials=8).fit(name)
    for target in shared([(columns, y), (columns, y)], folds, "r2"):
        np.testing.assert_allclose(target.fit(name).weights, alone.weights, atol=1e-9)
        assert target.fit(name).intercept == pytest.approx(alone.intercept, abs=1e-9)


@pytest.mark.parametrize("metric", ["rmse", "mae", "spearman"])
def test_labels_of_a_fold_reach_no_prediction_made_without_it(metric: str) -> None:
    parts, folds = two_targets()
    fold = 3
    own = folds == fold
    changed = [(x, np.where(own & ~np.isnan(y), 50 * x[:, 2], y)) for x, y in parts]
    for name in BLENDERS if metric == "rmse" else ("best_single", "convex", "shrunk_ridge", "optuna"):
        before, after = (cross_fit(shared(each, folds, metric), fit_of(name), 5) for each in (parts, changed))
        np.testing.assert_array_equal(before.cross_fitted[own], after.cross_fitted[own])
        np.testing.assert_array_equal(before.nested[fold], after.nested[fold])
        if name != "mean":
            assert (before.cross_fitted[~own] != after.cross_fitted[~own]).any(), name


@pytest.mark.parametrize("name", list(BLENDERS))
def test_a_target_without_a_label_left_has_the_plain_mean_and_does_not_stop_the_others(name: str) -> None:
    (first, (b, y_b)), folds = two_targets()
    only_fold_0 = np.where(folds == 0, y_b, np.nan)
    targets = shared([first, (b, only_fold_0)], folds)
    without = frozenset({0})
    assert targets[1].fit(name, without).weights.tolist() == pytest.approx([1 / 3] * 3)
    found, alone = targets[0].fit(name, without), Target(*first, folds, METRICS["rmse"], 8, 0, 8).fit(name, without)
    np.testing.assert_allclose(found.weights, alone.weights, atol=1e-9)
    assert np.isfinite(targets[1].fit(name).predict(b)).all()


def test_permuting_columns_permutes_shared_weights_and_changes_no_byte() -> None:
    parts, folds = two_targets()
    order = [2, 0, 1]
    for name in BLENDERS:
        before = shared(parts, folds)[1].fit(name)
        after = shared([(columns[:, order], y) for columns, y in parts], folds)[1].fit(name)
        assert (before.weights[order] == after.weights).all(), name
        assert before.intercept == after.intercept
