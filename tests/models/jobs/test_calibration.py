"""Labels of another table in the units of the competition: by hand, with wrong labels among them."""

import numpy as np
import pytest

from models.jobs.calibration import can_calibrate, fit_calibration, rank_correlation, robust_std
from models.jobs.extra_labels import automatic_weight, wrong_labels

X = np.arange(20, dtype=float)
WRONG = [3, 12]


SOURCE = X.copy()
SOURCE[WRONG] += [40, -60]
"""Labels of a source, two of which are wrong."""


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, 3.0), (-20.0, 55.0)])
def test_a_line_is_found_though_some_labels_are_wrong(slope: float, intercept: float) -> None:
    y = intercept + slope * X
    calibration = fit_calibration("affine", SOURCE, y)
    labels = np.array([-10.0, 0.0, 100.0, np.nan])
    np.testing.assert_allclose(calibration(labels), intercept + slope * labels, atol=1e-9)
    assert calibration.std == pytest.approx(0, abs=1e-9)
    assert calibration.error_before == pytest.approx(np.median(np.abs(y - SOURCE)))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_curve_is_found_in_either_direction_and_is_constant_beyond_its_ends(sign: int) -> None:
    curve = sign * np.sqrt(X)
    calibration = fit_calibration("isotonic", SOURCE, curve)
    right = np.setdiff1d(np.arange(20), WRONG)
    np.testing.assert_allclose(calibration(X[right]), curve[right], atol=0.5)
    np.testing.assert_allclose(calibration(np.array([-5.0, 50.0])), calibration(X[[0, -1]]))


def test_labels_without_a_calibration_stay_and_tell_how_far_off_they_are() -> None:
    calibration = fit_calibration("none", X, X + np.tile([-1.0, 1.0], 10))
    assert calibration(X) is X
    assert calibration.std == pytest.approx(1.4826)
    assert (calibration.error_before, calibration.error_after) == (1.0, 1.0)


def test_constant_labels_have_no_rank_correlation() -> None:
    assert rank_correlation(np.ones(12), np.arange(12.0)) == 0


@pytest.mark.parametrize("kind", ["affine", "isotonic"])
def test_no_map_is_fitted_to_few_or_mostly_constant_labels(kind: str) -> None:
    """One label that differs would decide the whole line."""
    x = np.append(np.full(12, -2.0), 5.0)
    assert not can_calibrate(kind, x, np.arange(13.0))
    assert not can_calibrate(kind, np.arange(13.0), x)
    assert not can_calibrate(kind, np.arange(9.0), np.arange(9.0))
    assert can_calibrate(kind, np.arange(10.0), np.arange(10.0))
    assert can_calibrate("none", x, x)


def test_labels_that_differ_by_rounding_only_are_not_wrong() -> None:
    calibration = fit_calibration("none", X, X)
    y, label_of_main, y_pred = X * (1 + 1e-15), X, np.zeros(len(X))
    assert calibration.std == 0
    assert not wrong_labels(y, label_of_main, y_pred, calibration, 3.0).any()


def test_a_robust_standard_deviation_ignores_missing_and_a_few_wrong_errors() -> None:
    assert robust_std(np.array([-1.0, 1.0, -1.0, 1.0, 1000.0, np.nan])) == pytest.approx(1.4826)
    assert np.isnan(robust_std(np.array([np.nan])))


@pytest.mark.parametrize(
    ("fold_error", "source_std", "weight"),
    [
        (1.0, 1.0, 0.5),
        (2.0, 1.0, 0.8),
        (1.0, 0.0, 1.0),
        (0.1, 10.0, 0.05),
        (0.0, 0.0, 1.0),
        (np.nan, 1.0, 1.0),
    ],
)
def test_a_weight_is_the_error_without_the_noise_of_the_source_over_that_with_it(
    fold_error: float, source_std: float, weight: float
) -> None:
    assert automatic_weight(fold_error, source_std) == pytest.approx(weight)


def test_a_label_is_judged_by_the_training_label_of_its_input_or_else_by_the_model() -> None:
    calibration = fit_calibration("none", X, X + np.tile([-0.1, 0.1], 10))  # standard deviation .148
    y = np.array([0.0, 0.0, 0.0, 0.0, 0.0, np.nan])
    label_of_main = np.array([0.4, 0.5, np.nan, np.nan, np.nan, np.nan])
    y_pred = np.array([9.0, 0.0, 1.0, -1.0, 5.0, 0.0])  # standard deviation of the last three: 1.48
    is_wrong = wrong_labels(y, label_of_main, y_pred, calibration, 3.0)
    assert is_wrong.tolist() == [False, True, False, False, True, False]
    without = wrong_labels(y, label_of_main, y_pred, None, 3.0)
    assert without.tolist() == [True, False, False, False, True, False]


@pytest.mark.parametrize("kind", ["affine", "isotonic"])
def test_noise_of_a_source_does_not_draw_its_labels_to_their_mean(kind: str) -> None:
    """With as much noise as signal, a line from the source to the competition would have half of the slope."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=2000)
    calibration = fit_calibration(kind, 10 * (y + rng.normal(size=2000)), y)
    labels = calibration(np.array([-10.0, 10.0]))
    assert labels == pytest.approx([-1, 1], abs=0.2)
