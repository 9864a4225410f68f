"""Exact convex weights: of at least 0, with sum 1, and the least squared or absolute error.

Since the weights sum to 1, the error of a blend is E w with E = y - columns, (n_rows, n_columns).
"""

import numpy as np

from competition.types import Array

ROWS_AT_FIRST = 1000
"""Rows with which the programme of the absolute errors begins, at least."""


def least_squares_weights(gram: Array) -> Array:
    """Weights w >= 0, sum 1, that minimise w' gram w: the exact convex blend where gram = E'E.

    With gram = R'R, the v >= 0 that minimises |R v|^2 + (1 - sum v)^2 is the wanted w times a number: along w the least
    value is q / (1 + q) with q = w' gram w. A billionth of the mean of the diagonal is added to it, which makes the
    solution unique: equal columns share their weight.
    Source: Lawson and Hanson, "Solving Least Squares Problems", 1974, whose method ends after finitely many steps.
    """
    from scipy.optimize import nnls

    n_columns = len(gram)
    scale = np.trace(gram) / n_columns
    if not scale > 0:
        return np.full(n_columns, 1.0 / n_columns)
    root = np.linalg.cholesky(gram / scale + 1e-9 * np.eye(n_columns)).T
    weights, _ = nnls(np.vstack([root, np.ones(n_columns)]), np.append(np.zeros(n_columns), 1.0))
    return weights / weights.sum()


def least_absolute_weights(errors: Array) -> Array:
    """Weights w >= 0, sum 1, that minimise sum |E w|: the exact convex blend for the MAE.

    A row whose error keeps its sign adds a linear term, so the linear programme has only the rows whose error is near
    0 in the least squares blend; rows whose sign its solution turns join them, until there are none. The result is
    exact, since the linear terms are a lower bound of the absolute errors, which it reaches.

    Args:
        errors: E, (n_rows, n_columns).
    """
    n_rows, n_columns = errors.shape
    scale = np.abs(errors).mean()
    if not scale > 0:
        return np.full(n_columns, 1.0 / n_columns)
    errors = errors / scale
    first = errors @ least_squares_weights(errors.T @ errors)
    signs = np.where(first < 0, -1.0, 1.0)
    near = np.zeros(n_rows, dtype=bool)
    near[np.argsort(np.abs(first), kind="stable")[: max(n_rows // 20, ROWS_AT_FIRST)]] = True
    while True:
        weights = _programme(errors[near], signs[~near] @ errors[~near])
        turned = ~near & (signs * (errors @ weights) < 0)
        if not turned.any():
            return weights
        near |= turned


def _programme(errors: Array, slope: Array) -> Array:
    """Weights w >= 0, sum 1, that minimise sum |E w| + slope'w.

    Solved as its dual, which has n_columns rows and so is ten times faster than the textbook form:
    max over |d| <= 1 of min_j (E'd + slope)_j; the weights are the multipliers of the minimum.
    """
    from scipy.optimize import linprog

    n_rows, n_columns = errors.shape
    objective, bounds = np.append(np.zeros(n_rows), -1.0), [(-1, 1)] * n_rows + [(None, None)]
    limits = np.hstack([-errors.T, np.ones((n_columns, 1))])
    solution = linprog(objective, A_ub=limits, b_ub=slope, bounds=bounds, method="highs")
    if solution.status != 0:
        raise RuntimeError(f"the linear programme of the convex blend was not solved: {solution.message}")
    weights = np.maximum(-solution.ineqlin.marginals, 0)
    return weights / weights.sum()
