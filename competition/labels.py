"""Columns of labels: classes, numbers, and censored numbers such as `>100`, which bound a value."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from competition.cells import parse_numbers, raise_if_any
from competition.config import CompetitionConfig
from competition.dataset import LOWER, UPPER
from competition.task import class_numbers
from core.errors import join_first

PATTERN = r"^(?P<sign>[<>≤≥]=?)\s*(?P<number>.*)$"


MAX_RANGE = 1e4
MAX_TO_MEDIAN = 100.0
"""Ratios of the largest label to the smallest and to the median above which large labels dominate errors."""
MAX_LISTED = 12
"""Number of classes with a listed share; if there are more, the rarest are listed."""
PLACEHOLDERS = (-99, -999, -9999, 999, 9999)
"""Numbers that stand for a missing one."""
CODES = (-1, -9, -99, -999, -9999)
"""Labels that stand for a missing one if no other label is negative."""


def describe_placeholder(numbers: pd.Series) -> str:
    """Return how many numbers are a code of missing ones, such as -999, far from all others; "" if none."""
    for number in PLACEHOLDERS:
        is_number = numbers == number
        if is_number.any() and abs(number) > 3 * numbers[~is_number].abs().max():
            return f"{is_number.sum()} cells are {number}; empty them if they are missing"
    return ""


def describe_code(name: str, labels: pd.Series) -> str:
    """Return how many labels (numbers) are a code of missing ones, and what to write; "" if none.

    The only negative number is such a code, if several rows have it and the others have two values: -1
    among 0 and 1, but not among 1.
    """
    placeholder = describe_placeholder(labels)
    negative = labels[labels < 0]
    others = labels[labels >= 0].nunique()
    if not placeholder and len(negative) > 1 and negative.nunique() == 1 and others > 1:
        code = negative.iloc[0]
        if code in CODES:
            placeholder = f"{len(negative)} cells are {code:g}; empty them if they are missing"
    return f"labels of {name}: {placeholder}" if placeholder else ""


def describe_range(name: str, labels: pd.Series) -> str:
    """Return a sentence about labels such as -999 or over more than four powers of ten; "" for others."""
    code = describe_code(name, labels)
    if code:
        return code
    if labels.min() < 0:
        return ""
    positive = labels[labels > 0]
    smallest = positive.min()
    largest = positive.max()
    if not (largest > MAX_RANGE * smallest and largest > MAX_TO_MEDIAN * positive.median()):
        return ""
    powers = math.log10(largest / smallest)
    return (
        f"labels of {name} span {powers:.1f} orders of magnitude; set target_transform: log1p in the stages, or power "
        "if a target has labels below 0"
    )


class LabelColumn(NamedTuple):
    """A column of labels, (n_rows,) each.

    Attributes:
        values: class indices, or measured numbers; NaN for a missing or censored label.
        lower: numbers that the value is above, NaN for other cells.
        upper: numbers that the value is below, NaN for other cells.
    """

    values: pd.Series
    lower: pd.Series
    upper: pd.Series


class Labels(NamedTuple):
    """All label columns of a table.

    Attributes:
        table: a column of floats per label column, then columns of their bounds, if `censored: bound` is set.
        n_censored: label column -> number of its cells with > and with <; empty unless for regression.
    """

    table: pd.DataFrame
    n_censored: dict[str, tuple[int, int]]


def parse_bounded(table: pd.DataFrame, name: str, id_column: str, where: object) -> LabelColumn:
    """Return a column of numbers and censored numbers; `>` and `>=` are not distinguished.

    Raises:
        DataError: if a sign has no number, or a cell is neither a number nor a censored one.
    """
    parts = table[name].str.strip().str.extract(PATTERN)
    is_censored = parts["sign"].notna()
    bounds = pd.to_numeric(parts["number"], errors="coerce")
    what = "censored cells without a number"
    advice = "Write a number after the sign, such as >100, or empty the cells."
    raise_if_any(table, is_censored & bounds.isna(), name, id_column, where, what, advice)
    bounds = parse_numbers(table.assign(**{name: parts["number"].fillna("")}), name, id_column, where)
    values = parse_numbers(table.assign(**{name: table[name].mask(is_censored, "")}), name, id_column, where)
    is_lower = parts["sign"].str.contains("[>≥]", na=False)
    return LabelColumn(values, bounds.where(is_lower), bounds.mask(is_lower))


def parse_classes(table: pd.DataFrame, name: str, config: CompetitionConfig, where: object) -> pd.Series:
    """Return a column of class labels as class indices, NaN for a missing one.

    Raises:
        DataError: for a label that is not a class.
    """
    numbers, is_unknown = class_numbers(table[name], config.classes)
    what = f"labels that are none of the classes ({join_first(config.classes)})"
    advice = "Correct them, or set competition.classes."
    raise_if_any(table, is_unknown, name, config.id, where, what, advice)
    return numbers


def require_above_lower_bound(
    table: pd.DataFrame, labels: pd.DataFrame, config: CompetitionConfig, where: object
) -> None:
    """Raise a DataError if labels of a raw table are so low that the metric has no value."""
    metric = config.scorer
    for name in config.targets:
        what = f"labels at or below {metric.lower_bound:g}, where the metric {metric.name} has no value"
        advice = "Correct them, or choose another competition.metric."
        raise_if_any(table, labels[name] <= metric.lower_bound, name, config.id, where, what, advice)


def parse_labels(table: pd.DataFrame, names: list[str], config: CompetitionConfig, where: object) -> Labels:
    """Return some targets and auxiliary targets of a raw table."""
    values = {}
    bounds = {}
    n_censored = {}
    for name in names:
        if config.problem_type == "regression":
            values[name], lower, upper = parse_bounded(table, name, config.id, where)
            n_censored[name] = int(lower.count()), int(upper.count())
            if config.censored == "bound":
                bounds[LOWER + name] = lower
                bounds[UPPER + name] = upper
        elif name in config.targets:
            values[name] = parse_classes(table, name, config, where)
        else:
            values[name] = parse_numbers(table, name, config.id, where)
    return Labels(pd.DataFrame({**values, **bounds}), n_censored)


def without_empty_bounds(train: pd.DataFrame) -> pd.DataFrame:
    """Return a prepared training table without columns of bounds in which no label has one."""
    names = [name for name in train.columns if name.startswith((LOWER, UPPER))]
    return train.drop(columns=[name for name in names if train[name].isna().all()])


def describe_censored(labels: Labels, config: CompetitionConfig, where: str) -> Iterator[str]:
    """Yield a line with the number of censored labels of a table, if it has some."""
    texts = [
        f"{name} {n_above} with >, {n_below} with <"
        for name, (n_above, n_below) in labels.n_censored.items()
        if n_above or n_below
    ]
    if texts:
        use = "read as missing labels; networks can learn them with competition.censored: bound"
        if config.censored == "bound":
            use = "networks learn them as bounds; other stages and all scores read them as missing labels"
        warning = "WARNING: " if config.censored == "mask" else ""
        yield f"{warning}censored labels of {where}: {join_first(texts, str)} ({use})"


def labels_or_indicators(y: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Return the labels for regression, else an indicator column `target=class` per class.

    The mean of an indicator is the share of its class. Of two classes only the second one has a column.

    Args:
        y: labels (n_rows, n_targets).
    """
    if not classes:
        return y
    first = 1 if len(classes) == 2 else 0
    indicators: dict[str, pd.Series] = {}
    for name in y:
        for k in range(first, len(classes)):
            indicators[f"{name}={classes[k]}"] = (y[name] == k).where(y[name].notna()).astype(float)
    shares = pd.DataFrame(indicators)
    return shares.loc[:, shares.mean().rank(method="first") <= MAX_LISTED]
