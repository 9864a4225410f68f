"""Scores against scores: rank correlation, a line with its band, and the points that are off it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from competition.metrics import Array

TO_DRAW, TO_TRUST = 3, 5
SUSPECT = 3.5
"""Residuals, in robust standard deviations: Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993."""
FAR = 3.0
"""Standard errors that chance does not explain."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        value, low, high = (round(number, 2) + 0.0 for number in (self.value, self.low, self.high))  # no minus zero
        return f"{value:.2f} [{low:.2f}, {high:.2f}]"


@dataclass(frozen=True)
class Line:
    """Least squares, y on x, through `n` points; spread: standard deviation of the residuals, 0 for a perfect line."""

    slope: Interval
    intercept: float
    spread: float
    n: int
    centre: float
    sum_of_squares: float

    def at(self, x: Array) -> Array:
        """Expected y."""
        return self.intercept + self.slope.value * x

    def error(self, x: Array) -> Array:
        """Standard error of a new y at x."""
        return self.spread * np.sqrt(1 + 1 / self.n + (x - self.centre) ** 2 / self.sum_of_squares)

    def band(self, x: Array) -> Array:
        """Half the width of the interval in which a new y lies with 95 %."""
        return stats.t.ppf(0.975, self.n - 2) * self.error(x)


def spearman(x: Array, y: Array) -> Interval | None:
    """Spearman's rank correlation with its interval; None for fewer than four points or equal ones.

    Interval: Fisher's z with the standard error of Bonett and Wright, Psychometrika 65, 2000. A correlation of 1 has
    none there; half a step is taken off, a step being one exchange of neighbours.
    """
    n = len(x)
    if n < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    value = float(stats.spearmanr(x, y).statistic)
    most = 1 - 6 / (n * (n**2 - 1))
    inner = float(np.clip(value, -most, most))
    reach = stats.norm.ppf(0.975) * np.sqrt((1 + inner**2 / 2) / (n - 3))
    low, high = np.tanh(np.arctanh(inner) + np.array([-reach, reach]))
    return Interval(value, min(value, float(low)), max(value, float(high)))


def fit(x: Array, y: Array) -> Line | None:
    """Least squares with the t interval of its slope; None for fewer than three points or equal x.

    Least squares, since it has a band for the next submission; it goes through the points that are no outliers, which
    `outliers` finds with a line that bears them.
    """
    if len(x) < TO_DRAW or np.ptp(x) == 0:
        return None
    found = stats.linregress(x, y)
    residuals = y - found.intercept - found.slope * x
    spread = float(np.sqrt(residuals @ residuals / (len(x) - 2)))
    spread = 0.0 if spread < 1e-9 * np.abs(y).max() else spread  # rounding
    sum_of_squares = float(((x - x.mean()) ** 2).sum())
    reach = float(stats.t.ppf(0.975, len(x) - 2)) * spread / np.sqrt(sum_of_squares)
    slope = Interval(float(found.slope), found.slope - reach, found.slope + reach)
    return Line(slope, float(found.intercept), spread, len(x), float(x.mean()), sum_of_squares)


def outliers(cv: Array, leaderboard: Array, error: float | None) -> dict[int, tuple[float, str]]:
    """Submissions that are not where the others say: their places, how far off they are, and what says so.

    Far from Theil and Sen's line (median of all slopes, so that a third of bad points does not move it) makes a
    suspect. Of five points one often is by chance: it has to lie outside of the interval for a new point of the others'
    least-squares line as well, 95 % for all points together (Bonferroni). On made-up scores 4 to 11 % of clean ledgers
    of 5 to 20 submissions then have one. With three or four submissions there is no such line, and the standard error
    of the CV score decides.

    Args:
        cv, leaderboard: (n_submissions,).
        error: standard error of a CV score, None where it is not known.
    """
    n = len(cv)
    if n < TO_TRUST:
        if n < TO_DRAW or error is None:
            return {}
        off = (leaderboard - cv) - np.median(leaderboard - cv)
        far = np.flatnonzero(np.abs(off) > FAR * error)
        return {int(i): (float(off[i]), f"the median gap, by more than {FAR:g} standard errors") for i in far}
    if np.ptp(cv) == 0:
        return {}
    off = leaderboard - stats.theilslopes(leaderboard, cv).slope * cv
    off -= np.median(off)
    least = 1e-9 * np.abs(leaderboard).max()  # rounding
    suspects = np.abs(off) > max(SUSPECT * stats.median_abs_deviation(off, scale="normal"), least)
    line = fit(cv[~suspects], leaderboard[~suspects])
    if line is None or line.n < TO_TRUST - 1:
        return {}
    off = leaderboard - line.at(cv)
    reach = np.maximum(stats.t.ppf(1 - 0.025 / n, line.n - 2) * line.error(cv), least)
    by = f"the line of {line.n} others"
    return {int(i): (float(off[i]), by) for i in np.flatnonzero(suspects & (np.abs(off) > reach))}
