"""The candidates: hand-computed cases, invariances, and rows and labels that must not be used."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from competition.metrics import METRICS, Metric
from core.errors import ConfigError
from core.files import PROJECT
from submissions.blend.candidates import CANDIDATES, fit_candidate
from submissions.blend.data import Blend, convex_weights, from_json, to_json
from tests.submissions.blend.data import classes, noisy_classes, numbers
from tests.submissions.fakes import columns_like

BLENDS = [name for name in CANDIDATES if name != "shrunk_logits"]


def fit(
    name: str, preds: np.ndarray, y: np.ndarray, folds: np.ndarray | None = None, metric: str = "rmse"
) -> Blend:
    data = numbers(preds, y, folds, metric, n_trials=12)
    return CANDIDATES[name](data, data.all_folds)  # type: ignore[return-value]


def weights(name: str, *args: object, **kwargs: object) -> np.ndarray:
    return fit(name, *args, **kwargs).weights[:, 0]  # type: ignore[arg-type]


def predict(blend: Blend, preds: np.ndarray) -> np.ndarray:
    return blend.predict(preds[:, :, None])[:, 0]


def preds_with_orthogonal_errors() -> tuple[np.ndarray, np.ndarray]:
    """Columns with mean squared errors 1 and 4 and mean product of errors 0, and the labels."""
    y = np.tile([0.0, 3.0, 1.0, -2.0], 5)
    small = np.tile([1.0, -1.0, 1.0, -1.0], 5)
    large = np.tile([2.0, 2.0, -2.0, -2.0], 5)
    return np.column_stack([y + small, y + large]), y


def test_hand_computed_weights() -> None:
    preds, y = preds_with_orthogonal_errors()
    np.testing.assert_allclose(weights("convex", preds, y), [0.8, 0.2], atol=1e-7)
    # climbing: small, then a fifth of large
    assert weights("hill_climb", preds, y).tolist() == pytest.approx([0.8, 0.2], abs=1e-15)
    assert weights("mean", preds, y).tolist() == [0.5, 0.5]
    error = np.random.default_rng(0).normal(size=20)
    preds = np.column_stack([y + error, y + 2 * error])  # 1.5 of the first minus 0.5 of the second
    np.testing.assert_allclose(weights("hill_climb", preds, y), [1.5, -0.5], atol=1e-12)
    y = np.arange(50.0)
    preds = np.column_stack([100 * y - 2000, y + np.tile([5.0, -5.0], 25)])  # perfect ranks; small errors
    assert weights("best_single", preds, y, metric="spearman").tolist() == [1, 0]
    assert weights("best_single", preds, y, metric="rmse").tolist() == [0, 1]


def test_convex_weights_are_optimal_also_beside_an_absurd_column() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        errors = rng.normal(size=(rng.integers(3, 40), rng.integers(1, 9))) + rng.normal()
        solution = convex_weights(errors)
        slope = errors.T @ (errors @ solution)
        assert (
            slope.min() >= solution @ slope - 1e-6 * np.square(errors).sum()
        )  # no column would reduce the error
        with_absurd = np.column_stack([errors, 1e12 * rng.normal(size=len(errors))])
        loss = np.linalg.norm(with_absurd @ convex_weights(with_absurd))
        assert loss <= np.linalg.norm(errors @ solution) * (1 + 1e-6)


def test_the_system_of_some_folds_has_the_sums_of_their_rows() -> None:
    preds, y, folds = columns_like("independent", 100)
    data = numbers(preds + 1e6, y + 1e6, folds)
    system = data.system(0, frozenset({0, 2}))
    assert system is not None
    rows = np.isin(folds, [0, 2])
    deviations = y[rows] - y[rows].mean()
    errors = y[rows, None] - preds[rows]
    scale = deviations @ deviations
    assert system.y @ system.y == pytest.approx(1)
    np.testing.assert_allclose(system.errors.T @ system.errors, errors.T @ errors / scale, rtol=1e-6)
    np.testing.assert_allclose(system.errors.T @ system.y, errors.T @ deviations / scale, rtol=1e-6)
    assert system.mean == pytest.approx(y[rows].mean() + 1e6, abs=1e-6)


@pytest.mark.parametrize("metric", ["rmse", "mae", "spearman", "median_ae"])
def test_weights_sum_to_one_and_convex_ones_are_not_below_zero(metric: str) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        y = rng.normal(size=60)
        preds = y[:, None] + rng.normal(size=(60, 4)) * rng.uniform(0.1, 1, 4) + rng.normal(size=(60, 1))
        for name in ("best_single", "mean", "convex", "hill_climb"):
            blend = fit(name, preds, y, metric=metric)
            assert blend.weights.sum() == pytest.approx(1, abs=1e-12)
            assert name == "hill_climb" or (blend.weights >= 0).all()


@pytest.mark.parametrize("name", BLENDS)
@pytest.mark.parametrize("metric", ["rmse", "mae", "spearman"])
def test_the_order_of_rows_and_the_unit_do_not_change_predictions(name: str, metric: str) -> None:
    preds, y, folds = columns_like("independent", 120, 4)
    rows = np.random.default_rng(0).permutation(120)
    before = predict(fit(name, preds, y, folds, metric), preds)
    other_unit = predict(fit(name, 30 * preds, 30 * y, folds, metric), 30 * preds)
    np.testing.assert_allclose(other_unit, 30 * before, atol=1e-5)
    after = predict(fit(name, preds[rows], y[rows], folds[rows], metric), preds)
    np.testing.assert_allclose(after, before, atol=1e-7)
    after = predict(fit(name, preds + 273, y + 273, folds, metric), preds + 273) - 273
    np.testing.assert_allclose(after, before, atol=1e-6)


@pytest.mark.parametrize("metric", ["rmse", "mae"])
@pytest.mark.parametrize("name", BLENDS)
def test_equal_columns_and_constant_labels_give_finite_predictions(name: str, metric: str) -> None:
    preds, y, folds = columns_like("independent", 100, 2)
    perfect = np.column_stack([y, y])
    for duplicates in (preds[:, [0, 0, 1]], preds[:, [0, 0]], perfect, np.ones((100, 2))):
        assert np.isfinite(predict(fit(name, duplicates, y, folds, metric), duplicates)).all()
    rare = np.where(np.arange(100) == 7, 1.0, 0.0)  # the labels of all folds but one are constant
    equal = preds[:, [0, 0, 1]]
    assert np.abs(predict(fit(name, equal, rare, folds, metric), equal)).max() < 10


def test_equal_columns_share_their_convex_weight() -> None:
    preds, y, folds = columns_like("independent", 100, 2)
    w = weights("convex", preds, y, folds)
    nearly = preds[:, 0] + 1e-9 * np.random.default_rng(0).normal(size=100)
    for first in (preds[:, 0], nearly):
        shared = weights("convex", np.column_stack([first, preds]), y, folds)
        np.testing.assert_allclose(shared, [w[0] / 2, w[0] / 2, w[1]], atol=0.05)


def test_the_shrunk_ridge_is_the_formula_of_its_docstring_with_settings_that_are_good_across_folds() -> None:
    preds, y, folds = columns_like("independent", 200, 4)
    preds = preds + 3
    y = y + 3
    data = numbers(preds, y, folds)

    def formula(rows: np.ndarray, share: float, penalty: float) -> tuple[np.ndarray, float]:
        mean, std = y[rows].mean(), y[rows].std()
        x = (preds[rows] - mean) / std
        labels = (y[rows] - mean) / std
        kept = frozenset(folds[rows].tolist())
        start = share / 4 + (1 - share) * CANDIDATES["convex"](data, kept).weights[:, 0]  # type: ignore[attr-defined]
        identity = penalty * len(labels) * np.eye(4)
        w = start + np.linalg.solve(x.T @ x + identity, x.T @ (labels - x @ start))
        return w, mean * (1 - w.sum())

    def cross_fitted_error(share: float, penalty: float) -> float:
        squares = 0.0
        for fold in range(5):
            in_fold = folds == fold
            w, intercept = formula(~in_fold, share, penalty)
            squares += ((y[in_fold] - preds[in_fold] @ w - intercept) ** 2).sum()
        return squares

    blend = CANDIDATES["shrunk_ridge"](data, data.all_folds)
    assert isinstance(blend, Blend)
    share, penalty = blend.settings[0]["towards_pooled"], blend.settings[0]["penalty"]
    expected, intercept = formula(folds >= 0, share, penalty)
    np.testing.assert_allclose(blend.weights[:, 0], expected, atol=1e-9)
    assert blend.intercept[0] == pytest.approx(intercept, abs=1e-9)
    error = cross_fitted_error(share, penalty)
    grid = itertools.product((0, 0.5, 1), (1e-4, 1e-3, 1e-2, 0.1, 1))
    assert error <= min(cross_fitted_error(corner, 10.0) for corner in (0.0, 1.0)) * (1 + 1e-9)
    assert error <= 1.01 * min(cross_fitted_error(t, a) for t, a in grid)


def test_labels_far_from_zero_keep_their_mean() -> None:
    rng = np.random.default_rng(0)
    y = 10 + rng.normal(size=200)
    preds = (
        10 + 0.3 * (y[:, None] - 10) + rng.normal(size=(200, 3))
    )  # weights of columns shrink towards the mean
    blend = fit("shrunk_ridge", preds, y)
    assert METRICS["rmse"](y[:, None], predict(blend, preds)[:, None]) < 1


def test_on_a_single_fold_the_default_is_the_convex_blend() -> None:
    preds, y, _ = columns_like("independent", 90)
    data = numbers(preds, y, np.arange(90) % 3)

    def weights_on(candidate: str, *folds: int) -> list:
        return CANDIDATES[candidate](data, frozenset(folds)).weights.tolist()  # type: ignore[attr-defined]

    assert weights_on("shrunk_ridge", 1) == weights_on("convex", 1)
    assert weights_on("shrunk_ridge", 1, 2) != weights_on("convex", 1, 2)


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
        blends = [
            CANDIDATES["shrunk_ridge"](data, data.all_folds)
            for data in (numbers(preds, y), numbers(preds[:, :, 2:], y[:, 2:]))
        ]
        distances.append([abs(blend.weights[:, -1] - best).sum() for blend in blends])  # type: ignore[attr-defined]
    together, alone = np.mean(distances, axis=0)
    assert together < 0.75 * alone


def test_a_target_without_labels_in_the_other_folds_gets_the_pooled_weights() -> None:
    preds, y, folds = columns_like("independent", 100)
    only_fold_0 = np.where(folds == 0, y, np.nan)
    data = numbers(np.stack([preds, preds], axis=2), np.column_stack([y, only_fold_0]), folds)
    for name in BLENDS:
        blend = CANDIDATES[name](data, frozenset({1, 2, 3, 4}))
        assert np.isfinite(blend.predict(data.preds)).all()
    pooled = CANDIDATES["convex"](data, frozenset({1, 2, 3, 4}))
    np.testing.assert_allclose(pooled.weights[:, 1], pooled.weights[:, 0], atol=1e-9)  # type: ignore[attr-defined]


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


@pytest.mark.parametrize("name", BLENDS)
@pytest.mark.parametrize("metric", ["rmse", "mae", "kendall"])
def test_rows_without_a_label_and_rows_of_fold_minus_one_are_ignored(name: str, metric: str) -> None:
    preds, y, folds = columns_like("independent", 100)
    ignored = np.arange(100) < 10
    unlabelled = np.arange(100) >= 85
    new_folds = np.where(ignored, -1, folds)
    new_preds = np.where(ignored[:, None], np.nan, preds)
    new_y = np.where(unlabelled, np.nan, np.where(ignored, 1e6, y))
    blend = fit(name, new_preds, new_y, new_folds, metric)
    rows = ~ignored & ~unlabelled
    expected = fit(name, preds[rows], y[rows], new_folds[rows], metric)
    np.testing.assert_allclose(predict(blend, preds), predict(expected, preds), rtol=1e-6)


@pytest.mark.parametrize("name", BLENDS)
def test_a_user_defined_metric_is_not_called_with_one_of_several_targets(name: str) -> None:
    def needs_all_targets(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        raise AssertionError("called with one target")

    preds, y, folds = columns_like("independent", 100)
    preds = np.repeat(preds[:, :, None], 2, axis=2)
    data = numbers(preds, np.column_stack([y, y]), folds, n_trials=12)

    def fit_on(metric: Metric) -> np.ndarray:
        return CANDIDATES[name](replace(data, metric=metric), data.all_folds).weights  # type: ignore[attr-defined]

    user_metric = Metric("my_metric.py:score", False, None, needs_all_targets)
    np.testing.assert_array_equal(fit_on(user_metric), fit_on(METRICS["mse"]))


def test_a_user_defined_metric_is_used_for_tuning_with_one_target() -> None:
    def score(y_true: np.ndarray, y_pred: np.ndarray) -> float:
        assert y_true.shape[1] == 1
        return float(np.mean(np.abs(y_true - y_pred) ** 0.5))

    preds, y, folds = columns_like("independent", 100)
    data = replace(numbers(preds, y, folds), metric=Metric("my_metric.py:score", False, None, score))
    settings = [
        CANDIDATES["shrunk_ridge"](each, data.all_folds).settings for each in (data, numbers(preds, y, folds))
    ]  # type: ignore[attr-defined]
    assert settings[0] != settings[1]


@pytest.mark.parametrize("name", BLENDS)
def test_without_a_labelled_row_every_blend_is_the_mean(name: str) -> None:
    preds, y, folds = columns_like("independent", 100, 4)
    data = numbers(preds, y * np.nan, folds)
    assert CANDIDATES[name](data, data.all_folds).weights.tolist() == [[0.25]] * 4  # type: ignore[attr-defined]


# Functions of the user's


def test_a_user_defined_candidate_only_gets_the_rows_it_is_fitted_on(tmp_path: Path) -> None:
    preds, y, folds = columns_like("independent", 60)
    data = numbers(preds, y, np.where(np.arange(60) < 5, -1, folds))
    (tmp_path / "mine.py").write_text(
        "def first(preds, y, folds):\n"
        "    assert preds.shape == (len(y), 3, 1) and set(folds) == {1, 2, 3, 4}, (preds.shape, folds)\n"
        "    preds[:] = 0\n"  # it gets a copy
        "    return [1, 0, 0]\n"
    )
    fitted = fit_candidate(data, f"{tmp_path}/mine.py:first", frozenset({1, 2, 3, 4}))
    np.testing.assert_array_equal(fitted.predict(data.preds)[:, 0], preds[:, 0])


def test_a_user_defined_candidate_must_predict_probabilities(tmp_path: Path) -> None:
    data = classes(*noisy_classes("multiclass", 60))
    (tmp_path / "mine.py").write_text("def negative(preds, y, folds):\n    return [1, 1, -0.5]\n")
    with pytest.raises(
        ConfigError, match=r"mine.py:negative must return weights \(3,\).*expected probabilities"
    ):
        fit_candidate(data, f"{tmp_path}/mine.py:negative", data.all_folds)


def code_blocks() -> list[str]:
    page = (PROJECT / "docs" / "ensembling.md").read_text()
    return [block.split("```")[0] for block in page.split("```python\n")[1:]]


def test_the_level_2_model_of_the_page_on_ensembling_is_a_candidate_that_can_be_restored(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine.py").write_text(code_blocks()[0])
    preds, y, folds = columns_like("trees")
    code_ref = f"{tmp_path}/mine.py:fit"
    data = numbers(np.stack([preds, preds + 3], axis=2), np.column_stack([y, 2 * y]), folds)
    fitted = fit_candidate(data, code_ref, data.all_folds)
    y_pred = fitted.predict(data.preds)
    ridge_pred = fit_candidate(data, "shrunk_ridge", data.all_folds).predict(data.preds)
    assert METRICS["rmse"](data.y, y_pred) < 0.8 * METRICS["rmse"](data.y, ridge_pred)
    restored = from_json(json.loads(json.dumps(to_json(fitted))), code_ref)
    np.testing.assert_array_equal(restored.predict(data.preds), y_pred)


def test_the_mean_of_ranks_of_the_page_on_ensembling_by_hand(tmp_path: Path) -> None:
    (tmp_path / "ranks.py").write_text(code_blocks()[1])
    y = np.arange(101.0)
    preds = np.column_stack([y**3, -5 + 0.1 * y])  # both in the right order, on different scales
    data = numbers(preds, y)
    ranks = fit_candidate(data, f"{tmp_path}/ranks.py:mean_of_ranks", data.all_folds)
    new = np.array([[20.0**3, -5 + 4.0], [-1e9, -1e9], [1e9, 1e9]])[:, :, None]  # ranks .2 and .4; outside
    np.testing.assert_allclose(ranks.predict(new)[:, 0], [0.3, 0, 1], atol=1e-9)
