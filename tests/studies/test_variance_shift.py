"""Variance shift and the bias behind it: formula against simulation, and cases known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from studies.cylinder import variance_shift as shift

N_ROWS = 100_000


def test_the_ratio_of_a_unit_by_hand() -> None:
    assert shift.unit_ratio(0.5, np.array([0.0]), np.array([3.0])) == pytest.approx([2.0])
    assert shift.unit_ratio(0.2, np.array([0.0]), np.array([1.0])) == pytest.approx([1.25])
    # variance 1, mean 2, rate 0.5: (1 + 4) / 0.5 - 4 = 6
    assert shift.unit_ratio(0.5, np.array([2.0]), np.array([1.0])) == pytest.approx([6.0])


def test_the_mean_of_a_rectified_normal_is_the_known_one() -> None:
    assert shift.relu_mean(0.0, 4.0) == pytest.approx(2 / np.sqrt(2 * np.pi))
    assert shift.relu_mean(10.0, 1.0) == pytest.approx(10.0)


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
def test_formula_and_simulation_of_a_sum_and_of_its_relu_agree(rate: float) -> None:
    random = np.random.default_rng(5)
    n_units = 100
    weights, mean, variance = random.normal(size=n_units), random.normal(size=n_units), random.uniform(0.2, 2, n_units)
    x = mean + np.sqrt(variance) * random.standard_normal((N_ROWS, n_units))
    dropped = x * (random.random(x.shape) >= rate) / (1 - rate)
    inference, training = x @ weights, dropped @ weights
    mu, *variances = shift.linear_moments(rate, weights, mean, variance)
    assert [inference.var(), training.var()] == pytest.approx(variances, rel=0.02)  # known to 0.5 %
    assert training.var() / inference.var() == pytest.approx(variances[1] / variances[0], rel=0.015)
    means = [np.maximum(sums, 0).mean() for sums in (inference, training)]
    assert means == pytest.approx([shift.relu_mean(mu, of_mode) for of_mode in variances], rel=0.01)
    assert means[0] < means[1]  # inference is biased downwards where a ReLU follows
