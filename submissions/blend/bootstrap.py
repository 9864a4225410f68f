"""Paired bootstrap of scores over groups of rows that share a fold.

All predictions are scored on the same resamples, so the standard deviation of the difference of two scores over the
resamples is the standard error of that difference. Source: Efron and Tibshirani, "An Introduction to the Bootstrap",
1993, chapters 6 and 16.
"""

import numpy as np
import pandas as pd

from competition.metrics import REGRESSION, Metric, take_rows
from core.types import Array, Integers

MAX_RESAMPLES = 200
"""Number of resamples, with which a standard error is known to 5 %."""
MIN_RESAMPLES = 50
"""Number of resamples of large tables."""
MAX_LABELS = 20_000_000
"""Labels of all resamples together, above which there are fewer."""


def bootstrap_scores(
    metric: Metric,
    y: Array,
    predictions: dict[str, Array],
    groups: Integers,
    seed: int,
    n_groups: int | None = None,
    rows: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Score several predictions on the same bootstrap resamples.

    Args:
        y: (n_rows, n_targets), NaN for missing labels.
        predictions: for each name, what the metric scores, (n_rows, n_outputs), finite.
        groups: (n_rows,), numbered from 0 without gaps; rows of one group are resampled together.
        n_groups: groups in each resample; None for the number of groups in `groups`.
        rows: n_rows rows of the raw table, for a metric that takes them.

    Returns:
        (n_resamples, n_predictions), NaN where the metric is undefined, and where a regression target has only one
        label in a resample, of which R2 has no meaning.
    """
    n_all_groups = int(groups.max()) + 1
    rng = np.random.default_rng(seed)
    scores = []
    for _ in range(int(np.clip(MAX_LABELS / y.size, MIN_RESAMPLES, MAX_RESAMPLES))):
        drawn = rng.integers(n_all_groups, size=n_groups or n_all_groups)
        counts = np.bincount(drawn, minlength=n_all_groups)
        each = np.repeat(np.arange(len(y)), counts[groups])
        drawn_predictions = [y_pred[each] for y_pred in predictions.values()]
        scores.append(_scores(metric, y[each], drawn_predictions, take_rows(rows, each)))
    table = pd.DataFrame(scores, columns=list(predictions))
    return table.where(np.isfinite(table))


def _scores(metric: Metric, y: Array, predictions: list[Array], rows: pd.DataFrame | None) -> list[float]:
    if metric.types == REGRESSION and any(pd.Series(labels).nunique() < 2 for labels in y.T):
        return [np.nan] * len(predictions)
    return [metric(y, y_pred, rows) for y_pred in predictions]
