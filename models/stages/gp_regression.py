"""Exact Gaussian process regression with given kernel matrices.

The kernel K is a weighted mean of matrices. The labels are a mean, plus a function with covariance `variance
* K`, plus noise with variance `variance * noise / weight` in each row. The weights and the noise maximize the
marginal likelihood by its gradient; mean and variance have closed forms. Source: Rasmussen and Williams,
Gaussian Processes for Machine Learning, 2006, chapters 2, 5.4.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import linalg, optimize, special

from core.types import Array, Integers

NOISES = 1e-4, 1e2
"""Smallest and largest ratio of the variance of the noise to the variance of the function."""
FIRST_NOISE = 0.1
NOISE_FACTOR = 10.0
"""Maximum factor between the noise of all rows and the noise of the rows that choose the weights."""
LOGITS = -8.0, 8.0
"""Range of the logits of the weights of the kernels."""
WEIGHT_ROWS = 500
"""Maximum number of rows that choose the weights of the kernels."""
WEIGHT_STEPS = 25
"""Maximum number of steps of the optimizer that chooses them."""
ROUNDING = 1e-13
"""Rounding noise of equal labels, as a share of them."""
JITTER = 1e-10
"""Added to the diagonal of a kernel, so that equal rows with a large weight have a Cholesky factor."""
MAX_SLOPE = 100.0
"""Largest slope of a calibration. Scores are about 0 to 1, so it matters for separable classes only."""


@dataclass(frozen=True)
class TargetFit:
    """A fitted target, for a given kernel and noise.

    Attributes:
        log_likelihood: logarithm of the marginal likelihood, up to a constant.
        mean: constant mean of the labels.
        variance: variance of the function.
        coefficients: (n,) a prediction is `mean + kernel @ coefficients`.
    """

    log_likelihood: float
    mean: float
    variance: float
    coefficients: Array


def fit_columns(
    kernels: list[Array],
    y: Array,
    row_weights: Array,
    progress: Callable[[int, int], None],
    groups: Integers | None = None,
) -> dict[str, Array]:
    """Fit each label column.

    Args:
        kernels: (n_rows, n_rows) each.
        y: (n_rows, n_columns).
        row_weights: (n_rows, n_columns), 0 for rows that are not used.
        groups: (n_rows,) of the leave-one-group-out predictions, which take a half of the time; None for none.

    Returns:
        Arrays with a column, or a number, for each label column. Coefficients and leave-one-group-out predictions
        are 0 for rows that are not used.
    """
    n_columns = y.shape[1]
    fitted: dict[str, Array] = {name: np.zeros(n_columns) for name in ("mean", "variance", "noise")}
    fitted |= {name: np.zeros(y.shape) for name in ("coefficients", "left_out")}
    fitted["kernel_weights"] = np.zeros((len(kernels), n_columns))
    for column in range(n_columns):
        progress(column, n_columns)
        rows = np.flatnonzero(row_weights[:, column])
        weights = row_weights[rows, column]
        labels = y[rows, column]
        # Rows of classes in their order, so that a rare one is among them.
        are_classes = np.isin(labels, (0, 1)).all()
        order = np.argsort(-labels if are_classes else np.arange(len(rows)), kind="stable")
        some = np.sort(order[:: -(-len(rows) // WEIGHT_ROWS)])
        parts = [kernel[np.ix_(rows[some], rows[some])] for kernel in kernels]
        kernel_weights, noise = choose_kernel_weights(parts, labels[some], weights[some])
        kernel = weighted_sum(kernels, kernel_weights, rows, rows)
        noise = _choose_noise(kernel, labels, weights, noise)
        lower = cholesky_factor(kernel, noise, weights)
        target = fit_target(lower, labels)
        fitted["kernel_weights"][:, column] = kernel_weights
        fitted["noise"][column] = noise
        fitted["mean"][column] = target.mean
        fitted["variance"][column] = target.variance
        fitted["coefficients"][rows, column] = target.coefficients
        if groups is not None:
            fitted["left_out"][rows, column] = leave_one_group_out(target, lower, labels, groups[rows])
    return fitted


def choose_kernel_weights(kernels: Sequence[Array], y: Array, weights: Array) -> tuple[Array, float]:
    """Return the weights of the kernels, (n_kernels,), and the noise with the largest marginal likelihood.

    Args:
        kernels: (n, n) each.
        y: (n,) labels.
        weights: (n,) positive row weights.
    """
    start = np.append(np.zeros(len(kernels)), np.log(FIRST_NOISE))
    result = optimize.minimize(
        minus_log_likelihood,
        start,
        args=(kernels, y, weights),
        jac=True,
        method="L-BFGS-B",
        bounds=[LOGITS] * len(kernels) + [tuple(np.log(NOISES))],
        options={"maxiter": WEIGHT_STEPS},
    )
    return special.softmax(result.x[:-1]), float(np.exp(result.x[-1]))


def minus_log_likelihood(
    parameters: Array, kernels: Sequence[Array], y: Array, weights: Array
) -> tuple[float, Array]:
    """Return minus the logarithm of the marginal likelihood, and its gradient (n_kernels + 1,).

    Mean and variance maximize the likelihood, so their change has no part in the gradient.

    Args:
        parameters: (n_kernels + 1,) logits, and the logarithm of the noise. The softmax of the logits are
            the weights of the kernels.
        kernels: (n, n) each.
        y: (n,) labels.
        weights: (n,) positive row weights.
    """
    shares = special.softmax(parameters[:-1])
    noise = np.exp(parameters[-1])
    kernel = np.sum([share * kernel for share, kernel in zip(shares, kernels, strict=True)], axis=0)
    lower = cholesky_factor(kernel, noise, weights)
    target = fit_target(lower, y)
    outer = np.outer(target.coefficients, target.coefficients)
    by_kernel = 0.5 * (_inverse(lower) - outer / target.variance)
    by_share = np.array([np.vdot(by_kernel, kernel) for kernel in kernels])
    by_logit = shares * (by_share - shares @ by_share)
    by_log_noise = noise * (np.diag(by_kernel) / weights).sum()
    return -target.log_likelihood, np.append(by_logit, by_log_noise)


def _choose_noise(kernel: Array, y: Array, weights: Array, near: float) -> float:
    """Return the noise with the largest marginal likelihood of all rows.

    It is within a factor of NOISE_FACTOR of `near`, the noise of some rows.
    """

    def loss(log_noise: float) -> float:
        lower = cholesky_factor(kernel.copy(), np.exp(log_noise), weights)
        return -fit_target(lower, y).log_likelihood

    bounds = np.log(np.clip([near / NOISE_FACTOR, near * NOISE_FACTOR], *NOISES))
    result = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 0.2})
    return float(np.exp(result.x))


def fit_target(lower: Array, y: Array) -> TargetFit:
    """Fit labels (n,), with the mean by generalised least squares.

    Args:
        lower: result of `cholesky_factor`.
    """
    both = np.column_stack([np.ones_like(y), y])
    of_ones, of_labels = linalg.cho_solve((lower, True), both, check_finite=False).T
    mean = of_labels.sum() / of_ones.sum()
    coefficients = of_labels - mean * of_ones
    # A constant label has no variance, which would be a likelihood without a bound.
    smallest = max((ROUNDING * np.abs(y).max()) ** 2, np.finfo(np.float64).tiny)
    variance = max((y - mean) @ coefficients / len(y), smallest)
    log_likelihood = -np.log(np.diag(lower)).sum() - 0.5 * len(y) * np.log(variance)
    return TargetFit(float(log_likelihood), float(mean), float(variance), coefficients)


def leave_one_group_out(target: TargetFit, lower: Array, y: Array, groups: Integers) -> Array:
    """Return the prediction of each training row without the labels of its group, (n,).

    The mean is estimated again without them. If all rows are one group, each row is left out by itself. Source:
    Dubrule, Cross validation of kriging in a unique neighborhood, 1983; for groups Ginsbourger and Schaerer, Fast
    calculation of Gaussian process multiple-fold cross-validation residuals and their covariances, 2023.

    Args:
        target: result of `fit_target`.
        lower: result of `cholesky_factor`, which is overwritten.
        y: (n,) labels.
        groups: (n,).
    """
    inverse = _inverse(lower)
    sums = inverse.sum(axis=1)
    precisions = np.diag(inverse) - sums**2 / sums.sum()
    residuals = np.divide(target.coefficients, precisions, out=np.zeros_like(y), where=precisions > 0)
    for rows in map(np.asarray, pd.Series(groups).groupby(groups).indices.values()):
        if 1 < len(rows) < len(y):
            precision = inverse[np.ix_(rows, rows)] - np.outer(sums[rows], sums[rows]) / sums.sum()
            residuals[rows] = linalg.solve(precision, target.coefficients[rows], assume_a="pos")
    return y - residuals


def _inverse(lower: Array) -> Array:
    """Return the inverse (n, n) of a matrix from its lower Cholesky factor, which is overwritten."""
    inverse, _ = linalg.lapack.dpotri(lower, lower=1, overwrite_c=1)
    return inverse + np.tril(inverse, -1).T


def weighted_sum(kernels: list[Array], weights: Array, rows: Any, columns: Any) -> Array:
    """Return the weighted sum of a part of each kernel, (n_rows, n_columns)."""
    part = np.ix_(rows, columns)
    total = weights[0] * kernels[0][part]
    for kernel, weight in zip(kernels[1:], weights[1:], strict=True):
        total += weight * kernel[part]
    return total


def cholesky_factor(kernel: Array, noise: float, weights: Array) -> Array:
    """Return the lower Cholesky factor of the kernel of the training rows with noise, (n, n).

    Args:
        kernel: (n, n), which is overwritten.
        noise: variance of the noise relative to the prior variance, for a row of weight 1.
        weights: (n,) positive row weights.
    """
    kernel[np.diag_indices_from(kernel)] += noise / weights + JITTER
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
    features say nothing, the prediction of a left-out row is lowered by its label, and a negative
    slope would rank new rows the wrong way round. The intercept of a class without rows is -inf. Source:
    Platt, Probabilistic outputs for support vector machines, 1999.

    Args:
        scores: predictions of left-out rows (n_rows, n_classes).
        one_hot: labels (n_rows, n_classes), 0 or 1.
        weights: (n_rows,).
    """
    is_present = one_hot.any(axis=0)
    x = scores[:, is_present]
    y = one_hot[:, is_present]
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
