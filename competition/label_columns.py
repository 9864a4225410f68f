"""Columns of labels: classes, numbers, and censored numbers such as `>100`, which bound a value."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from competition.classes import class_numbers
from competition.clean import parse_numbers, raise_if_any
from competition.config import CompetitionConfig
from competition.dataset import LOWER, UPPER
from core.errors import join_first

PATTERN = r"^(?P<sign>[<>≤≥]=?)\s*(?P<number>.*)$"


class BoundedLabels(NamedTuple):
    """A column of labels, (n_rows,) each.

    Attributes:
        labels: measured values; NaN for a missing or censored one.
        lower: numbers that the value is above, NaN for other cells.
        upper: numbers that the value is below, NaN for other cells.
    """

    labels: pd.Series
    lower: pd.Series
    upper: pd.Series


def parse_bounded(table: pd.DataFrame, name: str, id_column: str, where: object) -> BoundedLabels:
    """Return a column of numbers and censored numbers; `>` and `>=` are not distinguished.

    Raises:
        DataError: if a sign has no number, or a cell is neither a number nor a censored one.
    """
    parts = table[name].str.strip().str.extract(PATTERN)
    is_censored = parts["sign"].notna()
    bounds = pd.to_numeric(parts["number"], errors="coerce")
    what = "censored cells without a number"
    advice = "Write a number behind the sign, such as >100, or empty the cells."
    raise_if_any(table, is_censored & bounds.isna(), name, id_column, where, what, advice)
    bounds = parse_numbers(table.assign(**{name: parts["number"].fillna("")}), name, id_column, where)
    labels = parse_numbers(table.assign(**{name: table[name].mask(is_censored, "")}), name, id_column, where)
    is_lower = parts["sign"].str.contains("[>≥]", na=False)
    return BoundedLabels(labels, bounds.where(is_lower), bounds.mask(is_lower))


def parse_labels(table: pd.DataFrame, name: str, config: CompetitionConfig, where: object) -> pd.Series:
    """Return a column of labels as floats: class indices for classification, else numbers.

    A missing label, and a censored one of a regression, is NaN.
    """
    if not config.classes or name not in config.targets:
        if config.problem_type == "regression":
            return parse_bounded(table, name, config.id, where).labels
        return parse_numbers(table, name, config.id, where)
    numbers, is_unknown = class_numbers(table[name], config.classes)
    what = f"labels that are none of the classes ({join_first(config.classes)})"
    advice = "Correct them, or set competition.classes."
    raise_if_any(table, is_unknown, name, config.id, where, what, advice)
    return numbers


def bound_columns(table: pd.DataFrame, config: CompetitionConfig, where: object) -> dict[str, pd.Series]:
    """Return the columns with the bounds of the labels, by name; none unless `censored: bound` is set."""
    columns = {}
    if config.censored == "bound":
        for name in config.label_columns:
            _, columns[LOWER + name], columns[UPPER + name] = parse_bounded(table, name, config.id, where)
    return columns


def without_empty_bounds(train: pd.DataFrame) -> pd.DataFrame:
    """Return a prepared training table without columns of bounds in which no label has one."""
    names = [name for name in train.columns if name.startswith((LOWER, UPPER))]
    return train.drop(columns=[name for name in names if train[name].isna().all()])


def count_censored(
    table: pd.DataFrame, config: CompetitionConfig, where: object
) -> dict[str, tuple[int, int]]:
    """Return label column -> number of its cells with > and with < in a raw table; empty unless for regression."""
    if config.problem_type != "regression":
        return {}
    columns = {name: parse_bounded(table, name, config.id, where) for name in config.label_columns}
    return {name: (int(each.lower.count()), int(each.upper.count())) for name, each in columns.items()}


def describe_censored(
    counts: dict[str, tuple[int, int]], config: CompetitionConfig, where: str, is_calibrated: bool = False
) -> Iterator[str]:
    """Yield a line with the number of censored labels of a table, if it has some.

    Args:
        counts: of `count_censored`.
        is_calibrated: whether it is an extra table with `calibrate`.
    """
    texts = [
        f"{name} {n_above} with >, {n_below} with <"
        for name, (n_above, n_below) in counts.items()
        if n_above or n_below
    ]
    if texts:
        use = "read as missing labels; networks can learn them with competition.censored: bound"
        if config.censored == "bound":
            use = "networks learn them as bounds; other stages and all scores read them as missing labels"
        if is_calibrated:
            use = "those of targets are not used, since calibrate needs measured labels"
        yield f"censored labels of {where}: {join_first(texts, str)} ({use})"
