"""The variance shift of dropout, by formula; the tests simulate it, and the jobs of the study measure theirs.

In training, dropout of rate p multiplies a unit x by b / (1-p), where b is 1 with probability 1-p and else 0; in
inference it leaves x alone. The mean stays, the variance does not:

    unit        x b / (1-p):  Var_train = (Var + mean^2) / (1-p) - mean^2,  Var_inference = Var
    linear      z = w . x of n dropped independent units: both variances are sums of w^2 times those above
    non-linear  relu(z), z about normal: E relu = mu Phi(mu/s) + s phi(mu/s) with s^2 the variance of z, so that the
                larger variance in training raises the mean of the output, and inference is biased downwards

Sources: Li, Chen, Hu and Yang, "Understanding the disharmony between dropout and batch normalization by variance
shift", CVPR 2019, arXiv 1801.05134, has the unit (its variance grows by 1/(1-p) where the mean is 0); the sum follows
from independence, and the mean of a rectified normal is a standard result.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Array = NDArray[np.float64]


def unit_ratio(rate: float, mean: Array, variance: Array) -> Array:
    """Variance of units in training over that in inference, from their moments in inference; all of one shape."""
    return ((variance + mean**2) / (1 - rate) - mean**2) / variance


def linear_moments(rate: float, weights: Array, mean: Array, variance: Array) -> tuple[float, float, float]:
    """Mean, and variance in inference and in training, of a weighted sum of dropped independent units, (n,) each."""
    in_training = float(weights**2 @ (variance * unit_ratio(rate, mean, variance)))
    return float(weights @ mean), float(weights**2 @ variance), in_training


def relu_mean(mean: float, variance: float) -> float:
    """Mean of a rectified normal variable."""
    deviation = np.sqrt(variance)
    return float(mean * norm.cdf(mean / deviation) + deviation * norm.pdf(mean / deviation))
