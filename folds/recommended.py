"""The folds that the table of units recommends, and warnings about others."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from competition.cells import parse_times
from competition.config import CompetitionConfig
from competition.dataset import FOLD, TableColumns, without_extra_rows
from competition.swap import in_all_orders
from competition.units import Unit
from core.errors import DataError
from core.types import Integers
from core.user_tables import read_text_table
from folds.groups import connected
from folds.kinds import FoldsConfig
from folds.splitters import blocks_in_time
from folds.training_rows import trains_fold
from folds.unit_values import canonical_table, codes_of, values_of
from folds.units import MAX_SHARE, MIN_AT_RANDOM, UnitShare, UnitTable, compare_units, count_shared

MAX_PART = 0.5
"""Share of the training rows up to which folds can hold out a connected part of them."""
MIN_NEW = 2.5
"""Number of rows of a random split that share a value of a column from which it is named if none does."""
NOT_KNOWN = "the error of the test rows is not known"
NEW_NOT_KNOWN = (
    "the error of new values is not known; competition.group (--group) holds out those of one column"
)


@dataclass(frozen=True)
class Recommendation:
    """Folds that hold out what the test table holds out.

    Attributes:
        reason: the observed and the random number of shared test rows; "" if no unit has enough rows.
        warnings: what no folds can hold out.
        groups: (n_train,) rows that folds keep together.
        units: for `competition.group`.
        time: for `competition.time`; "" without one.
    """

    kind: str
    reason: str
    warnings: list[str]
    groups: Integers
    units: list[Unit]
    time: str = ""

    @property
    def setting(self) -> str:
        """The recommended settings as text, such as `folds.kind scaffold`."""
        if self.time:
            return f"folds.kind {self.kind} with competition.time: {self.time}"
        if not self.units:
            return f"folds.kind {self.kind}"
        settings = [unit.setting for unit in self.units]
        group = settings[0] if len(settings) == 1 else settings
        return f"folds.kind {self.kind} with competition.group: {group}"

    def n_folds(self, train: pd.DataFrame, id_column: str, n_folds: int) -> int:
        """Return the number of folds, at most `n_folds`, that the raw training rows can be divided into."""
        if self.time:
            return _n_blocks(train, self.time, id_column, self.groups, n_folds + 1) - 1
        return min(n_folds, int(self.groups.max()) + 1)


def recommend(units: UnitTable, train: pd.DataFrame, columns: TableColumns, stratify: bool) -> Recommendation:
    """Return the folds for a raw training table: by time, by the chosen units, or at random.

    Args:
        stratify: whether folds have similar targets: there are classes, or there is one target.
    """
    chosen = [share.unit for share in units.chosen]
    not_known = NEW_NOT_KNOWN if units.is_guess else NOT_KNOWN
    reason = units.premise + "; ".join(_describe(share, units) for share in units.chosen)
    warnings = [
        f"{units.premise}{_describe(share, units)}; the training table has only {share.n_train_values} values, "
        f"so {not_known}"
        for share in units.unknown
    ]
    if chosen and chosen[0].kind == "time":
        time = chosen[0].columns[0]
        groups = tied_rows([], train, columns)
        n_blocks = _n_blocks(train, time, columns.id, groups, 3)
        if n_blocks == 3:
            return Recommendation("time", reason, [], groups, [], time)
        obstacle = (
            "the times of the training table, of rows with equal inputs the latest, do not make three blocks"
        )
        if n_blocks == 0:
            obstacle = "folds in time need a time in every row: a number, or a date such as 2025-05-31"
        warnings = [f"{reason}; {obstacle}, so {NOT_KNOWN}"]
        chosen = []
    groups = tied_rows(chosen, train, columns, units.cells)
    n_largest = np.bincount(groups).max()
    if chosen and n_largest > MAX_PART * len(groups):
        connected_rows = f"{n_largest} of {len(groups)} training rows are connected, also by equal inputs"
        warnings.append(f"{reason}; {connected_rows}, so {not_known}")
        chosen = []
        groups = tied_rows([], train, columns)
    if not chosen:
        kind = "stratified" if stratify else "kfold"
        if units.is_guess:
            return Recommendation(kind, "", warnings, groups, [])
        reason = "the folds cannot hold out what divides the tables" if warnings else _describe_random(units)
        warnings += _describe_new_values(units, len(units.cells) - len(train))
        return Recommendation(kind, reason, warnings, groups, [])
    if units.is_guess:
        reason = f"GUESS: {reason}; --folds kfold if rows to predict have known values, too"
    is_scaffold = len(chosen) == 1 and chosen[0].kind in ("scaffold", "stereo_scaffold")
    if is_scaffold and chosen[0].columns[0] == columns.smiles[0]:
        return Recommendation("scaffold", reason, warnings, groups, [])
    return Recommendation("stratified_group" if stratify else "group", reason, warnings, groups, chosen)


def _n_blocks(train: pd.DataFrame, time: str, id_column: str, groups: Integers, n_blocks: int) -> int:
    """Return how many blocks in time, at most `n_blocks`, a raw table makes; 0 if a time is missing.

    Args:
        groups: (n_rows,); rows of a group are in one block.
    """
    try:
        times = parse_times(train, time, id_column, "the training table").to_numpy()
    except DataError:
        return 0
    while len(np.unique(blocks_in_time(times, groups, n_blocks))) < n_blocks:
        n_blocks -= 1
    return n_blocks


def tied_rows(
    units: list[Unit], table: pd.DataFrame, columns: TableColumns, counted: pd.DataFrame | None = None
) -> Integers:
    """Return the connected part of each row of a raw table, (n_rows,), by units and equal inputs.

    A unit of a column has the values of those that it may change places with (`competition.swap`), too.

    Args:
        counted: `UnitTable.cells`; None to count components in the table itself.
    """
    inputs = [name for name in columns.inputs if name in table]
    names = list(inputs)
    for unit in units:
        names += unit.columns
    # Without units, only the number of parts matters, for which raw cells suffice.
    cells = canonical_table(table, names, columns.smiles) if units else table
    single: Integers = np.arange(len(table), dtype=np.int64)
    keys = [cells.groupby(inputs, sort=False).ngroup().to_numpy(dtype=np.int64) if inputs else single]
    for unit in units:
        source = cells if counted is None else counted
        orders = [Unit(unit.kind, names) for names in in_all_orders(unit.columns, columns.swap)]
        codes = codes_of([values for each in orders for values in values_of(each, cells, source)])
        first_free = max(int(key.max()) for key in keys) + 1
        for row in codes:
            keys.append(np.where(row >= 0, row + first_free, -1 - single))
    return connected(np.array(keys))


def _describe(share: UnitShare, units: UnitTable) -> str:
    """Return the two numbers of a unit as text."""
    if units.is_guess:
        return (
            f"{share.at_random:.0f} of {len(units.cells)} rows share {share.unit} "
            f"({share.n_values} values) with rows of other inputs"
        )
    if share.unit.kind == "time":
        return (
            f"{share.observed} test rows are as early ({share.unit.columns[0]!r}) as 95 % of the training "
            f"rows, and {share.at_random:.0f} would be in a random split"
        )
    return (
        f"{share.observed} test rows share {share.unit} with a training row, "
        f"and {share.at_random:.0f} would in a random split"
    )


def _describe_random(units: UnitTable) -> str:
    """Return the two numbers of the unit that is shared least; "" if no unit is shared by enough rows."""
    shares = [share for share in units.shares if share.at_random >= MIN_AT_RANDOM and not share.is_found]
    if not shares:
        return ""
    least_shared = min(shares, key=lambda share: share.share)
    return f"by these columns the test table looks like a random split: {_describe(least_shared, units)}"


def _describe_new_values(units: UnitTable, n_test_rows: int) -> list[str]:
    """Return what to do about the column of fewest values that no row of a small test table shares; [] without one."""
    unshared = [
        share
        for share in units.shares
        if share.unit.kind == "value"
        and not share.observed
        and max(MIN_NEW, 0.5 * n_test_rows) <= share.at_random < MIN_AT_RANDOM
    ]
    if not unshared:
        return []
    share = min(unshared, key=lambda share: share.n_values)
    return [
        f"{_describe(share, units)}, too few rows to tell; if a hidden test table has new values only, set --group "
        f"{share.unit.columns[0]!r}"
    ]


def can_stratify(competition: CompetitionConfig) -> bool:
    """Return whether folds can have similar targets."""
    return bool(competition.classes) or len(competition.targets) == 1


def units_of_competition(competition: CompetitionConfig) -> tuple[UnitTable, pd.DataFrame]:
    """Return the table of units of a competition, and its raw training table.

    Without a test table, no row is a test row in the table of units.
    """
    train = read_text_table(competition.train)
    test = read_text_table(competition.test)
    if not competition.has_test_table:
        test = test.head(0)
    return compare_units(train, test, competition.columns, competition.time), train


def fold_warnings(
    units: UnitTable,
    train: pd.DataFrame,
    competition: CompetitionConfig,
    config: FoldsConfig,
    prepared: pd.DataFrame,
) -> list[str]:
    """Return warnings about folds that split what the test table holds out, or hold out what it shares.

    Args:
        train: raw training table.
        prepared: prepared training table with its folds.
    """
    too_wide = [
        f"WARNING: folds.kind {config.title} holds out what the test table does not: {_describe(share, units)}. "
        "The expected score may be too pessimistic"
        for share in _held_out(units, competition, config)
    ]
    # Without a test table, folds that hold something out say what the user expects of new rows.
    is_settled = units.is_guess and (config.definition.row_keys or config.is_ordered_in_time)
    if is_settled or not (units.chosen or units.unknown):
        return too_wide
    rows = without_extra_rows(prepared)
    folds = rows[FOLD].to_numpy(dtype=np.int64)
    raw = train.set_index(competition.id, drop=False).loc[rows[competition.id]].reset_index(drop=True)
    best = recommend(units, raw, competition.columns, can_stratify(competition))
    warnings = [f"WARNING: {warning}" for warning in best.warnings]
    if best.kind in ("kfold", "stratified"):  # no folds can hold the units out
        return [*warnings, *too_wide]
    for share in units.chosen:
        if share.unit.kind == "time":
            is_split = not config.is_ordered_in_time
            here = f"folds.kind {config.title} has no order in time"
        else:
            in_folds = _share_in_folds(
                share.unit, raw, units.cells, competition, folds, config.is_ordered_in_time
            )
            is_split = in_folds.share > MAX_SHARE
            here = (
                f"{in_folds.observed} of {(folds >= 0).sum()} held-out rows (folds.kind {config.title}) "
                "share it with rows that train"
            )
        if is_split:
            warnings.append(
                f"WARNING: {units.premise}{_describe(share, units)}, but {here}: the expected score may be too "
                f"optimistic. ./run.sh folds recommends {best.setting}"
            )
    return [*warnings, *too_wide]


def _share_in_folds(
    unit: Unit,
    raw: pd.DataFrame,
    counted: pd.DataFrame,
    competition: CompetitionConfig,
    folds: Integers,
    in_time_order: bool,
) -> UnitShare:
    """Return how many held-out rows share a unit with rows that train the models of their fold.

    Args:
        raw: raw training table.
        counted: `UnitTable.cells`.
    """
    cells = canonical_table(raw, unit.columns, competition.smiles)
    codes = codes_of(values_of(unit, cells, counted))
    observed = 0
    at_random = 0.0
    for fold in range(int(folds.max()) + 1):
        used = trains_fold(folds, fold, in_time_order) | (folds == fold)
        share = count_shared(unit, codes[:, used], folds[used] == fold)
        observed += share.observed
        at_random += share.at_random
    return UnitShare(unit, 0, 0, 0, observed, at_random, 0.0)


def _held_out(units: UnitTable, competition: CompetitionConfig, config: FoldsConfig) -> list[UnitShare]:
    """Return the share of the first configured unit if the tables share all of them as at random, or none."""
    molecules = tuple(competition.smiles[:1])
    configured = {
        "group": competition.units,
        "stratified_group": competition.units,
        # Both are held out, and the tables may have been divided by either.
        "scaffold": [Unit("scaffold", molecules), Unit("stereo_scaffold", molecules)],
        "time": [Unit("time", (str(competition.time),))],
    }.get(config.kind, [])
    shares = [share for share in units.shares if share.unit in configured]
    are_shared = all(share.at_random >= MIN_AT_RANDOM and share.share > MAX_SHARE for share in shares)
    return shares[:1] if are_shared else []
