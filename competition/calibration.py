"""Calibration of the labels of another table to those of the competition (`calibrate` of `competition.extra_train`).

The labels of inputs that both tables have are compared. Wrong labels must not move the map, so it is fitted
twice: robustly on all pairs, then by least squares on the pairs that the first fit explains.

The labels of the source are regressed on those of the competition, and the fit is inverted (the classical
estimator of calibration, Eisenhart 1939). The noise of the source then stays noise, which a model averages
out. A regression in the other direction would draw all labels of a noisy source to their mean, which a model
would learn.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from core.types import Array

MIN_CALIBRATION_INPUTS = 10
"""Number of shared inputs with labels that a calibration requires."""
MAX_PAIRS = 500
"""Number of pairs of labels for the robust fit, whose time grows with the square of the pairs."""
MEDIAN_WIDTH = 7
"""Number of neighbouring labels whose median the robust monotonic fit takes."""
MAX_TRIMMED = 3.0
"""Pairs whose difference is above this number of standard deviations do not enter the second fit."""
MAD_TO_STD = 1.4826
"""Standard deviation of normally distributed numbers, divided by their median absolute deviation."""

Kind = Literal["affine", "isotonic"]


@dataclass(frozen=True)
class Calibration:
    """Piecewise linear map of labels. It is constant beyond its ends if it is isotonic.

    Attributes:
        kind: the setting `calibrate`.
        x: (n_points,) labels of the other table, sorted.
        y: (n_points,) the same in units of the competition.
    """

    kind: Kind
    x: Array
    y: Array

    def __call__(self, labels: Array) -> Array:
        """Return calibrated labels; a missing label stays missing."""
        if self.kind == "isotonic":
            return np.asarray(np.interp(labels, self.x, self.y))
        slope = (self.y[1] - self.y[0]) / (self.x[1] - self.x[0])
        return np.asarray(self.y[0] + slope * (labels - self.x[0]))


def shared_labels(extra_keys: Any, extra_y: Any, train_keys: Any, train_y: Any) -> pd.DataFrame:
    """Return the median labels of the inputs of both tables: columns `extra` and `train`.

    Args:
        extra_keys: (n_rows,) keys of the inputs of an extra table.
        extra_y: (n_rows,) its labels of one target, NaN if missing.
        train_keys: the same of the training table.
        train_y: the same of the training table.
    """
    medians = [_median_labels(extra_keys, extra_y), _median_labels(train_keys, train_y)]
    return pd.concat(medians, axis=1, join="inner", keys=["extra", "train"])


def _median_labels(keys: Any, labels: Any) -> "pd.Series[float]":
    """Return the median label of each input, by its key; inputs without a label are left out."""
    return pd.Series(np.asarray(labels, dtype=np.float64)).groupby(np.asarray(keys)).median().dropna()


def robust_std(errors: Array) -> float:
    """Return the standard deviation about 0 of normally distributed errors of which some are wrong."""
    return MAD_TO_STD * float(np.median(np.abs(errors)))


def rank_correlation(x: Array, y: Array) -> float:
    """Return Spearman's correlation of two columns of labels; 0 if one of them is constant."""
    from scipy.stats import spearmanr

    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(spearmanr(x, y).statistic)


def can_calibrate(x: Array, y: Array) -> bool:
    """Return whether there are enough shared labels, (n_shared,) each, and the middle half of neither is constant."""
    if len(x) < MIN_CALIBRATION_INPUTS:
        return False
    return all(np.ptp(np.quantile(labels, [0.25, 0.75])) > 0 for labels in (x, y))


def fit_calibration(kind: Kind, x: Array, y: Array) -> Calibration:
    """Fit the map from labels `x` of another table to labels `y` of the competition, (n_shared,) each.

    `can_calibrate` says whether they allow it.

    affine: Theil and Sen's line (Sen, JASA 1968), then least squares without outliers. isotonic: the
    monotonic map of least squares (Robertson, Wright and Dykstra 1988) of running medians, then of the labels
    without outliers; it decreases if the rank correlation is negative.
    """
    robust = _fit(kind, x, y, is_robust=True)
    errors = y - robust(x)
    is_explained = np.abs(errors) <= MAX_TRIMMED * robust_std(errors)
    if is_explained.sum() >= 2 and np.ptp(x[is_explained]) > 0 and np.ptp(y[is_explained]) > 0:
        return _fit(kind, x[is_explained], y[is_explained], is_robust=False)
    return robust


def _fit(kind: Kind, x: Array, y: Array, is_robust: bool) -> Calibration:
    from scipy.stats import theilslopes
    from sklearn.isotonic import IsotonicRegression

    ends = np.array([x.min(), x.max()])
    order = np.argsort(y, kind="stable")
    x = x[order]
    y = y[order]
    if kind == "isotonic":
        increasing = rank_correlation(x, y) >= 0
        smooth = _running_median(x) if is_robust else x
        fitted = IsotonicRegression(increasing=increasing).fit(y, smooth)
        # One label of the source may be that of a range of labels; its inverse is the middle of the range.
        levels, which = np.unique(fitted.y_thresholds_, return_inverse=True)
        return Calibration(kind, levels, np.bincount(which, fitted.X_thresholds_) / np.bincount(which))
    if is_robust:
        step = -(-len(x) // MAX_PAIRS)  # the pairs are spread over the range of labels
        slope, intercept = theilslopes(x[::step], y[::step])[:2]
    else:
        slope, intercept = np.polyfit(y, x, 1)
    if slope == 0:
        return Calibration(kind, ends, np.full(2, np.median(y)))
    return Calibration(kind, ends, (ends - intercept) / slope)


def _running_median(x: Array) -> Array:
    """Return the median of each label and its neighbours; x is continued beyond its ends by point reflection."""
    from scipy.ndimage import median_filter

    half = MEDIAN_WIDTH // 2
    padded = np.pad(x, half, mode="reflect", reflect_type="odd")
    return np.asarray(median_filter(padded, size=MEDIAN_WIDTH)[half:-half])
