"""The candidates: hand-computed cases, invariances, and rows and labels that must not be used."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from competition.metrics import METRICS, Metric
from core.errors import ConfigError
from core.files import PROJECT
from submissions.blend.candidates import CANDIDATES, fit_candidate
from submissions.blend.data import convex_weights
from tests.submissions.blend.data import classes, fit, noisy_classes, noisy_numbers, numbers

BLENDS = [name for name in CANDIDATES if name != "shrunk_logits"]
each_blend = pytest.mark.parametrize("name", BLENDS)
WITHOUT_FOLD_0 = frozenset({1, 2, 3, 4})
Y = np.tile([0.0, 3.0, 1.0, -2.0], 5)
ORTHOGONAL = Y[:, None] + np.tile([[1.0, 2.0], [-1.0, 2.0], [1.0, -2.0], [-1.0, -2.0]], (5, 1))
"""Columns with mean squared errors 1 and 4 and mean product of errors 0."""


def weights(name, data):
    return fit(name, data).weights[:, 0].tolist()


def predicted(name, data, preds):
    return fit(name, data).predict(preds[:, :, None])[:, 0]


def test_hand_computed_weights():
    data = numbers(ORTHOGONAL, Y)
    assert weights("convex", data) == pytest.approx([0.8, 0.2], abs=1e-7)
    assert weights("mean", data) == [0.5, 0.5]
    one_fold = [fit(name, data, frozenset({1})).weights.tolist() for name in ("shrunk_ridge", "convex")]
    assert one_fold[0] == one_fold[1]  # nothing can be tuned
    y = np.arange(50.0)
    preds = np.column_stack([100 * y - 2000, y + np.tile([5.0, -5.0], 25)])  # perfect ranks; small errors
    assert weights("best_single", numbers(preds, y, metric="spearman")) == [1, 0]
    assert weights("best_single", numbers(preds, y)) == [0, 1]


def test_pooled_weights_count_targets_alike_in_any_unit_and_are_those_of_a_target_without_labels():
    """The columns of the second target are swapped, and the third one has labels in fold 0 only."""
    preds = np.stack([ORTHOGONAL, 100 * ORTHOGONAL[:, ::-1], ORTHOGONAL], axis=2)
    y = np.column_stack([Y, 100 * Y, np.where(np.arange(20) % 5 == 0, Y, np.nan)])
    data = numbers(preds, y)
    expected = [[0.8, 0.2, 0.5], [0.2, 0.8, 0.5]]
    np.testing.assert_allclose(fit("convex", data, WITHOUT_FOLD_0).weights, expected, atol=1e-6)
    for name in BLENDS:
        assert np.isfinite(fit(name, data, WITHOUT_FOLD_0).predict(preds)).all()


@each_blend
def test_without_a_labelled_row_every_blend_is_the_mean(name):
    preds, y = noisy_numbers(n_models=4)
    assert weights(name, numbers(preds, y * np.nan)) == [0.25] * 4


def test_convex_weights_are_optimal_also_beside_an_absurd_column():
    for seed in range(50):
        rng = np.random.default_rng(seed)
        errors = rng.normal(size=(rng.integers(3, 40), rng.integers(1, 9))) + rng.normal()
        solution = convex_weights(errors)
        slope = errors.T @ (errors @ solution)  # no column would reduce the error
        assert slope.min() >= solution @ slope - 1e-6 * np.square(errors).sum()
        with_absurd = np.column_stack([errors, 1e12 * rng.normal(size=len(errors))])
        loss = np.linalg.norm(with_absurd @ convex_weights(with_absurd))
        assert loss <= np.linalg.norm(errors @ solution) * (1 + 1e-6)


@each_blend
@pytest.mark.parametrize("metric", ["rmse", "mae", "spearman"])
def test_the_order_of_rows_and_the_unit_do_not_change_predictions(name, metric):
    preds, y = noisy_numbers(120, 4)
    data = numbers(preds, y, metric=metric)
    before = predicted(name, data, preds)
    if name != "shrunk_ridge":
        assert sum(weights(name, data)) == pytest.approx(1, abs=1e-12)
    rows = np.random.default_rng(0).permutation(120)
    after = predicted(name, numbers(preds[rows], y[rows], rows % 5, metric), preds)
    np.testing.assert_allclose(after, before, atol=1e-7)
    for scale, shift in ((30, 0), (1, 273)):
        moved = scale * preds + shift
        after = predicted(name, numbers(moved, scale * y + shift, metric=metric), moved)
        np.testing.assert_allclose(after, scale * before + shift, atol=1e-5)


@pytest.mark.parametrize("metric", ["rmse", "mae"])
@each_blend
def test_equal_columns_and_constant_labels_give_finite_predictions(name, metric):
    preds, y = noisy_numbers()
    equal, perfect = preds[:, [0, 0, 1]], np.column_stack([y, y])
    for columns in (equal, preds[:, [0, 0]], perfect, np.ones((100, 2))):
        assert np.isfinite(predicted(name, numbers(columns, y, metric=metric), columns)).all()
    rare = np.where(np.arange(100) == 7, 1.0, 0.0)  # the labels of all folds but one are constant
    assert np.abs(predicted(name, numbers(equal, rare, metric=metric), equal)).max() < 10


def test_the_shrunk_ridge_is_the_formula_of_its_docstring_with_settings_that_are_good_across_folds():
    preds, y = (each + 3 for each in noisy_numbers(200, 4))
    data = numbers(preds, y, n_trials=40)
    folds = data.folds

    def formula(rows, share, penalty):
        mean, std = y[rows].mean(), y[rows].std()
        x, labels = (preds[rows] - mean) / std, (y[rows] - mean) / std
        convex = fit("convex", data, frozenset(folds[rows].tolist())).weights[:, 0]
        start = share / 4 + (1 - share) * convex
        identity = penalty * len(labels) * np.eye(4)
        w = start + np.linalg.solve(x.T @ x + identity, x.T @ (labels - x @ start))
        return w, mean * (1 - w.sum())

    def cross_fitted_error(share, penalty):
        squares = 0.0
        for fold in range(5):
            in_fold = folds == fold
            w, intercept = formula(~in_fold, share, penalty)
            squares += ((y[in_fold] - preds[in_fold] @ w - intercept) ** 2).sum()
        return squares

    blend = fit("shrunk_ridge", data)
    share, penalty = blend.settings[0]["towards_pooled"], blend.settings[0]["penalty"]
    expected, intercept = formula(folds >= 0, share, penalty)
    np.testing.assert_allclose(blend.weights[:, 0], expected, atol=1e-9)
    assert blend.intercept[0] == pytest.approx(intercept, abs=1e-9)
    error = cross_fitted_error(share, penalty)
    grid = itertools.product((0, 0.5, 1), (1e-4, 1e-3, 1e-2, 0.1, 1))
    assert error <= min(cross_fitted_error(corner, 10.0) for corner in (0.0, 1.0)) * (1 + 1e-9)
    assert error <= 1.01 * min(cross_fitted_error(t, a) for t, a in grid)


@each_blend
@pytest.mark.parametrize("metric", ["rmse", "mae", "kendall"])
def test_rows_without_a_label_and_rows_of_fold_minus_one_are_ignored(name, metric):
    preds, y = noisy_numbers()
    no_fold, unlabelled = np.arange(100) < 10, np.arange(100) >= 85
    new_folds = np.where(no_fold, -1, np.arange(100) % 5)
    new_preds = np.where(no_fold[:, None], np.nan, preds)
    new_y = np.where(unlabelled, np.nan, np.where(no_fold, 1e6, y))
    after = predicted(name, numbers(new_preds, new_y, new_folds, metric), preds)
    expected = predicted(name, numbers(preds[10:85], y[10:85], metric=metric), preds)
    np.testing.assert_allclose(after, expected, rtol=1e-6)


@each_blend
def test_a_user_defined_metric_tunes_a_single_target_and_is_never_called_with_one_of_several(
    name,
):
    def score(y_true, y_pred):
        assert y_true.shape == (100, 1)  # the rows of the single target
        return float(np.mean(np.abs(y_true - y_pred) ** 0.5))

    preds, y = noisy_numbers()
    users = Metric("my_metric.py:score", False, None, score)
    if name == "shrunk_ridge":
        one = numbers(preds, y)
        assert fit(name, replace(one, metric=users)).settings != fit(name, one).settings
    two = numbers(np.repeat(preds[1:, :, None], 2, axis=2), np.column_stack([y, y])[1:], metric="mse")
    np.testing.assert_array_equal(fit(name, replace(two, metric=users)).weights, fit(name, two).weights)


# Functions of the user's


def test_a_user_defined_candidate_only_gets_the_rows_it_is_fitted_on(tmp_path):
    preds, y = noisy_numbers(60)
    data = numbers(preds, y, np.r_[[-1] * 5, np.arange(5, 60) % 5])
    (tmp_path / "mine.py").write_text(
        "def first(preds, y, folds):\n"
        "    assert preds.shape == (len(y), 3, 1) and set(folds) == {1, 2, 3, 4}, (preds.shape, folds)\n"
        "    preds[:] = 0\n"  # it gets a copy
        "    return [1, 0, 0]\n"
    )
    fitted = fit_candidate(data, f"{tmp_path}/mine.py:first", WITHOUT_FOLD_0)
    np.testing.assert_array_equal(fitted.predict(data.preds)[:, 0], preds[:, 0])


def test_a_user_defined_candidate_must_predict_probabilities(tmp_path):
    data = classes(*noisy_classes("multiclass", 60))
    (tmp_path / "mine.py").write_text("def negative(preds, y, folds):\n    return [1, 1, -0.5]\n")
    words = r"mine.py:negative must return weights \(3,\).*expected probabilities"
    with pytest.raises(ConfigError, match=words):
        fit_candidate(data, f"{tmp_path}/mine.py:negative", data.all_folds)


def page_function(folder, number, name):
    """Write a code block of the page on ensembling into `mine.py`; return the reference to a function in it."""
    blocks = (PROJECT / "docs" / "ensembling.md").read_text().split("```python\n")
    (folder / "mine.py").write_text(blocks[number].split("```")[0])
    return f"{folder}/mine.py:{name}"


def test_the_level_2_model_of_the_page_on_ensembling_finds_what_is_nonlinear(tmp_path):
    code_ref = page_function(tmp_path, 1, "fit")
    preds, y = noisy_numbers(600)
    data = numbers(preds, y + 2 * np.abs(y))
    y_pred = fit_candidate(data, code_ref, data.all_folds).predict(data.preds)
    of_default = fit("shrunk_ridge", data).predict(data.preds)
    assert METRICS["rmse"](data.y, y_pred) < 0.8 * METRICS["rmse"](data.y, of_default)


def test_the_mean_of_ranks_of_the_page_on_ensembling_by_hand(tmp_path):
    code_ref = page_function(tmp_path, 2, "mean_of_ranks")
    y = np.arange(101.0)
    data = numbers(np.column_stack([y**3, -5 + 0.1 * y]), y)  # both in the right order, on different scales
    ranks = fit_candidate(data, code_ref, data.all_folds)
    new = np.array([[20.0**3, -5 + 4.0], [-1e9, -1e9], [1e9, 1e9]])[:, :, None]  # ranks .2 and .4; outside
    np.testing.assert_allclose(ranks.predict(new)[:, 0], [0.3, 0, 1], atol=1e-9)
