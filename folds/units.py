"""Units: what an organiser may have split the rows by, such as a text, a word, a molecule, its scaffold, or a plate.

A random split leaves a known number of test rows that share their value of a unit with a training row. If far fewer
do, the test table was split off by this unit, and folds at random would expect too good a score. No label is read.
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.cells import dates_in_any_form, is_missing_cell, seconds_of, to_numbers
from competition.dataset import TableColumns
from competition.summary import MIN_KNOWN
from competition.units import Unit
from core.types import Integers
from folds.groups import connected
from folds.unit_values import canonical_table, codes_of, values_of

MAX_SHARE = 0.5
"""Share of the random number of shared rows up to which a unit is found."""
N_ERRORS = 4.0
"""Standard errors by which the random number must exceed the observed one."""
MIN_AT_RANDOM = N_ERRORS**2
"""Number of shared rows after a random split from which a unit can be found."""
MAX_DIFFERENCE = 0.05
"""Difference of two shares up to which the coarser of two units is chosen, and ratio of their numbers of values up to
which they are as coarse.
"""
MAX_NOT_LATER = 0.1
"""Share of the test rows up to which they may be earlier than LATE if the tables were divided in time."""
LATE = 0.95
"""Quantile of the times of the training rows."""
MIN_TRAIN_VALUES = 3
"""Number of values in the training table below which folds cannot hold out a unit."""
MIN_GROUPS = 10
"""Number of values of a column from which rows may be of new values; fewer are conditions, such as solvents."""
MIN_PREFIXES = 5, 2
"""Numbers of prefixes in the training and in the test table below which prefixes are names of the tables."""
MAX_SCAFFOLDS = 10_000
"""Number of rows whose scaffolds are compared."""
MAX_PAIRED = 6
"""Number of columns whose pairs are compared."""
MAX_COMPONENTS = 4
"""Number of components of a mixture or reaction that are compared, from the rarest."""
MIN_COMMON = 0.05
"""Share of the values of a column that another one must have if both are one pool of values."""
TIME_NAME = re.compile(r"date|time|year|month|week|day|epoch|quarter", re.IGNORECASE)


@dataclass(frozen=True)
class UnitShare:
    """How many test rows share a unit with training rows.

    Attributes:
        n_values: number of values in both tables.
        n_test_values: 0 without a test table.
        observed: test rows all of whose values occur in the training table. Of a time: rows that are not late.
        at_random: their expected number after a random split; without a test table, training rows that share a value
            with rows of other inputs.
        standard_error: of that number.
    """

    unit: Unit
    n_values: int
    n_train_values: int
    n_test_values: int
    observed: int
    at_random: float
    standard_error: float

    @property
    def share(self) -> float:
        """Observed number over that of a random split."""
        return self.observed / self.at_random if self.at_random else 1.0

    @property
    def is_found(self) -> bool:
        """Whether the tables were divided by this unit, or by one that it depends on."""
        max_share = MAX_NOT_LATER / LATE if self.unit.kind == "time" else MAX_SHARE
        is_clear = self.at_random - self.observed > N_ERRORS * self.standard_error
        return self.share <= max_share and is_clear


@dataclass(frozen=True, eq=False)
class _Counted:
    """Rows with a unit, and the numbers of their values, (n_values_per_row, n_rows), -1 for none."""

    share: UnitShare
    rows: Integers
    codes: Integers


def count_shared(unit: Unit, codes: Integers, is_test: NDArray[np.bool_]) -> UnitShare:
    """Count the test rows that share a unit with training rows.

    If n of N rows are in the test table, a value with k rows has k * p * (1 - p ** (k - 1)) of them there together
    with a training row on average, with p = n / N.

    Args:
        codes: numbers of the values of each row, (n_values_per_row, n_rows), -1 for none.
    """
    has_value = (codes >= 0).any(axis=0)
    codes, is_test = codes[:, has_value], is_test[has_value]
    n_codes = int(codes.max(initial=-1)) + 1
    counts = _counts(codes, n_codes)
    in_train = _counts(codes[:, ~is_test], n_codes)
    in_test = _counts(codes[:, is_test], n_codes)
    p = float(is_test.mean()) if len(is_test) else 0.0
    is_seen = np.append(in_train > 0, True)  # the last is that of -1
    probability = np.append(1 - p ** np.maximum(counts - 1, 0), 1.0)
    at_random = p * float(probability[codes].prod(axis=0).sum())
    # All test rows of a value are shared together, unless all of its rows are test rows.
    squares = counts * p * (1 - p) + (counts * p) ** 2 - counts**2 * p**counts
    variance = float((squares - (counts * p * probability[:-1]) ** 2).sum())
    return UnitShare(
        unit=unit,
        n_values=int((counts > 0).sum()),
        n_train_values=int((in_train > 0).sum()),
        n_test_values=int((in_test > 0).sum()),
        observed=int(is_seen[codes[:, is_test]].all(axis=0).sum()),
        at_random=at_random,
        standard_error=math.sqrt(max(variance, at_random)),
    )


def _counts(codes: Integers, n_codes: int) -> NDArray[np.float64]:
    return np.bincount(codes[codes >= 0], minlength=n_codes).astype(np.float64)


class _Tables:
    """Training and test rows one after the other, with the numbers of the values of their columns."""

    def __init__(self, train: pd.DataFrame, test: pd.DataFrame, columns: TableColumns) -> None:
        self.columns = columns
        names = [name for name in map(str, test) if name in train and name not in columns.labels]
        self.rows = pd.concat([train[names], test[names]], ignore_index=True)
        self.cells = canonical_table(self.rows, names, columns.smiles)
        self.is_test = np.arange(len(self.rows)) >= len(train)
        self.sampled = self._sample(MAX_SCAFFOLDS)
        self.names = [name for name in names if name != columns.id]
        inputs = [name for name in columns.inputs if name in names]
        self.equal_inputs: Integers = np.arange(len(self.rows))
        if inputs:
            self.equal_inputs = np.asarray(self.cells.groupby(inputs, sort=False).ngroup(), dtype=np.int64)

    def _sample(self, n_rows: int) -> Integers:
        """Return the numbers of a random part of the rows, with at most half from the test table."""
        rng = np.random.default_rng(0)
        test = rng.permutation(np.flatnonzero(self.is_test))[: n_rows // 2]
        train = rng.permutation(np.flatnonzero(~self.is_test))[: n_rows - len(test)]
        return np.sort(np.append(train, test))

    def codes(self, unit: Unit, rows: Integers | None = None) -> Integers:
        """Return the numbers of the values of a unit, (n_values_per_row, n_rows), -1 for none."""
        cells = self.cells if rows is None else self.cells.iloc[rows]
        return codes_of(values_of(unit, cells, self.cells))

    def count(self, units: Iterable[Unit]) -> list[_Counted]:
        """Return the counts of units that tell rows apart.

        Left out are those with one value, or values that only equal inputs share, prefixes that name the tables, and
        what is the same as another unit of the column.
        """
        counted: list[_Counted] = []
        for unit in units:
            rows = self.sampled if "scaffold" in unit.kind else np.arange(len(self.rows))
            codes = self.codes(unit, rows)
            if len(codes) == 1 and not _is_coarser(codes[0], self.equal_inputs[rows]):
                continue
            share = count_shared(unit, codes, self.is_test[rows])
            names_tables = share.n_train_values < MIN_PREFIXES[0] or share.n_test_values < MIN_PREFIXES[1]
            same = (unit.columns, share.n_values, share.observed)
            is_known = any(
                (each.share.unit.columns, each.share.n_values, each.share.observed) == same
                for each in counted
            )
            if share.n_values > 1 and not is_known and not ("prefix" in unit.kind and names_tables):
                counted.append(_Counted(share, rows, codes))
        return counted


def _is_coarser(codes: Integers, equal_inputs: Integers) -> bool:
    """Return whether rows with other inputs share a value."""
    has_value = codes >= 0
    pairs = pd.DataFrame({"value": codes[has_value], "inputs": equal_inputs[has_value]}).drop_duplicates()
    return len(pairs) > pairs["value"].nunique()


@dataclass(frozen=True)
class UnitTable:
    """What is known about all units of two tables.

    Attributes:
        shares: of all units that are coarser than equal inputs.
        chosen: units by which the tables were divided: those that folds should hold out together, or a time.
        unknown: units by which the tables were divided and which have too few values in the training table for folds.
        cells: canonical cells of both tables, in which components of mixtures are counted.
        is_guess: whether there is no test table, so that the units are those of which new rows may have other values.
    """

    shares: list[UnitShare]
    chosen: list[UnitShare]
    unknown: list[UnitShare]
    cells: pd.DataFrame
    is_guess: bool = False

    @property
    def premise(self) -> str:
        """What comes before the numbers of a guess."""
        return "there is no test table, and " if self.is_guess else ""


def compare_units(
    train: pd.DataFrame, test: pd.DataFrame, columns: TableColumns, time: str | None = None
) -> UnitTable:
    """Return the table of units of a raw training and test table.

    Args:
        test: without rows if there is no test table.
        time: column with times, if it is known; others are recognised by dates or their names.
    """
    tables = _Tables(train, test, columns)
    if test.empty:
        return _guess_units(tables)
    times = [share for name in tables.names for share in _time_share(tables, name, time)]
    counted = tables.count(_single_units(tables))
    counted += tables.count(_joint_units(tables, counted))
    shares = [*times, *(each.share for each in counted)]
    in_time = [share for share in times if share.is_found]
    if in_time:  # units that follow time, such as months, are not shared either
        return UnitTable(shares, in_time[:1], [], tables.cells)
    chosen, unknown = _choose(tables, counted)
    return UnitTable(shares, [each.share for each in chosen], [each.share for each in unknown], tables.cells)


def _guess_units(tables: _Tables) -> UnitTable:
    """Return the molecules and texts with several rows, of which new rows may have other values.

    Rows are about the column in which most values repeat, and about those with at least half as many values. There are
    no units if a value stands beside more other molecules and texts than there are values, as a solvent does. They are
    unknown then, unless a column tells most rows apart.
    """
    columns = tables.columns
    names = [name for name in (*columns.smiles, *columns.text) if name in tables.names]
    shares = _repeated(tables, (Unit("value", (name,)) for name in names))
    n_repeated = max((min(share.n_values, share.at_random) for share in shares), default=0)
    similar = [share for share in shares if share.n_values >= n_repeated / 2]
    about = {name for share in similar for name in share.unit.columns}
    pools = _repeated(tables, (unit for unit in _joint_units(tables, []) if {*unit.columns} <= about))
    pooled = {name for share in pools for name in share.unit.columns}
    units = [*pools, *(share for share in similar if not {*share.unit.columns} <= pooled)]
    units = [share for share in units if share.at_random >= MIN_KNOWN * len(tables.rows)]
    n_distinct = tables.cells.groupby(names, sort=False).ngroups if names else 0
    if n_repeated >= max(MIN_GROUPS, math.sqrt(n_distinct)):
        return UnitTable(units, units, [], tables.cells, is_guess=True)
    repeating = [share for share in shares if share.at_random >= len(tables.rows) / 2]
    of_most_values = sorted(units, key=lambda share: share.n_values)[-1:]
    unknown = of_most_values if len(repeating) == len(names) else []
    return UnitTable(units, [], unknown, tables.cells, is_guess=True)


def _repeated(tables: _Tables, units: Iterable[Unit]) -> list[UnitShare]:
    """Return units with the number of rows that share a value with rows of other inputs."""
    return [replace(each.share, at_random=_n_sharing(tables, each)) for each in tables.count(units)]


def _n_sharing(tables: _Tables, counted: _Counted) -> int:
    """Return the number of rows that share a value with rows of other inputs."""
    codes = counted.codes
    pairs = pd.DataFrame({"value": codes.ravel(), "inputs": np.tile(tables.equal_inputs, len(codes))})
    n_inputs = pairs.groupby("value")["inputs"].transform("nunique").to_numpy().reshape(codes.shape)
    return int(((n_inputs > 1) & (codes >= 0)).any(axis=0).sum())


def _time_share(tables: _Tables, name: str, time: str | None) -> Iterator[UnitShare]:
    """Yield how many test rows are not later than nearly all training rows, if a column has times."""
    may_be_numbers = name == time or bool(TIME_NAME.search(name))
    if name in tables.columns.smiles or (name in tables.columns.numeric and not may_be_numbers):
        return
    cells = tables.rows[name].fillna("").astype(str).str.strip()
    distinct = pd.Series(cells.unique())
    numbers, is_invalid = to_numbers(distinct)
    if is_invalid.any():
        dates = dates_in_any_form(distinct[~is_missing_cell(distinct)])
        if dates is None:
            return
        numbers = seconds_of(dates).reindex(distinct.index)
    elif not may_be_numbers:
        return
    times = cells.map(dict(zip(distinct, numbers, strict=True)))
    train, test = times[~tables.is_test].dropna(), times[tables.is_test].dropna()
    if len(train) and len(test) and train.nunique() > 1:
        at_random = LATE * len(test)
        observed = int((test <= train.quantile(LATE)).sum())
        sizes = times.nunique(), train.nunique(), test.nunique()
        yield UnitShare(Unit("time", (name,)), *sizes, observed, at_random, math.sqrt(at_random))


def _single_units(tables: _Tables) -> Iterator[Unit]:
    """Yield units of one column."""
    columns = tables.columns
    yield Unit("prefix", (columns.id,))
    yield Unit("long_prefix", (columns.id,))
    for name in tables.names:
        yield Unit("value", (name,))
        kinds: list[str] = []
        if name in columns.smiles:
            kinds = ["scaffold", "stereo_scaffold"]
        elif name in columns.text:
            kinds = ["plain_text"]
        elif name not in columns.numeric:
            kinds = ["prefix", "long_prefix"]
        if name in [*columns.smiles, *columns.text] and _are_mixtures(tables.cells[name]):
            kinds += [f"component_{rank}" for rank in range(1, MAX_COMPONENTS + 1)]
        yield from (Unit(kind, (name,)) for kind in kinds)


def _are_mixtures(cells: pd.Series) -> bool:
    """Return whether most cells are single words with signs between molecules."""
    return bool(cells.str.fullmatch(r"[^\s.>]+([.>]+[^\s.>]+)+").mean() > 0.5)


def _joint_units(tables: _Tables, counted: list[_Counted]) -> Iterator[Unit]:
    """Yield pools of columns with common values, and pairs of columns by neither of which the tables were divided."""
    columns = tables.columns
    for role in (columns.smiles, columns.text):
        for pair in combinations(role[:MAX_PAIRED], 2):
            first, second = (set(tables.cells[name]) - {""} for name in pair)
            if len(first & second) > MIN_COMMON * min(len(first), len(second)):
                yield Unit("pool", pair)
    shares = [each.share for each in counted if each.share.unit.kind == "value" and not each.share.is_found]
    paired = [share for share in shares if 1 < share.n_values <= len(tables.rows) / 2][:MAX_PAIRED]
    for first_share, second_share in combinations(paired, 2):
        yield Unit("cell", (*first_share.unit.columns, *second_share.unit.columns))


def _choose(tables: _Tables, counted: list[_Counted]) -> tuple[list[_Counted], list[_Counted]]:
    """Return the units by which the tables were divided, and those with too few values for folds.

    The first is nearly the least shared one, of these the coarsest. Another one joins it if it is found although
    rows with one value of the first count once: then the first does not explain it. One that the others contain is
    left out.
    """
    chosen: list[_Counted] = []
    found = [each for each in counted if each.share.is_found]
    left = [each for each in found if each.share.n_train_values >= MIN_TRAIN_VALUES]
    unknown = [each for each in found if each not in left]
    while left:
        smallest = min(each.share.share for each in left)
        near = [each for each in left if each.share.share <= smallest + MAX_DIFFERENCE]
        fewest = min(each.share.n_values for each in near)
        best = next(each for each in near if each.share.n_values <= (1 + MAX_DIFFERENCE) * fewest)
        chosen.append(best)
        groups = _groups(tables, chosen)
        left, unknown = (
            [each for each in units if each is not best and _given(tables, each, groups).is_found]
            for units in (left, unknown)
        )
    for each in chosen[:-1]:
        others = [other for other in chosen if other is not each]
        if _groups(tables, others).max() == groups.max():
            chosen = others
    return chosen, unknown


def _groups(tables: _Tables, counted: list[_Counted]) -> Integers:
    """Return the connected part of each row, (n_rows,)."""
    keys = []
    for number, each in enumerate(counted):
        codes = tables.codes(each.share.unit) if len(each.rows) < len(tables.rows) else each.codes
        none = -1 - np.arange(codes.shape[1])
        keys += [np.where(row >= 0, row * len(counted) + number, none) for row in codes]
    return connected(np.array(keys))


def _given(tables: _Tables, counted: _Counted, groups: Integers) -> UnitShare:
    """Return the share of a unit where rows of a group with the same values count once per table."""
    is_test = tables.is_test[counted.rows]
    keys = np.vstack([groups[counted.rows], counted.codes, is_test])
    _, first = np.unique(keys, axis=1, return_index=True)
    return count_shared(counted.share.unit, counted.codes[:, first], is_test[first])
