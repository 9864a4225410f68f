"""Warnings about folds that were made: their number, their groups, and the classes in them."""

import re
from itertools import product

import numpy as np
import pandas as pd

from competition.config import CompetitionConfig
from competition.dataset import INPUT_KEY
from core.errors import join_first
from core.types import Integers
from folds.kinds import FoldsConfig
from folds.unit_values import group_keys

MAX_SHARE_OF_CLASS = 0.5
"""Share of the rows of a class up to which one group may have them: above it, its fold trains on the smaller part."""


def group_warnings(
    config: FoldsConfig, folds: Integers, rows: pd.DataFrame, competition: CompetitionConfig
) -> list[str]:
    """Return warnings about the number of folds, and about rows of `competition.group` in them."""
    return [
        *_fewer_folds(config, folds),
        *_divided_groups(config, folds, rows, competition),
        *_without_units(config, rows, competition),
        *_without_groups(config, competition),
        *_classes_of_one_group(config, rows, competition),
    ]


def _fewer_folds(config: FoldsConfig, folds: Integers) -> list[str]:
    """Return a warning if there are fewer folds than configured, since there are fewer groups."""
    n_folds = int(folds.max()) + 1
    if config.is_user_defined or n_folds == config.n_folds:
        return []
    return [
        f"WARNING: {n_folds} folds instead of the {config.n_folds} of folds.n_folds, "
        f"since the rows form only {n_folds} groups"
    ]


def _divided_groups(
    config: FoldsConfig, folds: Integers, rows: pd.DataFrame, competition: CompetitionConfig
) -> list[str]:
    """Return a warning if folds divide groups of `competition.group`, unless the user has made these folds."""
    is_intended = config.takes_folds or config.definition.needs == "group"
    if is_intended or not competition.units:
        return []
    keys = group_keys(rows, competition, config.similarity, len(rows))
    n_divided = sum((pd.Series(folds).groupby(key.to_numpy()).nunique() > 1).sum() for key in keys)
    if not n_divided:
        return []
    return [
        f"WARNING: {n_divided} groups of competition.group are in several folds of folds.kind {config.kind}; the kinds "
        "group and stratified_group keep them together"
    ]


def _without_units(config: FoldsConfig, rows: pd.DataFrame, competition: CompetitionConfig) -> list[str]:
    """Return a warning if rows have no unit that is computed from their cells, such as a prefix."""
    units = [unit for unit in competition.units if unit.kind != "value"]  # empty cells were counted before
    if not units or config.definition.needs != "group":
        return []
    keys = group_keys(rows, competition, config.similarity, len(rows))
    n_without = np.all([key == rows[INPUT_KEY] for key in keys], axis=0).sum()
    if not n_without:
        return []
    return [
        f"WARNING: {n_without} of {len(rows)} training rows have no {join_first(units, str)}, which defines "
        "groups; only equal inputs share a fold with them"
    ]


def _without_groups(config: FoldsConfig, competition: CompetitionConfig) -> list[str]:
    """Return what intervals assume of folds of the user without `competition.group`."""
    if not config.takes_folds or competition.units:
        return []
    return [
        "if your folds keep related rows together, name what these share in competition.group: without it, standard "
        "errors and intervals take rows with other inputs as independent"
    ]


def _classes_of_one_group(
    config: FoldsConfig, rows: pd.DataFrame, competition: CompetitionConfig
) -> list[str]:
    """Return a warning about classes of which most rows are in one group: one fold has them, and all others few.

    Left out are classes with fewer rows than folds, which no folds can balance.
    """
    row_keys = config.definition.row_keys
    if row_keys is None or not competition.classes:
        return []
    found = []
    for key in row_keys(rows, competition, config.similarity, len(rows)):
        groups = key.where(key != rows[INPUT_KEY])  # a row without a value is in no group
        for target, (number, label) in product(competition.targets, enumerate(competition.classes)):
            sizes = groups[rows[target] == number].value_counts()
            n_rows = int((rows[target] == number).sum())
            n_largest = int(sizes.max()) if len(sizes) else 0
            if n_rows >= config.n_folds and n_largest > MAX_SHARE_OF_CLASS * n_rows:
                value = re.sub(r"^group \d+ ", "", str(sizes.idxmax()))
                found.append(f"{n_largest} of the {n_rows} rows of {target} {label!r} are in {value!r}")
    if not found:
        return []
    return [
        f"WARNING: most rows of a class are in one group: {join_first(found, str)}. The models of its fold train on "
        "few rows of the class, and other folds score few; add rows of it in other groups, or choose folds.kind "
        "stratified if test rows are of known groups"
    ]


def missing_class_warnings(
    y: pd.DataFrame, classes: list[str], folds: Integers, time_ordered: bool = False
) -> list[str]:
    """Return warnings about classes without a row in a fold, or without a row to train on.

    Args:
        y: labels of all training rows (n_rows, n_targets).
        folds: folds of the first rows, -1 for rows that train in every fold; the other rows do, too.
    """
    if not classes:
        return []
    warnings = []
    folds = np.append(folds, np.full(len(y) - len(folds), -1))
    for name in y:
        counts = pd.crosstab(folds, y[name]).reindex(range(-1, folds.max() + 1), fill_value=0)
        counts = counts.reindex(columns=range(len(classes)), fill_value=0).set_axis(classes, axis=1)
        n_train = counts.cumsum().shift() if time_ordered else counts.sum() - counts
        rare = counts.columns[(counts.loc[0:] == 0).any()]
        if len(rare):
            rows = join_first([f"{label!r} ({counts[label].sum()} rows)" for label in rare], str)
            warnings.append(
                f"{name}: some folds have no row of {rows}; their scores by fold tell nothing about these classes"
            )
        for fold, n_of_class in n_train.loc[0:].iterrows():
            absent = n_of_class.index[n_of_class == 0]
            if len(absent):
                warnings.append(
                    f"WARNING: {name}: no row of {join_first(absent)} trains the models of fold {fold}, which give it "
                    "the probability 0; merge rare classes, or choose another folds.kind"
                )
    return warnings
