"""Exact convex weights: at least 0, sum 1, and the least squared or absolute error.

Since the weights sum to 1, the error of a blend is E w with the errors E = y - base predictions,
(n_rows, n_models).
"""

import numpy as np

from competition.types import Array

MIN_PROGRAM_ROWS = 1000
"""Smallest number of rows that the linear program of the absolute errors starts with."""
RIDGE = 1e-9
"""Share of the mean diagonal that is added to the Gram matrix; it makes the solution unique, so that
duplicate models share their weight."""


def least_squares_weights(gram: Array) -> Array:
    """Return the weights w >= 0 with sum 1 that minimize w' gram w.

    With gram = E'E it is the exact convex blend for the squared error.

    With gram = R'R, the v >= 0 that minimizes |R v|^2 + (1 - sum v)^2 is a multiple of the solution:
    along a fixed direction w the smallest value is q / (1 + q) with q = w' gram w. Source: Lawson and
    Hanson, "Solving Least Squares Problems", 1974; their method ends after finitely many steps.

    Args:
        gram: (n_models, n_models).
    """
    from scipy.optimize import nnls

    n_models = len(gram)
    scale = np.trace(gram) / n_models
    if not scale > 0:
        return np.full(n_models, 1.0 / n_models)
    root = np.linalg.cholesky(gram / scale + RIDGE * np.eye(n_models)).T
    weights, _ = nnls(np.vstack([root, np.ones(n_models)]), np.append(np.zeros(n_models), 1.0))
    return weights / weights.sum()


def least_absolute_weights(errors: Array) -> Array:
    """Return the weights w >= 0 with sum 1 that minimize sum |E w|: the exact convex blend for the MAE.

    If the error of a row keeps its sign, the row adds a linear term. The linear program therefore only
    needs the rows with an error near 0 in the least squares blend. Rows with another sign in the
    solution are added, until there are none. The result is exact, since the linear terms are a lower
    bound of the absolute errors and equal to them at the solution.

    Args:
        errors: E, (n_rows, n_models).
    """
    n_rows, n_models = errors.shape
    scale = np.abs(errors).mean()
    if not scale > 0:
        return np.full(n_models, 1.0 / n_models)
    errors = errors / scale
    blend_errors = errors @ least_squares_weights(errors.T @ errors)
    signs = np.where(blend_errors < 0, -1.0, 1.0)
    in_program = np.zeros(n_rows, dtype=bool)
    n_first = max(n_rows // 20, MIN_PROGRAM_ROWS)
    in_program[np.argsort(np.abs(blend_errors), kind="stable")[:n_first]] = True
    while True:
        weights = _solve_linear_program(errors[in_program], signs[~in_program] @ errors[~in_program])
        sign_changed = ~in_program & (signs * (errors @ weights) < 0)
        if not sign_changed.any():
            return weights
        in_program |= sign_changed


def _solve_linear_program(errors: Array, slope: Array) -> Array:
    """Return the weights w >= 0 with sum 1 that minimize sum |E w| + slope'w.

    The dual is solved, since it has only n_models rows and is ten times faster than the textbook form:
    max over |d| <= 1 of min_j (E'd + slope)_j. The weights are the multipliers of the minimum.
    """
    from scipy.optimize import linprog

    n_rows, n_models = errors.shape
    solution = linprog(
        np.append(np.zeros(n_rows), -1.0),
        A_ub=np.hstack([-errors.T, np.ones((n_models, 1))]),
        b_ub=slope,
        bounds=[(-1, 1)] * n_rows + [(None, None)],
        method="highs",
    )
    if solution.status != 0:
        raise RuntimeError(f"The linear program of the convex blend was not solved: {solution.message}")
    weights = np.maximum(-solution.ineqlin.marginals, 0)
    return weights / weights.sum()
