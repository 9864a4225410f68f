"""Exact Gaussian process regression with given kernel matrices.

The kernel K is a weighted mean of matrices, with the weights that have the largest marginal likelihood. The
labels are a mean, plus a function with covariance `variance * K`, plus noise with variance `variance * noise
/ weight` in each row. `noise` is chosen from a grid by the marginal likelihood; mean and variance have closed
forms. One decomposition of K serves all noise levels and all targets with labels in the same rows. Source:
Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapters 2, 5.4.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg, optimize, special

from core.types import Array

NOISES = np.logspace(-4, 2, 37)
"""Ratios of the variance of the noise to the variance of the function."""
WEIGHT_STEPS = 4
"""The weight of a kernel is a multiple of 1 / WEIGHT_STEPS."""
WEIGHT_ROWS = 1000
"""Maximum number of rows that choose the weights of the kernels."""
MAX_SLOPE = 100.0
"""Largest slope of a calibration. Scores are about 0 to 1, so it matters for separable classes only."""


@dataclass(frozen=True)
class Decomposition:
    """Eigenvalues and eigenvectors of a kernel matrix whose rows and columns are scaled by root weights.

    Attributes:
        values: (n,) eigenvalues.
        vectors: (n, n) eigenvectors, in columns.
        root_weights: (n,) square roots of the row weights.
    """

    values: Array
    vectors: Array
    root_weights: Array


@dataclass(frozen=True)
class TargetFit:
    """A fitted target.

    Attributes:
        log_likelihood: logarithm of the marginal likelihood, up to a constant.
        noise: variance of the noise relative to that of the function, for a row of weight 1.
        mean: constant mean of the labels.
        variance: variance of the function.
        coefficients: (n,) a prediction is `mean + kernel @ coefficients`.
        leave_one_out: (n,) prediction of each training row without its label.
    """

    log_likelihood: float
    noise: float
    mean: float
    variance: float
    coefficients: Array
    leave_one_out: Array


def fit_columns(
    kernels: list[Array], y: Array, row_weights: Array, progress: Callable[[int, int], None]
) -> dict[str, Array]:
    """Fit each label column; columns with equal row weights and kernel weights share a decomposition.

    Args:
        kernels: (n_rows, n_rows) each.
        y: (n_rows, n_columns).
        row_weights: (n_rows, n_columns), 0 for rows that are not used.

    Returns:
        Arrays with a column, or a number, for each label column. Coefficients and leave-one-out predictions
        are 0 for rows that are not used.
    """
    n_columns = y.shape[1]
    fitted: dict[str, Array] = {name: np.zeros(n_columns) for name in ("mean", "variance", "noise")}
    fitted |= {name: np.zeros(y.shape) for name in ("coefficients", "leave_one_out")}
    fitted["kernel_weights"] = np.zeros((len(kernels), n_columns))
    for columns in _equal_columns(row_weights):
        fitted["kernel_weights"][:, columns] = _choose_kernel_weights(kernels, y, row_weights, columns)
    groups = _equal_columns(np.vstack([row_weights, fitted["kernel_weights"]]))
    for done, columns in enumerate(groups):
        progress(done, len(groups))
        is_used = row_weights[:, columns[0]] > 0
        kernel = weighted_sum(kernels, fitted["kernel_weights"][:, columns[0]], is_used, is_used)
        decomposition = decompose(kernel, row_weights[is_used, columns[0]])
        for column in columns:
            target = fit_target(decomposition, y[is_used, column])
            fitted["mean"][column] = target.mean
            fitted["variance"][column] = target.variance
            fitted["noise"][column] = target.noise
            fitted["coefficients"][is_used, column] = target.coefficients
            fitted["leave_one_out"][is_used, column] = target.leave_one_out
    return fitted


def _choose_kernel_weights(kernels: list[Array], y: Array, row_weights: Array, columns: list[int]) -> Array:
    """Return the weights with the largest marginal likelihood, (n_kernels, n_chosen_columns).

    Args:
        columns: label columns with equal row weights.
    """
    weights = row_weights[:, columns[0]]
    rows = np.flatnonzero(weights)
    rows = rows[:: -(-len(rows) // WEIGHT_ROWS)]
    steps = itertools.product(range(WEIGHT_STEPS + 1), repeat=len(kernels))
    simplex = [np.array(step) / WEIGHT_STEPS for step in steps if sum(step) == WEIGHT_STEPS]
    if len(simplex) == 1:
        return np.ones((1, len(columns)))
    log_likelihoods = []
    for kernel_weights in simplex:
        decomposition = decompose(weighted_sum(kernels, kernel_weights, rows, rows), weights[rows])
        log_likelihoods.append(
            [fit_target(decomposition, y[rows, column]).log_likelihood for column in columns]
        )
    return np.array(simplex)[np.argmax(log_likelihoods, axis=0)].T


def _equal_columns(table: Array) -> list[list[int]]:
    """Return the indices of equal columns of a table, a list for each distinct one, the first column first."""
    groups: dict[bytes, list[int]] = {}
    for index, column in enumerate(table.T):
        groups.setdefault(column.tobytes(), []).append(index)
    return list(groups.values())


def weighted_sum(kernels: list[Array], weights: Array, rows: Any, columns: Any) -> Array:
    """Return the weighted sum of a part of each kernel."""
    used = [(kernel, weight) for kernel, weight in zip(kernels, weights, strict=True) if weight > 0]
    return np.sum([weight * kernel[np.ix_(rows, columns)] for kernel, weight in used], axis=0)


def decompose(kernel: Array, weights: Array) -> Decomposition:
    """Return the decomposition of a kernel matrix (n, n), which is overwritten.

    Args:
        weights: (n,) positive row weights.
    """
    root_weights = np.sqrt(weights)
    kernel *= root_weights[:, None] * root_weights
    values, vectors = linalg.eigh(kernel, overwrite_a=True, check_finite=False, driver="evd")
    return Decomposition(np.maximum(values, 0.0), vectors, root_weights)


def fit_target(decomposition: Decomposition, y: Array) -> TargetFit:
    """Fit labels (n,) and choose the noise.

    The mean is that of generalised least squares. Closed forms of the leave-one-out predictions, which
    estimate it again without the row: Dubrule, Cross validation of kriging in a unique neighborhood, 1983.
    """
    values, vectors, root_weights = decomposition.values, decomposition.vectors, decomposition.root_weights
    ones = vectors.T @ root_weights
    labels = vectors.T @ (root_weights * y)
    inverse = 1.0 / (values + NOISES[:, None])  # (n_noises, n)
    means = (inverse @ (ones * labels)) / (inverse @ ones**2)
    residuals = labels - means[:, None] * ones
    variances = (inverse * residuals**2).mean(axis=1)
    # A constant label has no variance, which would be a likelihood without a bound.
    variances = np.maximum(variances, np.finfo(np.float64).tiny)
    log_likelihoods = 0.5 * np.log(inverse).sum(axis=1) - 0.5 * len(y) * np.log(variances)
    best = int(log_likelihoods.argmax())
    coefficients = root_weights * (vectors @ (inverse[best] * residuals[best]))
    precision_of_mean = root_weights * (vectors @ (inverse[best] * ones))
    precisions = root_weights**2 * (vectors**2 @ inverse[best])
    precisions -= precision_of_mean**2 / precision_of_mean.sum()
    return TargetFit(
        log_likelihood=float(log_likelihoods[best]),
        noise=float(NOISES[best]),
        mean=float(means[best]),
        variance=float(variances[best]),
        coefficients=coefficients,
        leave_one_out=y - np.divide(coefficients, precisions, out=np.zeros_like(y), where=precisions > 0),
    )


def cholesky_factor(kernel: Array, noise: float, weights: Array) -> Array:
    """Return the lower Cholesky factor of the kernel of the training rows with noise, (n, n).

    Args:
        kernel: (n, n), which is overwritten.
        noise: variance of the noise relative to the prior variance, for a row of weight 1.
        weights: (n,) positive row weights.
    """
    kernel[np.diag_indices_from(kernel)] += noise / weights
    return linalg.cholesky(kernel, lower=True, overwrite_a=True, check_finite=False)


def latent_variance(lower: Array, cross: Array) -> Array:
    """Return the variance of the function at some rows, (n_rows,), relative to its prior variance.

    The kernel of a row with itself must be 1.

    Args:
        lower: result of `cholesky_factor`.
        cross: (n_rows, n) kernel between the rows and the training rows.
    """
    explained = linalg.solve_triangular(lower, cross.T, lower=True, check_finite=False)
    return np.maximum(1.0 - (explained**2).sum(axis=0), 0.0)


def calibrate(scores: Array, one_hot: Array, weights: Array) -> tuple[float, Array]:
    """Return the slope and the intercepts (n_classes,) of a calibration.

    They minimize the log loss of softmax(slope * scores + intercepts). The slope is not negative: if the
    features say nothing, the leave-one-out prediction of a row is lowered by its own label, and a negative
    slope would rank new rows the wrong way round. The intercept of a class without rows is -inf. Source:
    Platt, Probabilistic outputs for support vector machines, 1999.

    Args:
        scores: leave-one-out predictions (n_rows, n_classes).
        one_hot: labels (n_rows, n_classes), 0 or 1.
        weights: (n_rows,).
    """
    is_present = one_hot.any(axis=0)
    x, y = scores[:, is_present], one_hot[:, is_present]
    weights = weights / weights.sum()

    def log_loss(parameters: Array) -> tuple[float, Array]:
        log_probabilities = special.log_softmax(parameters[0] * x + parameters[1:], axis=1)
        gradient = weights[:, None] * (np.exp(log_probabilities) - y)
        loss = -(weights[:, None] * y * log_probabilities).sum()
        return loss, np.append((gradient * x).sum(), gradient.sum(axis=0))

    start = np.append(1.0, np.zeros(x.shape[1]))
    bounds = [(0.0, MAX_SLOPE), *[(-MAX_SLOPE, MAX_SLOPE)] * x.shape[1]]
    result = optimize.minimize(log_loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    intercepts = np.full(scores.shape[1], -np.inf)
    intercepts[is_present] = result.x[1:]
    return float(result.x[0]), intercepts
