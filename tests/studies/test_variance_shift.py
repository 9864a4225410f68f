"""Variance shift and the bias behind it: formula against simulation, and cases known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from studies.cylinder import variance_shift as shift

N_ROWS = 300_000


def test_without_a_mean_the_variance_grows_by_one_over_the_share_kept() -> None:
    assert shift.unit_ratio(0.5, np.array([0.0]), np.array([3.0])) == pytest.approx([2.0])
    assert shift.unit_ratio(0.2, np.array([0.0]), np.array([1.0])) == pytest.approx([1.25])


def test_a_mean_makes_the_shift_larger() -> None:
    # variance 1, mean 2, rate 0.5: (1 + 4) / 0.5 - 4 = 6
    assert shift.unit_ratio(0.5, np.array([2.0]), np.array([1.0])) == pytest.approx([6.0])


def test_the_mean_of_a_rectified_normal_is_the_known_one() -> None:
    assert shift.relu_mean(0.0, 4.0) == pytest.approx(2 / np.sqrt(2 * np.pi))
    assert shift.relu_mean(10.0, 1.0) == pytest.approx(10.0)


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
@pytest.mark.parametrize(("mean", "variance"), [(0.0, 1.0), (0.4, 0.34), (-2.0, 0.5)])
def test_formula_and_simulation_of_a_unit_agree_to_1_percent(rate: float, mean: float, variance: float) -> None:
    formula = shift.unit_ratio(rate, np.array(mean), np.array(variance))
    assert shift.simulated_unit_ratio(rate, mean, variance, N_ROWS, seed=0) == pytest.approx(formula, rel=0.01)


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
def test_formula_and_simulation_of_a_sum_and_of_its_relu_agree_to_1_percent(rate: float) -> None:
    random = np.random.default_rng(5)
    weights, mean, variance = random.normal(size=300), random.normal(size=300), random.uniform(0.2, 2, 300)
    mu, inference, training = shift.linear_moments(rate, weights, mean, variance)
    simulated = shift.simulate(rate, weights, mean, variance, N_ROWS // 3, seed=6)
    formula = (inference, training, shift.relu_mean(mu, inference), shift.relu_mean(mu, training))
    assert simulated[:2] == pytest.approx(formula[:2], rel=0.02)  # a variance of 100,000 draws is known to 0.5 %
    assert simulated[1] / simulated[0] == pytest.approx(training / inference, rel=0.01)
    assert simulated[2:] == pytest.approx(formula[2:], rel=0.01)


def test_inference_is_biased_downwards_where_a_relu_follows() -> None:
    table = shift.of_one_layer()
    assert (table.bias_formula < 0).all()
    assert np.allclose(table.bias_formula, table.bias_simulation, atol=1)
    assert np.allclose(table.sum_formula, table.sum_simulation, rtol=0.01)
