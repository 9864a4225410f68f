"""Exact convex weights: of at least 0, with sum 1, and the least squared or absolute error.

Since the weights sum to 1, the error of a blend is E w with E = y - columns, (n_rows, n_columns).
"""

from __future__ import annotations

import numpy as np

from competition.metrics import Array

ROWS_AT_FIRST = 1000
"""Rows with which the programme of the absolute errors begins, at least."""


def least_squares_weights(gram: Array) -> Array:
    """Weights w >= 0, sum 1, that minimise w' gram w: the exact convex blend where gram = E'E.

    Source: Wolfe, "Finding the nearest point in a polytope", Mathematical Programming 1976: an active-set method
    that ends after finitely many steps. A billionth of the mean of the diagonal is added to it, which makes the
    solution unique: equal columns share their weight.
    """
    n_columns = len(gram)
    scale = np.trace(gram) / n_columns
    if not scale > 0:
        return np.full(n_columns, 1.0 / n_columns)
    gram = gram / scale + 1e-9 * np.eye(n_columns)
    corral = [int(np.argmin(np.diag(gram)))]
    weights = np.eye(n_columns)[corral[0]]
    for _ in range(100 * n_columns):
        slope = gram @ weights
        entering = int(np.argmin(slope))
        if entering in corral or slope[entering] >= weights @ slope * (1 - 1e-12):
            break
        corral.append(entering)
        while True:
            free = np.linalg.solve(gram[np.ix_(corral, corral)], np.ones(len(corral)))
            free /= free.sum()  # least w' gram w on the plane through the corral
            now, falling = weights[corral], free <= 0
            if falling.any():
                step = (now[falling] / (now[falling] - free[falling])).min()
                free = (1 - step) * now + step * free
                free[falling & (free <= 1e-15)] = 0
                if (free > 0).all():  # rounding hid the one that reached 0
                    free[int(np.argmin(np.where(falling, free, np.inf)))] = 0
            weights = np.zeros(n_columns)
            weights[corral] = free
            corral = [j for j in corral if weights[j] > 0]
            if not falling.any():
                break
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
    solution = linprog(
        np.append(np.zeros(n_rows), -1.0),
        A_ub=np.hstack([-errors.T, np.ones((n_columns, 1))]),
        b_ub=slope,
        bounds=[(-1, 1)] * n_rows + [(None, None)],
        method="highs",
    )
    if solution.status != 0:
        raise RuntimeError(f"the linear programme of the convex blend was not solved: {solution.message}")
    weights = np.maximum(-solution.ineqlin.marginals, 0)
    return weights / weights.sum()
