"""Leaks: the id, the order of the rows or a single column gives a target almost perfectly.

A decision tree predicts each target from one of them, on a sample of the training rows. Rows of one group,
such as equal inputs, are in one part of the cross-validation. Good features do not reach the limits below.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from competition.cells import count_new, to_numbers
from competition.config import CompetitionConfig
from competition.dataset import FEATURE, GROUP, without_extra_rows
from competition.pairs import feature_names
from competition.prepare import Prepared
from core.errors import join_first
from core.types import Array, Integers
from folds.groups import connected

MIN_R2 = 0.99
"""Coefficient of determination of the ranks of a numeric target, from which a column gives it."""
MIN_CLASS = 0.98
"""Share of the errors of the most frequent class that are avoided, from which a column gives a class."""
MIN_ORDER = 0.9
"""Both limits for ids and positions. They are lower since a tree errs at the ends of blocks of rows, and may
be lower since no measurement resembles an id.
"""
MIN_BEST_R2 = 0.5
"""Minimum R2 of the best order of the target among the values of a column. A column with so few values that
less is explained does not give a number.
"""
MIN_ROWS = 50
"""Number of labelled rows from which a target is examined."""
MIN_OTHERS = 10
"""Number of rows outside the most frequent class from which a class is examined."""
MAX_SAMPLED = 5_000
"""Number of rows that are examined for one target; of several targets fewer, but at least MIN_SAMPLED."""
MIN_SAMPLED = 1_000
MAX_NEW = 0.5
"""Share of the test rows with a new value up to which rows of one value may validate each other."""
MAX_FOLDS = 10
MAX_PERIOD = 12
"""Ids and positions are examined modulo 2 to this number."""

UNREAD = "No stage reads it, and no score depends on it"
"""Advice about an id, a position, and a column that no setting names."""


@dataclass(frozen=True, eq=False)
class Source:
    """What may give a target.

    Attributes:
        name: of its column; "" for an id or a position.
        what: what it is, in a message.
        values: numbers that are made of it, (n_rows,) each, NaN if missing.
        advice: the end of the message.
        is_order: whether it is an id or a position.
        is_new: whether most test rows have values that no training row has, so that equal values share a
            fold.
    """

    name: str
    what: str
    values: list[pd.Series]
    advice: str
    is_order: bool = False
    is_new: bool = False


def describe_leaks(tables: Prepared, config: CompetitionConfig) -> Iterator[str]:
    """Yield a warning for each source that gives targets almost perfectly.

    Args:
        tables: with the groups of the rows.
    """
    rows = without_extra_rows(tables.train)
    n_sampled = max(MIN_SAMPLED, MAX_SAMPLED // len(config.targets))
    sampled = np.sort(np.random.default_rng(0).permutation(len(rows))[:n_sampled])
    row_groups = rows[GROUP].to_numpy(dtype=np.int64)[sampled]
    for source in _sources(rows, tables.shared, config, sampled):
        groups = _join_equal(row_groups, source.values[0]) if source.is_new else row_groups
        given = []
        for target in config.targets:
            labels = rows[target].to_numpy(dtype=np.float64)[sampled]
            skill = 0.0 if target == source.name else _skill(source, labels, groups, bool(config.classes))
            if skill:
                given.append(f"{target} (cross-validated score {skill:.3f}; 1 is perfect)")
        if given:
            yield f"WARNING: {source.what} predicts {join_first(given, str)} almost perfectly. {source.advice}"


def _join_equal(groups: Integers, values: pd.Series) -> Integers:
    """Return the groups of rows, (n_rows,), after joining the groups that share a value."""
    codes = pd.factorize(values)[0]
    return connected(np.array([groups, np.where(codes < 0, groups, groups.max() + 1 + codes)]))


def _sources(
    rows: pd.DataFrame, shared: pd.DataFrame, config: CompetitionConfig, sampled: Integers
) -> Iterator[Source]:
    """Yield all sources.

    Args:
        rows: all prepared training rows.
        shared: see `Prepared`.
        sampled: numbers of the rows that are examined.
    """
    position = pd.Series(sampled, dtype=float)
    yield Source(
        name="",
        what=f"the position in {config.train.name}",
        values=[position, *_residues(position)],
        advice=f"{UNREAD}. If the test table is in the same order, it reveals test labels, too",
        is_order=True,
    )
    ids = rows[config.id].iloc[sampled]
    last = ids.str.extract(r"(\d+)\D*$")[0].astype(float)
    without_digits = ids.str.replace(r"\d+", "", regex=True)
    yield Source(
        name="",
        what=f"the id {config.id!r}",
        values=[*_numbers(ids), last, *_residues(last), *_numbers(without_digits)],
        advice=f"{UNREAD}. If the ids are older than the split, they reveal test labels, too",
        is_order=True,
    )
    for name in map(str, shared):
        role = None
        if name in config.numeric:
            role = "numeric"
        elif name in config.categorical:
            role = "categorical"
        cells = shared[name].iloc[sampled].str.strip()
        n_new, n_filled = count_new(cells, shared[name].iloc[len(rows) :][:MIN_SAMPLED].str.strip())
        is_new = n_new > MAX_NEW * n_filled
        yield Source(name, f"the column {name!r}", _numbers(cells), _advice(role), is_new=is_new)
    for name in config.text:
        texts = rows[name].iloc[sampled]
        values = [texts.str.len(), texts.str.count(r"\S+")]
        yield Source(name, f"the length of {name!r}", values, _advice("text"))
    of_pairs = {name for pair in config.pairs for name in feature_names(*pair)}
    for name in map(str, rows):
        if name.startswith(FEATURE):
            setting = "pairs" if name in of_pairs else "features"
            what = f"the column {name.removeprefix(FEATURE)!r} of competition.{setting}"
            yield Source(name, what, [rows[name].iloc[sampled]], _advice(setting))


def _advice(role: str | None) -> str:
    """Return what to do about a column that a setting of the competition names; None if none does."""
    doubt = "the target in another form, or available only after it"
    if role is None:
        return f"{UNREAD}. If it is not {doubt}, make it an input"
    return f"Scores depend on it. If it is {doubt}, take it out of competition.{role}"


def _residues(numbers: pd.Series) -> list[pd.Series]:
    return [numbers % period for period in range(2, MAX_PERIOD + 1)]


def _numbers(cells: pd.Series) -> list[pd.Series]:
    """Return cells as numbers; if one is not a number, their alphabetical order and the first number in each.

    Missing is NaN.
    """
    numbers, is_invalid = to_numbers(cells)
    if not is_invalid.any():
        return [numbers]
    order = cells.rank(method="dense").where(cells != "")
    first = cells.str.extract(r"([-+]?\d+(?:[.,]\d+)?)")[0].str.replace(",", ".").astype(float)
    return [order, first]


def _skill(source: Source, labels: Array, groups: Integers, are_classes: bool) -> float:
    """Return the cross-validated skill of a source if it is almost perfect; otherwise 0.

    If it is empty in some rows, the filled rows are also examined by themselves.
    """
    min_skill = MIN_CLASS if are_classes else MIN_R2
    if source.is_order:
        min_skill = MIN_ORDER
    skills = [0.0]
    is_labelled = np.isfinite(labels)
    for numbers in source.values:
        ranks = numbers.rank(method="dense").to_numpy(dtype=np.float64)  # trees read 32 bits
        is_filled = is_labelled & np.isfinite(ranks)
        for used in [is_labelled] if (is_filled == is_labelled).all() else [is_labelled, is_filled]:
            tree = _OneColumn(ranks[used], labels[used], groups[used], are_classes)
            skills.append(tree.cross_validate(min_skill))
    return max(skills)


class _OneColumn:
    """A decision tree that predicts labels from one column."""

    def __init__(self, ranks: Array, labels: Array, groups: Integers, are_classes: bool) -> None:
        self.ranks = ranks
        self.groups = groups
        self.are_classes = are_classes
        y = labels if are_classes else pd.Series(labels).rank()
        self.y = np.asarray(y, dtype=np.float64)
        self.n_others = len(labels) - int(np.unique(labels, return_counts=True)[1].max(initial=0))

    def cross_validate(self, min_skill: float) -> float:
        """Return the skill on held-out rows if it is at least `min_skill`; otherwise 0."""
        from sklearn.model_selection import GroupKFold, cross_val_predict
        from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

        n_folds = min(MAX_FOLDS, len(np.unique(self.groups)))
        if len(self.y) < MIN_ROWS or self.n_others < MIN_OTHERS or n_folds < 2:
            return 0.0
        kind = DecisionTreeClassifier if self.are_classes else DecisionTreeRegressor
        tree = kind(min_samples_leaf=2, random_state=0)
        x = self.ranks[:, None]
        if self.skill(tree.fit(x, self.y).predict(x)) < min_skill:
            return 0.0  # though the tree has seen the labels; most columns end here
        folds = GroupKFold(n_folds, shuffle=True, random_state=0)
        skill = self.skill(cross_val_predict(tree, x, self.y, groups=self.groups, cv=folds))
        return skill if skill >= min_skill else 0.0

    def skill(self, predictions: Array) -> float:
        """Return the share of the errors of the most frequent class that are avoided.

        For numbers, it is the R2 over the best R2 of a column with these values: many rows share a rounded
        one.
        """
        if self.are_classes:
            return 1 - float((predictions != self.y).sum()) / self.n_others
        cells = pd.factorize(self.ranks, use_na_sentinel=False)[0]
        means = pd.Series(predictions).groupby(cells).transform("mean").to_numpy(dtype=np.float64)
        in_order = np.sort(self.y)
        best = pd.Series(in_order).groupby(np.sort(means)).transform("mean").to_numpy(dtype=np.float64)
        return _r2(self.y, means) / max(_r2(in_order, best), MIN_BEST_R2)


def _r2(y: Array, predictions: Array) -> float:
    return 1 - float(((y - predictions) ** 2).mean() / y.var())
