"""Labels of another table in the units of the competition: by hand, with wrong labels among them."""

import numpy as np
import pytest

from competition.calibration import (
    can_calibrate,
    fit_calibration,
    rank_correlation,
    robust_std,
    shared_labels,
)

X = np.arange(20, dtype=float)
WRONG = [3, 12]
SOURCE = X.copy()
SOURCE[WRONG] += [40, -60]
"""Labels of a source, two of which are wrong."""


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, 3.0), (-20.0, 55.0)])
def test_a_line_is_found_though_some_labels_are_wrong(slope, intercept):
    calibration = fit_calibration("affine", SOURCE, intercept + slope * X)
    labels = np.array([-10.0, 0.0, 100.0, np.nan])
    np.testing.assert_allclose(calibration(labels), intercept + slope * labels, atol=1e-9)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_curve_is_found_in_either_direction_and_is_constant_beyond_its_ends(sign):
    curve = sign * np.sqrt(X)
    calibration = fit_calibration("isotonic", SOURCE, curve)
    right = np.setdiff1d(np.arange(20), WRONG)
    np.testing.assert_allclose(calibration(X[right]), curve[right], atol=0.5)
    np.testing.assert_allclose(calibration(np.array([-5.0, 50.0])), calibration(X[[0, -1]]))


@pytest.mark.parametrize("kind", ["affine", "isotonic"])
def test_noise_of_a_source_does_not_draw_its_labels_to_their_mean(kind):
    """With as much noise as signal, a line from the source to the competition would have half of the slope."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=2000)
    calibration = fit_calibration(kind, 10 * (y + rng.normal(size=2000)), y)
    assert calibration(np.array([-10.0, 10.0])) == pytest.approx([-1, 1], abs=0.2)


def test_no_map_is_fitted_to_few_or_mostly_constant_labels_and_a_wrong_error_is_not_counted():
    """One label that differs would decide the whole line."""
    x = np.append(np.full(12, -2.0), 5.0)
    assert not can_calibrate(x, np.arange(13.0)) and not can_calibrate(np.arange(13.0), x)
    assert not can_calibrate(np.arange(9.0), np.arange(9.0))
    assert can_calibrate(np.arange(10.0), np.arange(10.0))
    assert rank_correlation(np.ones(12), np.arange(12.0)) == 0
    assert robust_std(np.array([-1.0, 1.0, -1.0, 1.0, 1000.0])) == pytest.approx(1.4826)


def test_shared_labels_are_medians_of_the_inputs_of_both_tables():
    shared = shared_labels(list("aaabc"), [1, 9, 2, 5, np.nan], list("cbba"), [7, 4, 6, 3])
    assert shared.T.to_dict("list") == {"a": [2, 3], "b": [5, 5]}
