"""The linear candidates: hand-computed cases, properties that must hold, and what they must not see."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from competition.metrics import METRICS, Metric
from submissions import convex
from submissions.blenders import BLENDERS, PENALTIES
from submissions.convex import least_absolute_weights, least_squares_weights
from submissions.target import NONE, Blend, Target
from tests.submissions.fakes import columns_like

CONVEX = ["best_single", "mean", "convex", "greedy", "optuna"]
SUM_TO_ONE = [*CONVEX, "hill_climb"]
NEEDS_FOLDS = ["shrunk_ridge", "ridge", "convex_and_ridge"]


def fit(name: str, columns: np.ndarray, y: np.ndarray, folds: np.ndarray | None = None, metric: str = "rmse") -> Blend:
    folds = np.arange(len(y)) % 5 if folds is None else folds
    return Target(columns, y, folds, METRICS[metric], weight_trials=12).fit(name)


def orthogonal() -> tuple[np.ndarray, np.ndarray]:
    """Two columns whose errors have the mean squares 1 and 4 and the mean product 0, and the labels."""
    y = np.tile([0.0, 3.0, 1.0, -2.0], 5)
    small, large = np.tile([1.0, -1.0, 1.0, -1.0], 5), np.tile([2.0, 2.0, -2.0, -2.0], 5)
    return np.column_stack([y + small, y + large]), y


def test_orthogonal_errors_are_weighted_by_the_inverse_of_their_squares() -> None:
    blend = fit("convex", *orthogonal())
    np.testing.assert_allclose(blend.weights, [0.8, 0.2], atol=1e-7)


@pytest.mark.parametrize("name", ["greedy", "hill_climb"])
def test_steps_reach_the_same_weights(name: str) -> None:
    # greedy: small, small, large, small, small; climbing: small, then a fifth of large
    assert fit(name, *orthogonal()).weights.tolist() == pytest.approx([0.8, 0.2], abs=1e-15)


def test_greedy_selection_for_the_mae_stops_where_the_loss_is_least() -> None:
    # |errors| of weights (w, 1 - w) are |w + 2 (1 - w)| and |w - 2 (1 - w)|: least from w = 2/3 on, first at 2 of 3
    assert fit("greedy", *orthogonal(), metric="mae").weights.tolist() == pytest.approx([2 / 3, 1 / 3])


def test_only_signed_climbing_takes_a_column_off() -> None:
    y = np.tile([0.0, 3.0, 1.0, -2.0], 5)
    error = np.random.default_rng(0).normal(size=20)
    columns = np.column_stack([y + error, y + 2 * error])  # 1.5 of the first less 0.5 of the second halves the error
    np.testing.assert_allclose(fit("hill_climb", columns, y).weights, [1.5, -0.5], atol=1e-12)
    for name in CONVEX:
        assert (fit(name, columns, y).weights >= 0).all(), name


def test_the_ridge_is_scikit_learns() -> None:
    columns, y, folds = columns_like("independent", 200, 4)
    blend = fit("ridge", 30 * columns + 3, 30 * y + 3, folds)
    alpha = blend.settings["penalty"] * len(y) * (30 * y).var()
    expected = Ridge(alpha=alpha).fit(30 * columns + 3, 30 * y + 3)
    np.testing.assert_allclose(blend.weights, expected.coef_, atol=1e-9)
    assert blend.intercept == pytest.approx(expected.intercept_)


def test_the_penalty_of_the_ridge_is_the_best_of_the_grid_across_folds() -> None:
    columns, y, folds = columns_like("independent", 80, 6)
    columns = columns + 0.3 * np.random.default_rng(1).normal(size=(80, 1))

    def across_folds(penalty: float) -> float:
        squares = 0.0
        for fold in range(5):
            own = folds == fold
            model = Ridge(alpha=penalty * (~own).sum() * y[~own].var()).fit(columns[~own], y[~own])
            squares += ((y[own] - model.predict(columns[own])) ** 2).sum()
        return squares

    best = min(PENALTIES, key=across_folds)
    assert fit("ridge", columns, y, folds).settings["penalty"] == best
    assert PENALTIES[0] < best < PENALTIES[-1]


def test_the_mean_of_convex_and_ridge_is_that() -> None:
    columns, y, folds = columns_like("independent", 100, 4)
    both = [fit(name, columns, y, folds) for name in ("convex", "ridge")]
    found = fit("convex_and_ridge", columns, y, folds)
    np.testing.assert_allclose(found.weights, (both[0].weights + both[1].weights) / 2, atol=1e-12)
    assert found.intercept == pytest.approx(both[1].intercept / 2)


@pytest.mark.parametrize("metric", ["spearman", "kendall", "median_ae"])
def test_optuna_starts_from_the_convex_and_the_equal_weights_and_is_never_worse(metric: str) -> None:
    score, sign = METRICS[metric], 1 if METRICS[metric].greater_is_better else -1
    columns, y, folds = columns_like("independent", 150, 4)
    columns = np.exp(columns)  # the order matters, the scale does not
    of = {n: sign * score.one(y, fit(n, columns, y, folds, metric).predict(columns)) for n in SUM_TO_ONE}
    assert of["optuna"] >= max(of["convex"], of["mean"]) - 1e-12
    two = Target(columns, y, folds, METRICS[metric], weight_trials=2).fit("optuna").weights
    assert min(np.abs(two - fit(name, columns, y, folds, metric).weights).max() for name in ("convex", "mean")) < 1e-12


@pytest.mark.parametrize("name", NEEDS_FOLDS)
def test_where_one_fold_is_left_a_tuned_blend_is_the_convex_one(name: str) -> None:
    columns, y, _ = columns_like("independent", 90)
    target = Target(columns, y, np.arange(90) % 3, METRICS["rmse"])
    only = frozenset({0, 2})
    assert target.fit(name, only).weights.tolist() == target.fit("convex", only).weights.tolist()
    assert target.fit(name, frozenset({0})).weights.tolist() != target.fit("convex", frozenset({0})).weights.tolist()


def test_a_column_that_the_others_dominate_gets_no_weight() -> None:
    y = np.linspace(-1, 1, 40)
    wiggle = np.tile([1.0, -1.0], 20)
    blend = fit(
        "convex", np.column_stack([y + 0.1 * wiggle, y + 3 * wiggle]), y
    )  # the same error, thirty times as large
    np.testing.assert_allclose(blend.weights, [1, 0], atol=1e-7)


@pytest.mark.parametrize("name", ["convex", "shrunk_ridge"])
def test_a_known_mixture_is_recovered(name: str) -> None:
    columns = np.random.default_rng(0).normal(size=(300, 3)) + 5
    blend = fit(name, columns, columns @ [0.2, 0.5, 0.3])
    np.testing.assert_allclose(blend.weights, [0.2, 0.5, 0.3], atol=1e-4)
    assert abs(blend.intercept) < 1e-3


@pytest.mark.parametrize("name", SUM_TO_ONE)
@pytest.mark.parametrize("metric", ["rmse", "mae", "spearman"])
def test_weights_sum_to_one_and_are_at_least_zero_where_it_is_promised(name: str, metric: str) -> None:
    for seed in range(5 if metric == "rmse" else 2):
        columns, y, folds = columns_like("independent", 100, 6, seed)
        weights = fit(name, columns + seed * columns[:, :1], y, folds, metric).weights
        assert name == "hill_climb" or (weights >= 0).all()
        assert weights.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("metric", ["rmse", "mse", "r2", "mae"])
def test_in_sample_the_exact_weights_are_never_worse_than_others_of_their_kind(metric: str) -> None:
    score, sign = METRICS[metric], 1 if METRICS[metric].greater_is_better else -1
    for seed in range(10):
        rng = np.random.default_rng(seed)
        y = rng.normal(size=60)
        columns = y[:, None] + rng.normal(size=(60, 4)) * rng.uniform(0.1, 1, 4) + rng.normal(size=(60, 1))
        of = {name: sign * score.one(y, fit(name, columns, y, metric=metric).predict(columns)) for name in CONVEX}
        assert of["convex"] >= max(of.values()) - 1e-8


def test_squared_error_weights_meet_the_condition_of_the_minimum() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        errors = rng.normal(size=(rng.integers(3, 40), rng.integers(1, 9))) + rng.normal()
        weights = least_squares_weights(errors.T @ errors)
        slope = errors.T @ errors @ weights
        assert slope.min() >= weights @ slope - 1e-8 * np.trace(errors.T @ errors)  # no column would lower the error


def test_absolute_error_weights_equal_brute_force() -> None:
    grid = [np.array([a, b, 100 - a - b]) / 100 for a, b in itertools.product(range(101), repeat=2) if a + b <= 100]
    for seed in range(3):
        errors = np.random.default_rng(seed).normal(size=(40, 3)) + [0.0, 0.3, -0.6]
        best = min(np.abs(errors @ weights).sum() for weights in grid)
        found = np.abs(errors @ least_absolute_weights(errors)).sum()
        assert found <= best + 1e-9
        assert found >= 0.98 * best  # the grid is fine: a lower value would be no blend of these columns


@pytest.mark.parametrize("offset", [0.0, 2.0])
def test_absolute_error_weights_are_exact_where_only_rows_near_zero_are_in_the_programme(
    offset: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = np.random.default_rng(0).standard_t(1.5, size=(3000, 5)) * [1, 1.2, 1.5, 2, 3] + [offset, 0, 0, 0, -offset]
    weights = least_absolute_weights(errors)
    monkeypatch.setattr(convex, "ROWS_AT_FIRST", 3000)
    at_once = least_absolute_weights(errors)
    monkeypatch.setattr(convex, "ROWS_AT_FIRST", 1)
    np.testing.assert_allclose(weights, at_once, atol=1e-9)
    np.testing.assert_allclose(least_absolute_weights(errors), at_once, atol=1e-9)


def test_absolute_error_weights_of_a_hand_computed_case() -> None:
    errors = np.array([[1.0, -1.0], [1.0, -1.0], [2.0, 0.0]])  # |2w - 1| twice and 2w: least at w = 1/2 (or below)
    weights = least_absolute_weights(errors)
    assert np.abs(errors @ weights).sum() == pytest.approx(1.0)
    assert weights[0] == pytest.approx(0.5)


@pytest.mark.parametrize("metric", ["r2", "rmse", "mae", "spearman"])
def test_permuting_columns_permutes_weights_and_changes_no_byte(metric: str) -> None:
    columns, y, folds = columns_like("independent", 120, 4)
    order = [2, 0, 3, 1]
    for name in BLENDERS:
        before, after = fit(name, columns, y, folds, metric), fit(name, columns[:, order], y, folds, metric)
        assert (before.weights[order] == after.weights).all()
        assert (before.intercept, before.settings) == (after.intercept, after.settings)


@pytest.mark.parametrize("name", list(BLENDERS))
def test_the_order_of_rows_changes_nothing(name: str) -> None:
    columns, y, folds = columns_like("independent", 120)
    order = np.random.default_rng(0).permutation(len(y))
    before, after = fit(name, columns, y, folds), fit(name, columns[order], y[order], folds[order])
    np.testing.assert_allclose(before.weights, after.weights, atol=1e-9)


@pytest.mark.parametrize("metric", ["rmse", "mae"])
@pytest.mark.parametrize("name", list(BLENDERS))
def test_equal_columns_give_finite_weights(name: str, metric: str) -> None:
    columns, y, folds = columns_like("independent", 100, 2)
    for twins in (columns[:, [0, 0, 1]], columns[:, [0, 0]], np.column_stack([y, y]), np.ones((100, 2))):
        blend = fit(name, twins, y, folds, metric)
        assert np.isfinite([*blend.weights, blend.intercept]).all()


def test_equal_columns_share_their_convex_weight() -> None:
    columns, y, folds = columns_like("independent", 100, 2)
    one, two = fit("convex", columns, y, folds).weights, fit("convex", columns[:, [0, 0, 1]], y, folds).weights
    np.testing.assert_allclose(two, [one[0] / 2, one[0] / 2, one[1]], atol=1e-5)


@pytest.mark.parametrize("name", list(BLENDERS))
def test_the_zero_of_the_unit_changes_no_weight(name: str) -> None:
    columns, y, folds = columns_like("independent", 150)
    celsius, kelvin = fit(name, columns, y, folds), fit(name, columns + 273, y + 273, folds)
    np.testing.assert_allclose(celsius.weights, kelvin.weights, atol=1e-8)
    np.testing.assert_allclose(celsius.predict(columns) + 273, kelvin.predict(columns + 273), atol=1e-6)


def ridge_by_hand(columns: np.ndarray, y: np.ndarray, start: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    centre, spread = y.mean(), y.std()
    x, residual = (columns - centre) / spread, (y - centre) / spread
    identity = penalty * len(y) * np.eye(columns.shape[1])
    weights = start + np.linalg.solve(x.T @ x + identity, x.T @ (residual - x @ start))
    return weights, centre * (1 - weights.sum())


def cross_fitted_error(target: Target, towards_equal: float, penalty: float) -> float:
    columns, y, folds = target.columns, target.y, target.folds
    squares = 0.0
    for fold in range(5):
        held_out = folds == fold
        convex = target.fit("convex", frozenset({fold})).weights
        start = towards_equal / columns.shape[1] + (1 - towards_equal) * convex
        weights, intercept = ridge_by_hand(columns[~held_out], y[~held_out], start, penalty)
        squares += ((y[held_out] - columns[held_out] @ weights - intercept) ** 2).sum()
    return squares


def test_the_shrunk_ridge_is_the_formula_of_its_docstring() -> None:
    columns, y, folds = columns_like("independent", 200, 4)
    target = Target(columns + 3, y + 3, folds, METRICS["rmse"])
    blend = target.fit("shrunk_ridge")
    share, penalty = blend.settings["towards_equal"], blend.settings["penalty"]
    start = share / 4 + (1 - share) * target.fit("convex").weights
    weights, intercept = ridge_by_hand(columns + 3, y + 3, start, penalty)
    np.testing.assert_allclose(blend.weights, weights, atol=1e-9)
    assert blend.intercept == pytest.approx(intercept, abs=1e-9)


def test_the_settings_found_are_better_across_folds_than_both_corners() -> None:
    columns, y, folds = columns_like("independent", 200, 4)
    target = Target(columns, y, folds, METRICS["rmse"])
    found = cross_fitted_error(target, **target.fit("shrunk_ridge").settings)
    assert found <= min(cross_fitted_error(target, corner, 10.0) for corner in (0.0, 1.0)) * (1 + 1e-9)
    assert found <= 1.01 * min(
        cross_fitted_error(target, t, a) for t in (0, 0.5, 1) for a in (1e-4, 1e-3, 1e-2, 0.1, 1)
    )


def test_for_the_mae_the_settings_are_tuned_on_the_mae() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=200)
    columns = y[:, None] + rng.standard_t(1.5, size=(200, 4)) * [0.1, 0.2, 0.3, 0.4]
    assert fit("shrunk_ridge", columns, y, metric="mae").settings != fit("shrunk_ridge", columns, y).settings


@pytest.mark.parametrize("name", list(BLENDERS))
@pytest.mark.parametrize("metric", ["rmse", "mae", "kendall"])
def test_rows_without_a_label_and_rows_of_fold_minus_one_are_left_out(name: str, metric: str) -> None:
    columns, y, folds = columns_like("independent", 100)
    left_out, unlabelled = np.arange(100) < 10, np.arange(100) >= 85
    folds, damaged = np.where(left_out, -1, folds), columns.copy()
    damaged[left_out] = np.nan
    y_damaged = np.where(unlabelled, np.nan, np.where(left_out, 1e6, y))
    kept = ~left_out & ~unlabelled
    found = fit(name, damaged, y_damaged, folds, metric)
    expected = fit(name, columns[kept], y[kept], folds[kept], metric)
    assert (found.weights == expected.weights).all()
    assert found.intercept == expected.intercept


def test_best_single_follows_the_metric_and_not_the_squared_error() -> None:
    y = np.arange(50.0)
    columns = np.column_stack([100 * y - 2000, y + np.tile([5.0, -5.0], 25)])  # perfect order; close but shuffled
    assert fit("best_single", columns, y, metric="spearman").weights.tolist() == [1, 0]
    assert fit("best_single", columns, y, metric="rmse").weights.tolist() == [0, 1]


def test_a_metric_of_the_users_own_is_never_asked_about_a_single_target() -> None:
    def needs_all_targets(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        raise AssertionError("called with one target")

    columns, y, folds = columns_like("independent", 100)
    target = Target(columns, y, folds, Metric("own.py:score", False, None, needs_all_targets), weight_trials=12)
    for name in BLENDERS:
        np.testing.assert_array_equal(target.fit(name).weights, fit(name, columns, y, folds, "rmse").weights)


@pytest.mark.parametrize("name", list(BLENDERS))
def test_without_a_labelled_row_every_candidate_is_the_mean(name: str) -> None:
    columns, y, folds = columns_like("independent", 100, 4)
    target = Target(columns, y, folds, METRICS["rmse"])
    assert target.fit(name, frozenset(range(5))).weights.tolist() == [0.25] * 4
    assert Target(columns, y * np.nan, folds, METRICS["rmse"]).fit(name, NONE).weights.tolist() == [0.25] * 4


def test_two_fits_give_the_same_bytes_and_optuna_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    columns, y, folds = columns_like("independent", 100, 4)
    first, second = fit("shrunk_ridge", columns, y, folds), fit("shrunk_ridge", columns, y, folds)
    assert first.weights.tobytes() == second.weights.tobytes()
    assert capfd.readouterr() == ("", "")


def test_a_prediction_does_not_depend_on_the_rows_beside_it() -> None:
    columns, y, folds = columns_like("independent", 101, 4)
    blend = fit("shrunk_ridge", columns, y, folds)
    assert (blend.predict(columns)[37:38] == blend.predict(columns[37:38])).all()
