"""Intervals around labels, in which a prediction has no error (`competition.intervals`), and their score, st_rae.

st_rae of a target is the sum of the distances between predictions and intervals, divided by the sum of
|label - mean label|, over the labelled rows; `ma_st_rae` is its mean over targets. With intervals without width
it is `rae`. OpenADMET's challenges of 2026 score it with the confidence intervals of the measurements.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from competition.clean import parse_numbers, raise_if_any, require_columns
from competition.config import CompetitionConfig
from competition.label_columns import parse_labels
from competition.types import Array


@dataclass(frozen=True)
class Intervals:
    """Labels with their intervals, (n_rows, n_targets) each; NaN for a missing or censored label."""

    y: Array
    lower: Array
    upper: Array

    def move_to_labels(self, y_pred: Array) -> Array:
        """Return predictions whose distance to the label is that of `y_pred` to the interval.

        Their `rae` is therefore the st_rae of `y_pred`, (n_rows, n_targets).
        """
        return self.y + (y_pred - np.clip(y_pred, self.lower, self.upper))


def read_intervals(table: pd.DataFrame, config: CompetitionConfig, where: object) -> Intervals:
    """Return the intervals of a raw table; an empty end, and each end of a target without intervals, is the label.

    Raises:
        DataError: if a column is missing, or the lower end of an interval is above its upper end.
    """
    columns = []
    for name in config.targets:
        label = parse_labels(table, name, config, where)
        lower = upper = label
        if name in config.intervals:
            lower_name, upper_name = config.intervals[name]
            require_columns(table, [lower_name, upper_name], where)
            lower = parse_numbers(table, lower_name, config.id, where).fillna(label)
            upper = parse_numbers(table, upper_name, config.id, where).fillna(label)
            what = (
                f"lower ends of intervals above the upper ends in {upper_name!r} (an empty end is the label)"
            )
            advice = "Correct them, or empty both ends."
            raise_if_any(table, lower > upper, lower_name, config.id, where, what, advice)
        columns.append((label, lower.where(label.notna()), upper.where(label.notna())))
    return Intervals(*(np.column_stack(part) for part in zip(*columns, strict=True)))


def describe_intervals(table: pd.DataFrame, config: CompetitionConfig, where: str) -> Iterator[str]:
    """Yield a line per target with intervals, with their number and mean width."""
    if not config.intervals:
        return
    intervals = read_intervals(table, config, where)
    for t, name in enumerate(config.targets):
        if name in config.intervals:
            width = (intervals.upper - intervals.lower)[:, t]
            yield (
                f"intervals of {name} in {where}: {(width > 0).sum()} of {np.isfinite(width).sum()} labels, mean "
                f"width {np.nanmean(width):.3g}"
            )
