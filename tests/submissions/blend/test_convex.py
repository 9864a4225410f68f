"""Exact convex weights: by hand, by their optimality condition, and by brute force."""

import itertools

import numpy as np
import pytest

from submissions.blend import convex
from submissions.blend.convex import least_absolute_weights, least_squares_weights


def test_hand_computed_weights() -> None:
    assert least_absolute_weights(np.array([[1.0, -1], [1, -1], [2, 0]]))[0] == pytest.approx(0.5)


def test_squared_error_weights_satisfy_the_optimality_condition() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        errors = rng.normal(size=(rng.integers(3, 40), rng.integers(1, 9))) + rng.normal()
        gram = errors.T @ errors
        solution = least_squares_weights(gram)
        slope = gram @ solution
        assert slope.min() >= solution @ slope - 1e-8 * np.trace(gram)  # no model would reduce the error


def test_absolute_error_weights_equal_brute_force() -> None:
    percents = [(a, b) for a, b in itertools.product(range(101), repeat=2) if a + b <= 100]
    grid = [np.array([a, b, 100 - a - b]) / 100 for a, b in percents]
    for seed in range(3):
        errors = np.random.default_rng(seed).normal(size=(40, 3)) + [0.0, 0.3, -0.6]
        best = min(np.abs(errors @ point).sum() for point in grid)
        loss = np.abs(errors @ least_absolute_weights(errors)).sum()
        assert 0.98 * best <= loss <= best + 1e-9


@pytest.mark.parametrize("offset", [0.0, 2.0])
def test_absolute_error_weights_are_exact_if_the_program_starts_with_few_rows(
    offset: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = np.random.default_rng(0).standard_t(1.5, size=(3000, 5)) * [1, 1.2, 1.5, 2, 3]
    errors += [offset, 0, 0, 0, -offset]
    solutions = []
    for rows in (convex.MIN_PROGRAM_ROWS, 3000, 1):
        monkeypatch.setattr(convex, "MIN_PROGRAM_ROWS", rows)
        solutions.append(least_absolute_weights(errors))
    np.testing.assert_allclose(solutions[0], solutions[1], atol=1e-9)
    np.testing.assert_allclose(solutions[2], solutions[1], atol=1e-9)
