"""Paired differences between two cells, and how sure they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences and its 95 % interval, whose ends are NaN where a single pair gives none."""

    mean: float
    low: float
    high: float
    pairs: int


def corrected_interval(differences: NDArray[np.float64], test_over_train: float) -> Difference:
    """The mean of paired differences (n_pairs,) with the 95 % corrected resampled t-interval.

    Folds share training rows, so their differences are not independent, and the usual interval is far too narrow. The
    variance of the mean is taken as (1 / pairs + test rows / training rows) times that of the differences; the second
    term does not shrink with more seeds. Source: Nadeau and Bengio, Inference for the Generalization Error, Machine
    Learning 52 (2003), their equation 9; derived for random splits, and used here on folds times seeds.

    Args:
        test_over_train: rows of a held-out fold over those it is trained without, 1 / (folds - 1).
    """
    n = len(differences)
    mean = float(np.mean(differences))
    if n < 2:
        return Difference(mean, np.nan, np.nan, n)
    error = float(np.sqrt((1 / n + test_over_train) * np.var(differences, ddof=1)))
    half = float(stats.t.ppf(0.975, n - 1)) * error
    return Difference(mean, mean - half, mean + half, n)
