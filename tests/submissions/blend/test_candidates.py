"""The candidates: hand-computed cases, invariances, and rows and labels that must not be used."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from competition.metrics import METRICS, Metric
from competition.paths import PROJECT
from submissions.blend.candidates import (
    CANDIDATES,
    REGRESSION_CANDIDATES,
    Blend,
    Candidate,
    WeightedCandidate,
    get_candidate,
)
from submissions.blend.serialization import from_json, to_json
from submissions.blend.solvers import PENALTIES
from submissions.blend.weight_problem import ERRORS, LABEL, NO_FOLDS, BlendData
from tests.submissions.fakes import columns_like

BLENDS = [name for name in REGRESSION_CANDIDATES if isinstance(CANDIDATES[name], WeightedCandidate)]
CONVEX = ["best_single", "mean", "convex", "greedy", "optuna"]
SUM_TO_ONE = [*CONVEX, "hill_climb"]


def blend_data(
    preds: np.ndarray, y: np.ndarray, folds: np.ndarray | None = None, metric: str = "rmse"
) -> BlendData:
    folds = np.arange(len(y)) % 5 if folds is None else folds
    return BlendData(preds[:, :, None], y[:, None], folds, METRICS[metric], weight_trials=12)


def fit(
    name: str, preds: np.ndarray, y: np.ndarray, folds: np.ndarray | None = None, metric: str = "rmse"
) -> Blend:
    return CANDIDATES[name].fit(blend_data(preds, y, folds, metric))  # type: ignore[return-value]


def weights(name: str, *args: object, **kwargs: object) -> np.ndarray:
    return fit(name, *args, **kwargs).weights[:, 0]  # type: ignore[arg-type]


def predict(blend: Blend, preds: np.ndarray) -> np.ndarray:
    return blend.predict(preds[:, :, None])[:, 0]


def preds_with_orthogonal_errors() -> tuple[np.ndarray, np.ndarray]:
    """Predictions of two models, with mean squared errors 1 and 4 and mean product of errors 0, and the
    labels.
    """
    y = np.tile([0.0, 3.0, 1.0, -2.0], 5)
    small = np.tile([1.0, -1.0, 1.0, -1.0], 5)
    large = np.tile([2.0, 2.0, -2.0, -2.0], 5)
    return np.column_stack([y + small, y + large]), y


def test_the_example_of_the_weight_problem() -> None:
    y = np.array([0.0, 0, 4, 4])
    preds = np.array([[-2.0, -4], [2, -4], [2, 8], [6, 8]])
    data = blend_data(preds, y, np.zeros(4, dtype=np.int64))
    problem = data.problems[0]
    assert problem.model_order.tolist() == [1, 0]
    assert problem.moments.tolist() == [[1, 0, 0, 0], [0, 1, -2, 0], [0, -2, 4, 0], [0, 0, 0, 1]]
    assert problem.moments[LABEL, LABEL] == 1
    assert problem.moments[ERRORS, ERRORS].tolist() == [[4, 0], [0, 1]]
    np.testing.assert_allclose(CANDIDATES["convex"].fit(data).weights[:, 0], [0.8, 0.2], atol=1e-7)


def test_hand_computed_weights() -> None:
    preds, y = preds_with_orthogonal_errors()
    np.testing.assert_allclose(weights("convex", preds, y), [0.8, 0.2], atol=1e-7)
    # greedy: small, small, large, small, small; climbing: small, then a fifth of large
    for name in ("greedy", "hill_climb"):
        assert weights(name, preds, y).tolist() == pytest.approx([0.8, 0.2], abs=1e-15)
    # |errors| of weights (w, 1 - w) are |w + 2 (1 - w)| and |w - 2 (1 - w)|: smallest from w = 2/3 on
    assert weights("greedy", preds, y, metric="mae").tolist() == pytest.approx([2 / 3, 1 / 3])
    assert weights("mean", preds, y).tolist() == [0.5, 0.5]
    error = np.random.default_rng(0).normal(size=20)
    preds = np.column_stack([y + error, y + 2 * error])  # 1.5 of the first minus 0.5 of the second
    np.testing.assert_allclose(weights("hill_climb", preds, y), [1.5, -0.5], atol=1e-12)
    y = np.arange(50.0)
    preds = np.column_stack([100 * y - 2000, y + np.tile([5.0, -5.0], 25)])  # perfect ranks; small errors
    assert weights("best_single", preds, y, metric="spearman").tolist() == [1, 0]
    assert weights("best_single", preds, y, metric="rmse").tolist() == [0, 1]


def test_the_ridge_is_scikit_learns_with_the_penalty_of_the_grid_that_is_best_across_folds() -> None:
    preds, y, folds = columns_like("independent", 80, 6)
    preds = 30 * (preds + 0.3 * np.random.default_rng(1).normal(size=(80, 1))) + 3
    y = 30 * y + 3

    def cross_fitted_error(penalty: float) -> float:
        squares = 0.0
        for fold in range(5):
            held_out = folds == fold
            train_y = y[~held_out]
            model = Ridge(alpha=penalty * len(train_y) * train_y.var()).fit(preds[~held_out], train_y)
            squares += ((y[held_out] - model.predict(preds[held_out])) ** 2).sum()
        return squares

    blend = fit("ridge", preds, y, folds)
    penalty = blend.settings[0]["penalty"]
    assert PENALTIES[0] < penalty < PENALTIES[-1]
    assert penalty == min(PENALTIES, key=cross_fitted_error)
    expected = Ridge(alpha=penalty * len(y) * y.var()).fit(preds, y)
    np.testing.assert_allclose(blend.weights[:, 0], expected.coef_, atol=1e-9)
    assert blend.intercept[0] == pytest.approx(expected.intercept_)


@pytest.mark.parametrize("name", ["shrunk_ridge", "ridge"])
def test_on_a_single_fold_a_tuned_blend_is_the_convex_one(name: str) -> None:
    preds, y, _ = columns_like("independent", 90)
    data = blend_data(preds, y, np.arange(90) % 3)

    def weights_without(candidate: str, *folds: int) -> list:
        return CANDIDATES[candidate].fit(data, frozenset(folds)).weights.tolist()

    assert weights_without(name, 0, 2) == weights_without("convex", 0, 2)
    assert weights_without(name, 0) != weights_without("convex", 0)


@pytest.mark.parametrize("metric", ["rmse", "r2", "mae", "spearman", "median_ae"])
def test_weights_sum_to_one_and_exact_weights_and_optuna_are_not_worse(metric: str) -> None:
    score = METRICS[metric]
    sign = 1 if score.greater_is_better else -1
    for seed in range(5):
        rng = np.random.default_rng(seed)
        y = rng.normal(size=60)
        preds = y[:, None] + rng.normal(size=(60, 4)) * rng.uniform(0.1, 1, 4) + rng.normal(size=(60, 1))
        blends = {name: fit(name, preds, y, metric=metric) for name in SUM_TO_ONE}
        for name, blend in blends.items():
            assert blend.weights.sum() == pytest.approx(1, abs=1e-12)
            assert name == "hill_climb" or (blend.weights >= 0).all()
        scores = {name: sign * score.score_column(y, predict(blends[name], preds)) for name in CONVEX}
        assert scores["convex"] >= max(scores.values()) - 1e-8 or metric in ("spearman", "median_ae")
        assert scores["optuna"] >= max(scores["convex"], scores["mean"]) - 1e-12


@pytest.mark.parametrize("name", REGRESSION_CANDIDATES)
@pytest.mark.parametrize("metric", ["rmse", "mae", "spearman"])
def test_the_order_of_models_and_rows_and_the_unit_do_not_change_predictions(name: str, metric: str) -> None:
    preds, y, folds = columns_like("independent", 120, 4)
    order = [2, 0, 3, 1]
    rows = np.random.default_rng(0).permutation(120)
    before = predict(fit(name, preds, y, folds, metric), preds)
    other_unit = predict(fit(name, 30 * preds, 30 * y, folds, metric), 30 * preds)
    np.testing.assert_allclose(other_unit, 30 * before, atol=1e-5)
    after = predict(fit(name, preds[:, order], y, folds, metric), preds[:, order])
    np.testing.assert_allclose(after, before, atol=1e-12)
    after = predict(fit(name, preds[rows], y[rows], folds[rows], metric), preds)
    np.testing.assert_allclose(after, before, atol=1e-7)
    after = predict(fit(name, preds + 273, y + 273, folds, metric), preds + 273) - 273
    np.testing.assert_allclose(after, before, atol=1e-6)


@pytest.mark.parametrize("metric", ["rmse", "mae"])
@pytest.mark.parametrize("name", REGRESSION_CANDIDATES)
def test_duplicate_models_give_finite_predictions_and_share_their_convex_weight(
    name: str, metric: str
) -> None:
    preds, y, folds = columns_like("independent", 100, 2)
    perfect = np.column_stack([y, y])
    for duplicates in (preds[:, [0, 0, 1]], preds[:, [0, 0]], perfect, np.ones((100, 2))):
        assert np.isfinite(predict(fit(name, duplicates, y, folds, metric), duplicates)).all()
    w = weights("convex", preds, y, folds)
    with_duplicate = weights("convex", preds[:, [0, 0, 1]], y, folds)
    np.testing.assert_allclose(with_duplicate, [w[0] / 2, w[0] / 2, w[1]], atol=1e-5)


def test_the_shrunk_ridge_is_the_formula_of_its_docstring_with_settings_that_are_good_across_folds() -> None:
    preds, y, folds = columns_like("independent", 200, 4)
    preds = preds + 3
    y = y + 3
    data = blend_data(preds, y, folds)

    def formula(
        rows: np.ndarray, excluded: frozenset[int], share: float, penalty: float
    ) -> tuple[np.ndarray, float]:
        mean, std = y[rows].mean(), y[rows].std()
        x = (preds[rows] - mean) / std
        labels = (y[rows] - mean) / std
        start = share / 4 + (1 - share) * CANDIDATES["convex"].fit(data, excluded).weights[:, 0]
        identity = penalty * len(labels) * np.eye(4)
        w = start + np.linalg.solve(x.T @ x + identity, x.T @ (labels - x @ start))
        return w, mean * (1 - w.sum())

    def cross_fitted_error(share: float, penalty: float) -> float:
        squares = 0.0
        for fold in range(5):
            in_fold = folds == fold
            w, intercept = formula(~in_fold, frozenset({fold}), share, penalty)
            squares += ((y[in_fold] - preds[in_fold] @ w - intercept) ** 2).sum()
        return squares

    blend = CANDIDATES["shrunk_ridge"].fit(data)
    share, penalty = blend.settings[0]["towards_common"], blend.settings[0]["penalty"]
    expected, intercept = formula(folds >= 0, NO_FOLDS, share, penalty)
    np.testing.assert_allclose(blend.weights[:, 0], expected, atol=1e-9)
    assert blend.intercept[0] == pytest.approx(intercept, abs=1e-9)
    error = cross_fitted_error(share, penalty)
    grid = itertools.product((0, 0.5, 1), (1e-4, 1e-3, 1e-2, 0.1, 1))
    assert error <= min(cross_fitted_error(corner, 10.0) for corner in (0.0, 1.0)) * (1 + 1e-9)
    assert error <= 1.01 * min(cross_fitted_error(t, a) for t, a in grid)


def test_a_target_with_few_labels_is_shrunk_towards_the_weights_of_all_targets() -> None:
    units = np.array([1, 1, 100])
    deviations = np.array([0.5, 1.0, 1.0])
    n_labels = [400, 400, 20]
    best = deviations**-2 / sum(deviations**-2)
    distances = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        y = rng.normal(size=(400, 3))
        error = rng.normal(size=(400, 3, 3)) * deviations[:, None]
        preds = (y[:, None] + error) * units
        y = np.where(np.arange(400)[:, None] < n_labels, y * units, np.nan)
        data = BlendData(preds, y, np.arange(400) % 5, METRICS["rmse"])
        last_target = replace(data, preds=preds[:, :, 2:], y=y[:, 2:])
        blends = [CANDIDATES["shrunk_ridge"].fit(part) for part in (data, last_target)]
        distances.append([abs(blend.weights[:, -1] - best).sum() for blend in blends])
    together, alone = np.mean(distances, axis=0)
    assert together < 0.75 * alone


def test_for_the_mae_the_settings_are_tuned_on_the_mae_and_fits_are_deterministic_and_silent(
    capfd: pytest.CaptureFixture[str],
) -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=200)
    preds = y[:, None] + rng.standard_t(1.5, size=(200, 4)) * [0.1, 0.2, 0.3, 0.4]
    mae, first, second = (fit("shrunk_ridge", preds, y, metric=metric) for metric in ("mae", "rmse", "rmse"))
    assert mae.settings != first.settings
    assert first.weights.tobytes() == second.weights.tobytes()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", REGRESSION_CANDIDATES)
@pytest.mark.parametrize("metric", ["rmse", "mae", "kendall"])
def test_rows_without_a_label_and_rows_of_fold_minus_one_are_ignored(name: str, metric: str) -> None:
    preds, y, folds = columns_like("independent", 100)
    ignored = np.arange(100) < 10
    unlabelled = np.arange(100) >= 85
    new_folds = np.where(ignored, -1, folds)
    new_preds = preds.copy()
    new_preds[ignored] = np.nan
    new_y = np.where(unlabelled, np.nan, np.where(ignored, 1e6, y))
    blend = fit(name, new_preds, new_y, new_folds, metric)
    rows = ~ignored & ~unlabelled
    if name == "mean_of_ranks":  # it uses predictions of rows without labels
        rows = ~ignored
        y = new_y
    expected = fit(name, preds[rows], y[rows], new_folds[rows], metric)
    np.testing.assert_allclose(predict(blend, preds), predict(expected, preds), rtol=1e-12)


@pytest.mark.parametrize("name", BLENDS)
def test_a_user_defined_metric_is_not_called_with_one_of_several_targets(name: str) -> None:
    def needs_all_targets(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        raise AssertionError("called with one target")

    preds, y, folds = columns_like("independent", 100)
    preds = np.repeat(preds[:, :, None], 2, axis=2)
    y = np.column_stack([y, y])

    def fit_on(metric: Metric) -> Blend:
        return CANDIDATES[name].fit(BlendData(preds, y, folds, metric, weight_trials=12))

    user_metric = Metric("my_metric.py:score", False, None, needs_all_targets)
    np.testing.assert_array_equal(fit_on(user_metric).weights, fit_on(METRICS["rmse"]).weights)


def test_a_user_defined_metric_is_used_for_tuning_with_one_target() -> None:
    def score(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        assert y_true.shape[1] == 1
        return float(np.mean(np.abs(y_true - y_pred) ** 0.5))

    preds, y, folds = columns_like("independent", 100)
    metric = Metric("my_metric.py:score", False, None, score)
    data = BlendData(preds[:, :, None], y[:, None], folds, metric, weight_trials=12)

    def score_of(name: str) -> float:
        return score(data.y, CANDIDATES[name].fit(data).predict(data.preds))

    convex_score, mean_score = score_of("convex"), score_of("mean")
    assert score_of("optuna") < min(convex_score, mean_score) + 1e-12
    assert convex_score != mean_score


@pytest.mark.parametrize("name", BLENDS)
def test_without_a_labelled_row_every_blend_is_the_mean(name: str) -> None:
    preds, y, folds = columns_like("independent", 100, 4)
    data = blend_data(preds, y, folds)
    assert CANDIDATES[name].fit(data, frozenset(range(5))).weights.tolist() == [[0.25]] * 4
    assert weights(name, preds, y * np.nan, folds).tolist() == [0.25] * 4


def test_the_median_and_the_mean_of_ranks_by_hand() -> None:
    preds = np.array([[1.0, 2.0, 9.0], [4.0, 3.0, -7.0]])
    assert predict(fit("median", preds, np.zeros(2)), preds).tolist() == [2, 3]
    y = np.arange(101.0)
    preds = np.column_stack([y**3, -5 + 0.1 * y])  # both in the right order, on different scales
    ranks = fit("mean_of_ranks", preds, y)
    np.testing.assert_allclose(predict(ranks, preds), y, atol=1e-9)
    new = np.array([[20.0**3, -5 + 4.0], [-1e9, -1e9], [1e9, 1e9]])  # ranks .2 and .4; outside the range
    np.testing.assert_allclose(predict(ranks, new), [30, 0, 100], atol=1e-9)
    np.testing.assert_allclose(predict(ranks, new[:1]), [30], atol=1e-9)  # other rows have no influence


def test_a_user_defined_candidate_only_gets_the_rows_it_is_fitted_on() -> None:
    preds, y, folds = columns_like("independent", 60)
    data = blend_data(preds, y, np.where(np.arange(60) < 5, -1, folds))
    rows = (folds > 0) & (np.arange(60) >= 5)

    def first(
        preds: np.ndarray, y: np.ndarray, metric: Metric, folds: np.ndarray, weights: str
    ) -> list[float]:
        np.testing.assert_array_equal(preds, data.preds[rows])
        np.testing.assert_array_equal(y, data.y[rows])
        np.testing.assert_array_equal(folds, data.folds[rows])
        assert (metric.name, weights) == ("rmse", "per_target")
        return [1, 0, 0]

    fitted = Candidate(first, "mine.py:first").fit(data, frozenset({0}))
    np.testing.assert_array_equal(fitted.predict(data.preds)[:, 0], preds[:, 0])


def test_the_level_2_model_of_the_page_on_ensembling_is_a_candidate_that_can_be_restored(
    tmp_path: Path,
) -> None:
    page = (PROJECT / "docs" / "ensembling.md").read_text()
    (tmp_path / "mine.py").write_text(page.split("```python\n")[1].split("```")[0])
    preds, y, folds = columns_like("trees")
    code_ref = f"{tmp_path}/mine.py:fit"
    data = shared_weights([(preds, y), (preds + 3, 2 * y)], folds)
    fitted = get_candidate(code_ref).fit(data)
    y_pred = fitted.predict(data.preds)
    ridge_pred = CANDIDATES["shrunk_ridge"].fit(data).predict(data.preds)
    assert METRICS["rmse"](data.y, y_pred) < 0.8 * METRICS["rmse"](data.y, ridge_pred)
    restored = from_json(json.loads(json.dumps(to_json(fitted))), code_ref)
    np.testing.assert_array_equal(restored.predict(data.preds), y_pred)


# One vector of weights for all targets


def shared_weights(
    targets: list[tuple[np.ndarray, np.ndarray]], folds: np.ndarray, metric: str = "rmse"
) -> BlendData:
    """Blend data with shared weights from base predictions and labels of each target."""
    preds = np.stack([target_preds for target_preds, _ in targets], axis=2)
    y = np.column_stack([labels for _, labels in targets])
    return BlendData(preds, y, folds, METRICS[metric], "shared", trials=40, weight_trials=12)


def test_targets_with_opposite_best_weights_share_the_middle_and_have_the_same_influence() -> None:
    y = np.tile([0.0, 3.0, 1.0, -2.0], 20)
    small = np.tile([1.0, -1.0, 1.0, -1.0], 20)
    large = np.tile([2.0, 2.0, -2.0, -2.0], 20)
    first = np.column_stack([y + small, y + large])
    second = np.column_stack([y + large, y + small])
    sparse = np.where(np.arange(80) < 40, y, np.nan)  # half of the labels, with the same deviation
    for unit, zero in ((1, 0), (1000, 273)):
        targets = [(first, y), (unit * second + zero, unit * sparse + zero)]
        data = shared_weights(targets, np.arange(80) % 5)
        for name in ("convex", "hill_climb"):
            np.testing.assert_allclose(CANDIDATES[name].fit(data).weights, 0.5, atol=1e-6)
        ridge = CANDIDATES["ridge"].fit(data)
        expected = unit * ridge.intercept[0] - zero * ridge.weights[:, 1].sum()
        assert ridge.intercept[1] - zero == pytest.approx(expected)


@pytest.mark.parametrize("name", BLENDS)
def test_equal_targets_share_their_single_target_weights_and_a_target_without_labels_does_not_matter(
    name: str,
) -> None:
    preds, y, folds = columns_like("independent", 100)
    only_fold_0 = np.where(folds == 0, y, np.nan)
    for other_y, excluded in ((y, NO_FOLDS), (only_fold_0, frozenset({0}))):
        alone = CANDIDATES[name].fit(blend_data(preds, y, folds, "r2"), excluded)
        data = shared_weights([(preds, y), (preds, other_y)], folds, "r2")
        blend = CANDIDATES[name].fit(data, excluded)
        np.testing.assert_allclose(blend.weights[:, 0], alone.weights[:, 0], atol=1e-9)
        np.testing.assert_allclose(blend.weights[:, 1], 1 / 3 if excluded else alone.weights[:, 0], atol=1e-9)
        assert blend.intercept[0] == pytest.approx(alone.intercept[0], abs=1e-9)
