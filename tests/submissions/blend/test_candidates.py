"""The candidates: hand-computed cases, properties that must hold, and what they must not see."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from competition.metrics import METRICS, Metric
from competition.paths import PROJECT
from submissions.blend import convex
from submissions.blend.candidates import (
    CANDIDATES,
    PENALTIES,
    REGRESSION_CANDIDATES,
    Blend,
    Candidate,
    WeightedCandidate,
)
from submissions.blend.convex import least_absolute_weights, least_squares_weights
from submissions.blend.serialization import from_json, to_json
from submissions.blend.weight_problem import NO_FOLDS, BlendData
from tests.submissions.fakes import columns_like

BLENDS = [name for name in REGRESSION_CANDIDATES if isinstance(CANDIDATES[name], WeightedCandidate)]
CONVEX = ["best_single", "mean", "convex", "greedy", "optuna"]
SUM_TO_ONE = [*CONVEX, "hill_climb"]


def matrices(columns: np.ndarray, y: np.ndarray, folds: np.ndarray | None = None, metric: str = "rmse") -> BlendData:
    folds = np.arange(len(y)) % 5 if folds is None else folds
    return BlendData(columns[:, :, None], y[:, None], folds, METRICS[metric], weight_trials=12)


def fit(name: str, columns: np.ndarray, y: np.ndarray, folds: np.ndarray | None = None, metric: str = "rmse") -> Blend:
    return CANDIDATES[name].fit(matrices(columns, y, folds, metric))  # type: ignore[return-value]


def weights(name: str, *args: object, **kwargs: object) -> np.ndarray:
    return fit(name, *args, **kwargs).weights[:, 0]  # type: ignore[arg-type]


def predict(blend: Blend, columns: np.ndarray) -> np.ndarray:
    return blend.predict(columns[:, :, None])[:, 0]


def orthogonal() -> tuple[np.ndarray, np.ndarray]:
    """Two columns whose errors have the mean squares 1 and 4 and the mean product 0, and the labels."""
    y = np.tile([0.0, 3.0, 1.0, -2.0], 5)
    small, large = np.tile([1.0, -1.0, 1.0, -1.0], 5), np.tile([2.0, 2.0, -2.0, -2.0], 5)
    return np.column_stack([y + small, y + large]), y


def test_hand_computed_weights() -> None:
    np.testing.assert_allclose(weights("convex", *orthogonal()), [0.8, 0.2], atol=1e-7)
    # greedy: small, small, large, small, small; climbing: small, then a fifth of large
    for name in ("greedy", "hill_climb"):
        assert weights(name, *orthogonal()).tolist() == pytest.approx([0.8, 0.2], abs=1e-15)
    # |errors| of weights (w, 1 - w) are |w + 2 (1 - w)| and |w - 2 (1 - w)|: least from w = 2/3 on, first at 2 of 3
    assert weights("greedy", *orthogonal(), metric="mae").tolist() == pytest.approx([2 / 3, 1 / 3])
    assert least_absolute_weights(np.array([[1.0, -1], [1, -1], [2, 0]]))[0] == pytest.approx(0.5)
    assert weights("mean", *orthogonal()).tolist() == [0.5, 0.5]
    error, y = np.random.default_rng(0).normal(size=20), orthogonal()[1]
    columns = np.column_stack([y + error, y + 2 * error])  # 1.5 of the first less 0.5 of the second halves the error
    np.testing.assert_allclose(weights("hill_climb", columns, y), [1.5, -0.5], atol=1e-12)
    y = np.arange(50.0)
    columns = np.column_stack([100 * y - 2000, y + np.tile([5.0, -5.0], 25)])  # perfect order; close but shuffled
    assert weights("best_single", columns, y, metric="spearman").tolist() == [1, 0]
    assert weights("best_single", columns, y, metric="rmse").tolist() == [0, 1]


def test_the_ridge_is_scikit_learns_with_the_penalty_of_the_grid_that_is_best_across_folds() -> None:
    columns, y, folds = columns_like("independent", 80, 6)
    columns = 30 * (columns + 0.3 * np.random.default_rng(1).normal(size=(80, 1))) + 3
    y = 30 * y + 3

    def across_folds(penalty: float) -> float:
        squares = 0.0
        for own in (folds == fold for fold in range(5)):
            model = Ridge(alpha=penalty * (~own).sum() * y[~own].var()).fit(columns[~own], y[~own])
            squares += ((y[own] - model.predict(columns[own])) ** 2).sum()
        return squares

    found = fit("ridge", columns, y, folds)
    penalty = found.settings[0]["penalty"]
    assert PENALTIES[0] < penalty < PENALTIES[-1]
    assert penalty == min(PENALTIES, key=across_folds)
    expected = Ridge(alpha=penalty * len(y) * y.var()).fit(columns, y)
    np.testing.assert_allclose(found.weights[:, 0], expected.coef_, atol=1e-9)
    assert found.intercept[0] == pytest.approx(expected.intercept_)


@pytest.mark.parametrize("name", ["shrunk_ridge", "ridge"])
def test_where_one_fold_is_left_a_tuned_blend_is_the_convex_one(name: str) -> None:
    columns, y, _ = columns_like("independent", 90)
    m, one, two = matrices(columns, y, np.arange(90) % 3), frozenset({0, 2}), frozenset({0})
    of = {n: [CANDIDATES[n].fit(m, without).weights.tolist() for without in (one, two)] for n in (name, "convex")}
    assert of[name][0] == of["convex"][0]
    assert of[name][1] != of["convex"][1]


@pytest.mark.parametrize("metric", ["rmse", "r2", "mae", "spearman", "median_ae"])
def test_weights_are_of_their_kind_and_neither_the_exact_ones_nor_optuna_from_them_are_worse(metric: str) -> None:
    score, sign = METRICS[metric], 1 if METRICS[metric].greater_is_better else -1
    for seed in range(5):
        rng = np.random.default_rng(seed)
        y = rng.normal(size=60)
        columns = y[:, None] + rng.normal(size=(60, 4)) * rng.uniform(0.1, 1, 4) + rng.normal(size=(60, 1))
        found = {name: fit(name, columns, y, metric=metric) for name in SUM_TO_ONE}
        for name, blend in found.items():
            assert blend.weights.sum() == pytest.approx(1, abs=1e-12)
            assert name == "hill_climb" or (blend.weights >= 0).all()
        of = {name: sign * score.score_column(y, predict(found[name], columns)) for name in CONVEX}
        assert of["convex"] >= max(of.values()) - 1e-8 or metric in ("spearman", "median_ae")
        assert of["optuna"] >= max(of["convex"], of["mean"]) - 1e-12


def test_squared_error_weights_meet_the_condition_of_the_minimum() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        errors = rng.normal(size=(rng.integers(3, 40), rng.integers(1, 9))) + rng.normal()
        found = least_squares_weights(errors.T @ errors)
        slope = errors.T @ errors @ found
        assert slope.min() >= found @ slope - 1e-8 * np.trace(errors.T @ errors)  # no column would lower the error


def test_absolute_error_weights_equal_brute_force() -> None:
    grid = [np.array([a, b, 100 - a - b]) / 100 for a, b in itertools.product(range(101), repeat=2) if a + b <= 100]
    for seed in range(3):
        errors = np.random.default_rng(seed).normal(size=(40, 3)) + [0.0, 0.3, -0.6]
        best = min(np.abs(errors @ each).sum() for each in grid)
        found = np.abs(errors @ least_absolute_weights(errors)).sum()
        assert 0.98 * best <= found <= best + 1e-9


@pytest.mark.parametrize("offset", [0.0, 2.0])
def test_absolute_error_weights_are_exact_where_only_rows_near_zero_are_in_the_programme(
    offset: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = np.random.default_rng(0).standard_t(1.5, size=(3000, 5)) * [1, 1.2, 1.5, 2, 3] + [offset, 0, 0, 0, -offset]
    found = []
    for rows in (convex.ROWS_AT_FIRST, 3000, 1):
        monkeypatch.setattr(convex, "ROWS_AT_FIRST", rows)
        found.append(least_absolute_weights(errors))
    np.testing.assert_allclose(found[0], found[1], atol=1e-9)
    np.testing.assert_allclose(found[2], found[1], atol=1e-9)


@pytest.mark.parametrize("name", REGRESSION_CANDIDATES)
@pytest.mark.parametrize("metric", ["rmse", "mae", "spearman"])
def test_neither_the_order_of_columns_and_rows_nor_the_unit_changes_a_prediction(name: str, metric: str) -> None:
    columns, y, folds = columns_like("independent", 120, 4)
    order, rows = [2, 0, 3, 1], np.random.default_rng(0).permutation(120)
    before = predict(fit(name, columns, y, folds, metric), columns)
    other_unit = predict(fit(name, 30 * columns, 30 * y, folds, metric), 30 * columns)
    np.testing.assert_allclose(other_unit, 30 * before, atol=1e-5)
    after = predict(fit(name, columns[:, order], y, folds, metric), columns[:, order])
    np.testing.assert_allclose(after, before, atol=1e-12)
    after = predict(fit(name, columns[rows], y[rows], folds[rows], metric), columns)
    np.testing.assert_allclose(after, before, atol=1e-7)
    after = predict(fit(name, columns + 273, y + 273, folds, metric), columns + 273) - 273
    np.testing.assert_allclose(after, before, atol=1e-6)


@pytest.mark.parametrize("metric", ["rmse", "mae"])
@pytest.mark.parametrize("name", REGRESSION_CANDIDATES)
def test_equal_columns_give_finite_predictions_and_share_their_convex_weight(name: str, metric: str) -> None:
    columns, y, folds = columns_like("independent", 100, 2)
    for twins in (columns[:, [0, 0, 1]], columns[:, [0, 0]], np.column_stack([y, y]), np.ones((100, 2))):
        assert np.isfinite(predict(fit(name, twins, y, folds, metric), twins)).all()
    one, two = weights("convex", columns, y, folds), weights("convex", columns[:, [0, 0, 1]], y, folds)
    np.testing.assert_allclose(two, [one[0] / 2, one[0] / 2, one[1]], atol=1e-5)


def test_the_shrunk_ridge_is_the_formula_of_its_docstring_and_its_settings_are_better_across_folds() -> None:
    columns, y, folds = columns_like("independent", 200, 4)
    m = matrices(columns + 3, y + 3, folds)

    def by_hand(rows: np.ndarray, without: frozenset[int], share: float, penalty: float) -> tuple[np.ndarray, float]:
        labels, centre, spread = y[rows] + 3, (y[rows] + 3).mean(), y[rows].std()
        x, residual = (columns[rows] + 3 - centre) / spread, (labels - centre) / spread
        start = share / 4 + (1 - share) * CANDIDATES["convex"].fit(m, without).weights[:, 0]
        identity = penalty * len(labels) * np.eye(4)
        found = start + np.linalg.solve(x.T @ x + identity, x.T @ (residual - x @ start))
        return found, centre * (1 - found.sum())

    def across_folds(share: float, penalty: float) -> float:
        squares = 0.0
        for fold in range(5):
            own = folds == fold
            found, intercept = by_hand(~own, frozenset({fold}), share, penalty)
            squares += ((y[own] + 3 - (columns[own] + 3) @ found - intercept) ** 2).sum()
        return squares

    blend = CANDIDATES["shrunk_ridge"].fit(m)
    share, penalty = blend.settings[0]["towards_common"], blend.settings[0]["penalty"]
    expected, intercept = by_hand(folds >= 0, NO_FOLDS, share, penalty)
    np.testing.assert_allclose(blend.weights[:, 0], expected, atol=1e-9)
    assert blend.intercept[0] == pytest.approx(intercept, abs=1e-9)
    found = across_folds(share, penalty)
    assert found <= min(across_folds(corner, 10.0) for corner in (0.0, 1.0)) * (1 + 1e-9)
    assert found <= 1.01 * min(across_folds(t, a) for t in (0, 0.5, 1) for a in (1e-4, 1e-3, 1e-2, 0.1, 1))


def test_a_target_with_few_labels_is_drawn_to_the_weights_of_all_targets() -> None:
    units, deviations, folds = np.array([1, 1, 100]), np.array([0.5, 1.0, 1.0]), np.arange(400) % 5
    best, off = deviations**-2 / sum(deviations**-2), []
    for rng in map(np.random.default_rng, range(6)):
        y, error = rng.normal(size=(400, 3)), rng.normal(size=(400, 3, 3)) * deviations[:, None]
        P, y = (y[:, None] + error) * units, np.where(np.arange(400)[:, None] < [400, 400, 20], y * units, np.nan)
        m = BlendData(P, y, folds, METRICS["rmse"])
        fits = [CANDIDATES["shrunk_ridge"].fit(each) for each in (m, replace(m, preds=P[:, :, 2:], y=y[:, 2:]))]
        off.append([abs(each.weights[:, -1] - best).sum() for each in fits])
    together, alone = np.mean(off, axis=0)
    assert together < 0.75 * alone


def test_for_the_mae_the_settings_are_tuned_on_the_mae_and_two_fits_are_the_same_and_silent(
    capfd: pytest.CaptureFixture[str],
) -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=200)
    columns = y[:, None] + rng.standard_t(1.5, size=(200, 4)) * [0.1, 0.2, 0.3, 0.4]
    found = [fit("shrunk_ridge", columns, y, metric=metric) for metric in ("mae", "rmse", "rmse")]
    assert found[0].settings != found[1].settings
    assert found[1].weights.tobytes() == found[2].weights.tobytes()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", REGRESSION_CANDIDATES)
@pytest.mark.parametrize("metric", ["rmse", "mae", "kendall"])
def test_rows_without_a_label_and_rows_of_fold_minus_one_are_left_out(name: str, metric: str) -> None:
    columns, y, folds = columns_like("independent", 100)
    left_out, unlabelled = np.arange(100) < 10, np.arange(100) >= 85
    folds, damaged = np.where(left_out, -1, folds), columns.copy()
    damaged[left_out] = np.nan
    y_damaged, kept = np.where(unlabelled, np.nan, np.where(left_out, 1e6, y)), ~left_out & ~unlabelled
    found = fit(name, damaged, y_damaged, folds, metric)
    if name == "mean_of_ranks":  # columns are known where labels are not
        kept, y = ~left_out, y_damaged
    expected = fit(name, columns[kept], y[kept], folds[kept], metric)
    np.testing.assert_allclose(predict(found, columns), predict(expected, columns), rtol=1e-12)


@pytest.mark.parametrize("name", BLENDS)
def test_a_metric_of_the_users_own_is_not_asked_about_one_of_several_targets(name: str) -> None:
    def needs_all_targets(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        raise AssertionError("called with one target")

    columns, y, folds = columns_like("independent", 100)
    P, both = np.repeat(columns[:, :, None], 2, axis=2), np.column_stack([y, y])
    own = Metric("own.py:score", False, None, needs_all_targets)
    found, squares = (
        CANDIDATES[name].fit(BlendData(P, both, folds, m, weight_trials=12)) for m in (own, METRICS["rmse"])
    )
    np.testing.assert_array_equal(found.weights, squares.weights)


def test_a_metric_of_the_users_own_is_tuned_on_where_there_is_one_target() -> None:
    def score(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        assert y_true.shape[1] == 1
        return float(np.mean(np.abs(y_true - y_pred) ** 0.5))

    columns, y, folds = columns_like("independent", 100)
    m = BlendData(columns[:, :, None], y[:, None], folds, Metric("own", False, None, score), weight_trials=12)
    of = {name: score(m.y, CANDIDATES[name].fit(m).predict(m.preds)) for name in ("convex", "optuna", "mean")}
    assert of["optuna"] < min(of["convex"], of["mean"]) + 1e-12 and of["convex"] != of["mean"]


@pytest.mark.parametrize("name", BLENDS)
def test_without_a_labelled_row_every_blend_is_the_mean(name: str) -> None:
    columns, y, folds = columns_like("independent", 100, 4)
    m = matrices(columns, y, folds)
    assert CANDIDATES[name].fit(m, frozenset(range(5))).weights.tolist() == [[0.25]] * 4
    assert weights(name, columns, y * np.nan, folds).tolist() == [0.25] * 4


def test_the_median_and_the_mean_of_ranks_by_hand() -> None:
    columns = np.array([[1.0, 2.0, 9.0], [4.0, 3.0, -7.0]])
    assert predict(fit("median", columns, np.zeros(2)), columns).tolist() == [2, 3]
    y = np.arange(101.0)
    columns = np.column_stack([y**3, -5 + 0.1 * y])  # both in the right order, on scales of their own
    ranks = fit("mean_of_ranks", columns, y)
    np.testing.assert_allclose(predict(ranks, columns), y, atol=1e-9)
    new = np.array([[20.0**3, -5 + 4.0], [-1e9, -1e9], [1e9, 1e9]])  # ranks .2 and .4; beyond the ends
    np.testing.assert_allclose(predict(ranks, new), [30, 0, 100], atol=1e-9)
    np.testing.assert_allclose(predict(ranks, new[:1]), [30], atol=1e-9)  # alone as among others


def test_a_candidate_of_the_users_own_sees_the_rows_it_is_fitted_on_and_no_other() -> None:
    columns, y, folds = columns_like("independent", 60)
    m = matrices(columns, y, np.where(np.arange(60) < 5, -1, folds))
    left = (folds > 0) & (np.arange(60) >= 5)

    def first(P: np.ndarray, y: np.ndarray, metric: Metric, folds: np.ndarray, weights: str) -> list[float]:
        for given, whole in ((P, m.preds), (y, m.y), (folds, m.folds)):
            np.testing.assert_array_equal(given, whole[left])
        assert (metric.name, weights) == ("rmse", "per_target")
        return [1, 0, 0]

    fitted = Candidate(first, "mine.py:first").fit(m, frozenset({0}))
    np.testing.assert_array_equal(fitted.predict(m.preds)[:, 0], columns[:, 0])


def test_the_level_2_model_of_the_page_on_ensembling_is_a_candidate_that_is_read_again(tmp_path: Path) -> None:
    page = (PROJECT / "docs" / "ensembling.md").read_text()
    (tmp_path / "mine.py").write_text(page.split("```python\n")[1].split("```")[0])
    columns, y, folds = columns_like("trees")
    named = f"{tmp_path}/mine.py:fit"
    m = shared([(columns, y), (columns + 3, 2 * y)], folds)
    fitted = get_candidate(named).fit(m)
    y_pred = fitted.predict(m.preds)
    assert METRICS["rmse"](m.y, y_pred) < 0.8 * METRICS["rmse"](m.y, CANDIDATES["shrunk_ridge"].fit(m).predict(m.preds))
    np.testing.assert_array_equal(from_json(json.loads(json.dumps(to_json(fitted))), named).predict(m.preds), y_pred)


# One vector of weights for all targets


def shared(parts: list[tuple[np.ndarray, np.ndarray]], folds: np.ndarray, metric: str = "rmse") -> BlendData:
    P, y = np.stack([columns for columns, _ in parts], axis=2), np.column_stack([labels for _, labels in parts])
    return BlendData(P, y, folds, METRICS[metric], "shared", trials=40, weight_trials=12)


def test_targets_that_want_opposite_weights_meet_in_the_middle_and_each_counts_the_same() -> None:
    y = np.tile([0.0, 3.0, 1.0, -2.0], 20)
    small, large = np.tile([1.0, -1.0, 1.0, -1.0], 20), np.tile([2.0, 2.0, -2.0, -2.0], 20)
    first, second = np.column_stack([y + small, y + large]), np.column_stack([y + large, y + small])
    sparse = np.where(np.arange(80) < 40, y, np.nan)  # half the labels, of the same spread
    for unit, zero in ((1, 0), (1000, 273)):
        m = shared([(first, y), (unit * second + zero, unit * sparse + zero)], np.arange(80) % 5)
        for name in ("convex", "hill_climb"):
            np.testing.assert_allclose(CANDIDATES[name].fit(m).weights, 0.5, atol=1e-6)
        ridge = CANDIDATES["ridge"].fit(m)
        assert ridge.intercept[1] - zero == pytest.approx(unit * ridge.intercept[0] - zero * ridge.weights[:, 1].sum())


@pytest.mark.parametrize("name", BLENDS)
def test_equal_targets_share_what_each_would_have_alone_and_one_without_a_label_stops_no_other(name: str) -> None:
    columns, y, folds = columns_like("independent", 100)
    of_fold_0 = np.where(folds == 0, y, np.nan)
    for other, without in ((y, NO_FOLDS), (of_fold_0, frozenset({0}))):
        alone = CANDIDATES[name].fit(matrices(columns, y, folds, "r2"), without)
        found = CANDIDATES[name].fit(shared([(columns, y), (columns, other)], folds, "r2"), without)
        np.testing.assert_allclose(found.weights[:, 0], alone.weights[:, 0], atol=1e-9)
        np.testing.assert_allclose(found.weights[:, 1], 1 / 3 if without else alone.weights[:, 0], atol=1e-9)
        assert found.intercept[0] == pytest.approx(alone.intercept[0], abs=1e-9)
