"""The variance shift of dropout: by formula and by simulation; the jobs of the study measure theirs.

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
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

Array = NDArray[np.float64]
RATES = (0.1, 0.3, 0.5)
INPUTS = (("mean 0, variance 1", 0.0, 1.0), ("mean 0.4, variance 0.34", 0.4, 0.34))
"""The second is what a ReLU makes of the first: mean 1/sqrt(2 pi), variance 1/2 - 1/(2 pi)."""
WIDTH, N_ROWS = 100, 200_000


def unit_ratio(rate: float, mean: Array, variance: Array) -> Array:
    """Variance of units in training over that in inference, from their moments in inference; all of one shape."""
    return ((variance + mean**2) / (1 - rate) - mean**2) / variance


def linear_moments(rate: float, weights: Array, mean: Array, variance: Array) -> tuple[float, float, float]:
    """Mean, and variance in inference and in training, of a weighted sum of dropped independent units, (n,) each."""
    in_inference = float(weights**2 @ variance)
    in_training = float(weights**2 @ (variance * unit_ratio(rate, mean, variance)))
    return float(weights @ mean), in_inference, in_training


def relu_mean(mean: float, variance: float) -> float:
    """Mean of a rectified normal variable."""
    deviation = np.sqrt(variance)
    return float(mean * norm.cdf(mean / deviation) + deviation * norm.pdf(mean / deviation))


def simulated_unit_ratio(rate: float, mean: float, variance: float, n_rows: int, seed: int) -> float:
    """What `unit_ratio` says of one normal unit, by drawing it and its masks."""
    random = np.random.default_rng(seed)
    x = mean + np.sqrt(variance) * random.standard_normal(n_rows)
    kept = random.random(n_rows) >= rate
    return float((x * kept / (1 - rate)).var() / x.var())


def simulate(
    rate: float, weights: Array, mean: Array, variance: Array, n_rows: int, seed: int
) -> tuple[float, float, float, float]:
    """What `linear_moments` and `relu_mean` say, by drawing normal units and masks.

    Returns:
        variance of the sum in inference and in training, mean of its ReLU in inference and in training.
    """
    random = np.random.default_rng(seed)
    sums = np.empty((2, n_rows))
    for rows in np.array_split(np.arange(n_rows), max(1, n_rows // 10_000)):
        x = mean + np.sqrt(variance) * random.standard_normal((len(rows), len(mean)))
        kept = random.random(x.shape) >= rate
        sums[0, rows], sums[1, rows] = x @ weights, (x * kept / (1 - rate)) @ weights
    (inference, training), (relu_inference, relu_training) = sums.var(axis=1), np.maximum(sums, 0).mean(axis=1)
    return float(inference), float(training), float(relu_inference), float(relu_training)


def of_one_layer() -> pd.DataFrame:
    """Formula beside simulation for a unit, a sum of 100 and its ReLU, for inputs as they are before and behind a ReLU.

    `bias` is the mean of the ReLU in inference minus that in training, in percent of the latter.
    """
    rows = []
    for name, unit_mean, unit_variance in INPUTS:
        mean, variance = np.full(WIDTH, unit_mean), np.full(WIDTH, unit_variance)
        weights = np.random.default_rng(0).normal(size=WIDTH)
        for rate in RATES:
            mu, inference, training = linear_moments(rate, weights, mean, variance)
            simulated = simulate(rate, weights, mean, variance, N_ROWS, seed=1)
            rows.append(
                {
                    "inputs": name,
                    "rate": rate,
                    "unit_formula": float(unit_ratio(rate, np.array(unit_mean), np.array(unit_variance))),
                    "unit_simulation": simulated_unit_ratio(rate, unit_mean, unit_variance, N_ROWS, seed=2),
                    "sum_formula": training / inference,
                    "sum_simulation": simulated[1] / simulated[0],
                    "bias_formula": _bias(relu_mean(mu, inference), relu_mean(mu, training)),
                    "bias_simulation": _bias(*simulated[2:]),
                }
            )
    return pd.DataFrame(rows)


def _bias(inference: float, training: float) -> float:
    return 100 * (inference / training - 1)
