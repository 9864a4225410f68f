"""Make the folds of the training rows: columns of the prepared tables, and folds/folds.csv to look at.

Folds are kept as long as the settings, the rows and this code stay the same.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.cells import parse_folds, read_table_with_ids
from competition.clean import N_INPUT_KEYS, keys_of_inputs, keys_of_near_inputs
from competition.config import CompetitionConfig
from competition.dataset import FOLD, GROUP, TIME, read_prepared, without_extra_rows
from competition.labels import labels_or_indicators
from competition.prepare import Prepared, prepare, write_prepared
from competition.prepare import describe as describe_tables
from core.errors import DataError, join_first
from core.files import as_csv, content_digest, derive_seed, digest, read_json, write_table
from core.modules import code_digest_of
from core.paths import Paths
from core.types import Integers
from core.user_code import changed_files, merge_opened, opened_files, user_code_files
from core.user_tables import read_text_table
from folds.groups import connected
from folds.kinds import FoldsConfig
from folds.recommended import fold_warnings, units_of_competition
from folds.soundness import group_warnings, missing_class_warnings
from folds.splitters import SplitData
from folds.unit_values import group_keys

MIN_SHARE_OF_OTHERS = 0.2
"""Share of the rows that all folds without the largest group need together, if there are few folds."""


def make_folds(competition: CompetitionConfig, config: FoldsConfig, tables: Prepared) -> Prepared:
    """Return prepared tables with the columns FOLD and GROUP, and `folds` in their report.

    The report also has warnings about what the folds hold out (`folds.recommended.fold_warnings`).
    """
    tables = _with_folds_of(competition, config, tables)
    units, raw_train = units_of_competition(competition)
    warnings = fold_warnings(units, raw_train, competition, config, tables.train)
    return tables._replace(
        report={**tables.report, "folds": {**tables.report["folds"], "unit_warnings": warnings}}
    )


def _with_folds_of(competition: CompetitionConfig, config: FoldsConfig, tables: Prepared) -> Prepared:
    """Return prepared tables with their folds and groups.

    Saved folds are reused if the same code made them from the same rows, settings and seed.
    """
    paths = competition.paths
    settings = config.model_dump(mode="json")
    settings |= competition.model_dump(mode="json", include={"group", "time", "fold_column"})
    if config.file:
        settings["file"] = as_csv(read_text_table(config.file))
    digests = {"train": content_digest(tables.train), "test": content_digest(tables.test)}
    code = code_digest_of(Path(__file__), *filter(Path.is_file, user_code_files(settings)))
    made_from = digest({**digests, "folds": settings, "seed": competition.seed, "code": code})
    report: dict[str, Any] = {"made_from": made_from, "time_ordered": config.is_ordered_in_time}
    saved = _saved_folds(paths, made_from, settings)
    if saved is not None:
        return _with_folds(tables, *saved)
    train_rows = without_extra_rows(tables.train)
    folds, groups = assign_folds(config, train_rows, competition, competition.seed)
    report["warnings"] = group_warnings(config, folds, train_rows, competition)
    # Only user-defined folds split groups, and their groups are rows with equal inputs.
    report["inputs_in_several_folds"] = int((pd.Series(folds).groupby(groups).nunique() > 1).sum())
    extra = tables.train[len(train_rows) :]
    others = pd.concat([extra, tables.test], ignore_index=True)
    other_groups = groups_outside_folds(config, train_rows, groups, others, competition)
    extra_groups, test_groups = np.split(other_groups, [len(extra)])
    n_joint = (extra_groups < 0).sum()
    if n_joint:
        report["warnings"].append(
            f"WARNING: {n_joint} of {len(extra)} extra rows are in two groups, and are not trained on"
        )
    all_folds = np.append(folds, np.full(len(extra), -1))
    of_train = pd.DataFrame({FOLD: all_folds, GROUP: np.append(groups, extra_groups)})
    of_test = pd.DataFrame({GROUP: test_groups})
    report["columns"] = [content_digest(of_train), content_digest(of_test)]
    report["opened"] = opened_files(settings)
    made = _with_folds(tables, of_train, of_test, report)
    _print_changed_folds(paths, made.train, competition.id)
    return made


def _print_changed_folds(paths: Paths, train: pd.DataFrame, id_column: str) -> None:
    """Print how many rows have another fold than in the tables of the previous command, if some have.

    Nothing is printed if these tables have other rows.
    """
    try:
        before = read_prepared(paths.train)[[id_column, FOLD]]
    except (DataError, KeyError, FileNotFoundError):
        return
    if list(before[id_column]) != list(train[id_column]):
        return
    n_changed = (before[FOLD].to_numpy() != train[FOLD].to_numpy()).sum()
    if n_changed:
        print(
            f"{n_changed} of {len(train)} training rows have another fold than before, since settings or the "
            "rules of folds have changed; finished jobs are trained again"
        )


def _with_folds(
    tables: Prepared, of_train: pd.DataFrame, of_test: pd.DataFrame, report: dict[str, Any]
) -> Prepared:
    """Return tables with the columns of folds and groups, and the report about these."""
    train = tables.train.assign(**{name: of_train[name].to_numpy() for name in (FOLD, GROUP)})
    test = tables.test.assign(**{GROUP: of_test[GROUP].to_numpy()})
    opened = merge_opened(tables.report["opened"], report["opened"])
    return tables._replace(
        train=train, test=test, report={**tables.report, "folds": report, "opened": opened}
    )


def _saved_folds(
    paths: Paths, made_from: str, settings: dict[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]] | None:
    """Return the saved fold and group columns of both tables, and their report; None if they are not valid.

    Args:
        settings: dumped settings. The files that their user code opened must not have changed since.
    """
    if not paths.prepare_report.exists():
        return None
    try:
        report = read_json(paths.prepare_report, "folds")["folds"]
        if report["made_from"] != made_from or changed_files(settings, report["opened"]):
            return None
        of_train = read_prepared(paths.train)[[FOLD, GROUP]]
        of_test = read_prepared(paths.test)[[GROUP]]
    except (DataError, KeyError, FileNotFoundError):
        return None
    is_sound = report.get("columns") == [content_digest(of_train), content_digest(of_test)]
    return (of_train, of_test, report) if is_sound else None


def describe(tables: Prepared, competition: CompetitionConfig) -> str:
    """Return the size of each fold, its mean labels or class shares, and warnings, as text."""
    report = tables.report["folds"]
    y = tables.train[competition.targets]
    folds = tables.train[FOLD].to_numpy()
    absent = missing_class_warnings(y, competition.classes, folds, report["time_ordered"])
    return "\n".join([*report["warnings"], *absent, describe_sizes(tables, competition)])


def describe_sizes(tables: Prepared, competition: CompetitionConfig) -> str:
    """Return the size of each fold, and its mean labels or class shares, as text."""
    lines = []
    n_divided = tables.report["folds"]["inputs_in_several_folds"]
    if n_divided:
        lines.append(f"{n_divided} inputs are in several folds, so scores are optimistic")
    y = tables.train[competition.targets]
    folds = tables.train[FOLD].to_numpy()
    classes = competition.classes
    means = labels_or_indicators(y, classes).groupby(folds).mean()
    means = means.add_prefix("share of " if classes else "mean ").rename_axis("fold").reset_index()
    means.insert(1, "rows", y.groupby(folds).size().to_numpy())
    if classes:  # one line per class, since there may be many
        lines.append(means.astype(object).T.to_string(header=False, float_format="{:.4g}".format))
    else:
        lines.append(means.to_string(index=False, float_format="{:.4g}".format))
    return "\n".join(lines)


def write_tables(tables: Prepared, competition: CompetitionConfig) -> None:
    """Write prepared tables with folds, and folds.csv; a file with the same content is not touched."""
    write_prepared(tables, competition)
    file = competition.paths.folds
    folds = without_extra_rows(tables.train)[[competition.id, FOLD]].set_axis(["id", "fold"], axis=1)
    if not file.exists() or file.read_bytes() != as_csv(folds).encode():
        write_table(file, folds)


def run(competition: CompetitionConfig, config: FoldsConfig, n_workers: int | None = None) -> str:
    """Prepare and write the tables of a competition with their folds; return lines about both.

    Args:
        n_workers: see `prepare`.
    """
    tables = make_folds(competition, config, prepare(competition, n_workers))
    write_tables(tables, competition)
    return f"{describe_tables(tables.report)}\n{describe(tables, competition)}"


def assign_folds(
    config: FoldsConfig, table: pd.DataFrame, competition: CompetitionConfig, seed: int
) -> tuple[Integers, Integers]:
    """Return fold and group of each row of the prepared training table, (n_rows,) each.

    They do not depend on the order of rows. A user-defined fold may be -1. Rows of a group share a fold,
    except in user-defined folds with `allow_split_duplicates`. Fewer groups than folds make a fold each.
    """
    kind = config.definition
    if kind.needs and not getattr(competition, kind.needs):
        raise DataError(
            f"folds.kind {config.kind} needs competition.{kind.needs}. Set it, or choose another kind."
        )
    order = np.argsort(table[competition.id].to_numpy().astype(str), kind="stable")
    rows = table.iloc[order].reset_index(drop=True)
    groups = compute_groups(config, rows, competition)
    if config.file:
        folds = read_folds(config.file, list(rows[competition.id]), competition.id)
        where = str(config.file)
    elif kind.split is None:
        folds = rows[FOLD].to_numpy(dtype=np.int64)
        where = "competition.fold_column"
    else:
        if not kind.is_ordered_in_time:
            config = config.model_copy(update={"n_folds": min(config.n_folds, int(groups.max()) + 1)})
            _require_divisible(groups, config.n_folds, rows[competition.id])
        data = SplitData(
            y=rows[competition.targets],
            is_classification=bool(competition.classes),
            groups=groups.copy(),
            times=rows[TIME].to_numpy() if TIME in rows else None,
            n_folds=config.n_folds,
            seed=derive_seed(seed, "folds") % 2**31,
            rows=rows.copy(),
            smiles=competition.smiles,
        )
        folds = kind.split(data)
        where = f"folds.kind {config.title}"
    _require_valid(config, folds, groups, rows[competition.id], where)
    if config.takes_folds and competition.units:
        groups = _with_units(config, rows, competition, folds, groups)
    original_order = np.argsort(order)
    return folds[original_order], groups[original_order]


def _with_units(
    config: FoldsConfig,
    rows: pd.DataFrame,
    competition: CompetitionConfig,
    folds: Integers,
    groups: Integers,
) -> Integers:
    """Return the groups of rows, (n_rows,), with those of `competition.group` unless the user's folds divide one."""
    keys = group_keys(rows, competition, config.similarity, len(rows))
    joined = connected(np.array([*keys, groups], dtype=object))
    is_divided = (pd.Series(folds).groupby(joined).nunique() > 1).any()
    return groups if is_divided else joined


def _require_valid(
    config: FoldsConfig, folds: Integers, groups: Integers, ids: pd.Series, where: str
) -> None:
    """Raise a DataError if folds are not numbered 0 to n-1 (or -1), or divide a group.

    With `allow_split_duplicates` they may divide groups.
    """
    numbers = np.unique(folds[folds >= 0]).tolist()
    n_folds = max(2, len(numbers)) if config.is_user_defined else config.n_folds
    if numbers != list(range(n_folds)) or len(folds) != len(ids):
        advice = "Renumber them" if config.is_user_defined else "Lower folds.n_folds"
        raise DataError(
            f"{where} must give each of {len(ids)} rows a fold of 0 to n-1, with n of at least 2, or -1; "
            f"got {numbers} for {len(folds)} rows. {advice}."
        )
    split_groups = np.flatnonzero(pd.Series(folds).groupby(groups).nunique() > 1)
    if len(split_groups) and not config.allow_split_duplicates:
        first = np.flatnonzero(groups == split_groups[0])[:3]
        examples = ", ".join(f"{ids[i]!r} in {folds[i]}" for i in first)
        raise DataError(
            f"{where} must keep the rows of a group in one fold "
            "(such as equal inputs, also if only salts differ); "
            f"{len(split_groups)} are in several (the first: {examples}). Correct the folds. "
            "Folds of a column or a file may divide equal inputs with folds.allow_split_duplicates: true."
        )


def _require_divisible(groups: Integers, n_folds: int, ids: pd.Series) -> None:
    """Raise a DataError if there is one group, or if one leaves too few rows for the others."""
    sizes = np.bincount(groups)
    n_others = len(groups) - sizes.max()
    if n_others < min(MIN_SHARE_OF_OTHERS, 1 / n_folds) * len(groups):
        id_in_largest = ids[int(np.argmax(groups == sizes.argmax()))]
        # With so many folds, one of them needs no more rows than there are outside the largest group.
        min_folds = math.ceil(len(groups) / n_others) if n_others else math.inf
        advice = f"Set folds.n_folds to {min_folds}, split" if min_folds <= len(sizes) else "Split"
        raise DataError(
            f"{len(sizes)} groups of rows (rows with equal inputs, or of one group, scaffold or cluster) "
            f"cannot be divided into {n_folds} folds; the largest, with id {id_in_largest!r}, "
            f"has {sizes.max()} of {len(groups)} rows, and all others {n_others}. "
            f"{advice} that group, or choose another folds.kind."
        )


def compute_groups(config: FoldsConfig, rows: pd.DataFrame, competition: CompetitionConfig) -> Integers:
    """Return the group of each row of the prepared training table, (n_rows,), numbered from 0.

    Rows with equal inputs are one group, also if only salts make their molecules differ, and copies of a text
    unless the user gives the folds. So are rows with equal keys of the kind of folds (its `row_keys`), and
    all rows that are connected by such pairs.
    """
    return connected(_keys(config, rows, competition, len(rows)))


def groups_outside_folds(
    config: FoldsConfig,
    rows: pd.DataFrame,
    groups: Integers,
    others: pd.DataFrame,
    competition: CompetitionConfig,
) -> Integers:
    """Return the group of rows that are in no fold, (n_others,): extra training rows and test rows.

    A row gets the group of the training rows with its `competition.group`, scaffold or cluster, otherwise
    the group of the training rows with a copy of its texts or with its inputs, otherwise a new one. If the
    first are in another group than a salt of its molecule, it gets -1 and is not trained on. The groups of
    the training rows stay unchanged.

    Args:
        rows: prepared training rows with the groups (n_rows,).
        others: prepared rows; an empty or missing `competition.group` belongs to no group.
    """
    n = len(rows)
    all_rows = pd.concat([rows, others], ignore_index=True)
    has_units = config.takes_folds and competition.units
    units = group_keys(all_rows, competition, config.similarity, n) if has_units else []
    whole = [key for key in units if (pd.Series(groups).groupby(key[:n].to_numpy()).nunique() == 1).all()]
    keys = np.array([*whole, *_keys(config, all_rows, competition, n)], dtype=object)
    group_of_key = dict(zip(keys[:, :n].ravel(), np.tile(groups, len(keys)), strict=True))
    matches = pd.DataFrame([pd.Series(key).map(group_of_key) for key in keys[:, n:]], dtype=np.float64)
    joined = matches.bfill().iloc[0]
    # A job excludes extra rows that have the group or the input of a held-out row, but does not know their
    # salts.
    joined[(matches.nunique() > 1) & matches.iloc[-N_INPUT_KEYS].isna()] = -1
    is_new = joined.isna().to_numpy()
    joined[is_new] = groups.max() + 1 + connected(keys[:, n:][:, is_new])
    return joined.to_numpy().astype(np.int64)


def _keys(
    config: FoldsConfig, rows: pd.DataFrame, competition: CompetitionConfig, n_in_folds: int
) -> NDArray[Any]:
    """Return the keys of rows, (n_keys, n_rows) text: rows that share a key belong together.

    The keys of the inputs are last.

    Args:
        rows: prepared rows; the first `n_in_folds` are in folds.
    """
    keys = keys_of_inputs(rows, competition)
    if competition.text and not config.is_user_defined:
        keys = [keys_of_near_inputs(rows, competition, n_in_folds), *keys]
    row_keys = config.definition.row_keys
    if row_keys is not None:
        keys = [*row_keys(rows, competition, config.similarity, n_in_folds), *keys]
    return np.array(keys, dtype=object)


def read_folds(path: Path, ids: list[str], id_column: str = "id") -> Integers:
    """Return the fold of each id, (n_rows,), in the order of `ids`; the file may call their column id, too."""
    key = id_column if id_column in read_text_table(path) else "id"
    table = read_table_with_ids(path, [key, "fold"])
    unknown = sorted(set(table[key]) - set(ids))
    missing = sorted(set(ids) - set(table[key]))
    if unknown or missing:
        raise DataError(
            f"{path} must have the id of every training row once; {len(unknown)} of its ids are not training "
            f"rows ({join_first(unknown)}), and {len(missing)} rows are missing ({join_first(missing)}). "
            "Correct the file."
        )
    return parse_folds(table, "fold", key, path).set_axis(table[key]).loc[ids].to_numpy(dtype=np.int64)
