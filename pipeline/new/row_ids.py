"""The column of the ids: in all three tables, with another value in each row of a table."""

import pandas as pd

from competition.cells import check_ids
from competition.molecules import canonical_smiles
from core.errors import DataError, join_first
from pipeline.new.column_roles import MAX_SAMPLED, SMILES_NAME, looks_like_smiles


def find_id(tables: dict[str, pd.DataFrame], id_column: str | None) -> tuple[str, str]:
    """Return the id column of all three tables and the reason.

    Args:
        tables: file -> table, the sample last.
        id_column: the column, if the user gives it.
    """
    train, test, sample = tables.values()
    shared = [
        name for name in sample.columns if name.strip() and all(name in table for table in tables.values())
    ]
    shared.sort(key=lambda name: bool(SMILES_NAME.search(name)))  # a sample may have molecules before the id
    first = sample.columns[0]
    are_new = first not in train or (first in test and _begin_with_ids(sample[first], test[first]))
    n_per_row, rest = divmod(len(sample), len(test))
    if id_column is None and are_new and n_per_row > 1 and not rest:
        raise DataError(
            f"the sample has {n_per_row} rows for each test row, and its ids {first!r} are in no other table. Leave "
            "out --sample, name targets and ids with --target and --id, and make its rows from the submission."
        )
    candidates = [name for name in shared if id_column in (None, name)]
    if candidates and _are_molecules(candidates[0], train):
        raise DataError(
            f"{candidates[0]!r} has molecules, which cannot be the ids, too. Add a column id with distinct values to "
            "all three tables; the sample and the test table must have the same ids."
        )
    for name in candidates:
        if _is_id(name, tables):
            if id_column is not None:
                return name, "set with --id"
            is_first = name == sample.columns[0]
            return name, "the sample's first column" if is_first else "GUESS: the first with distinct values"
    for name in candidates[:1]:
        _require_one_column(tables, shared, name)
        for file, table in tables.items():
            check_ids(table[name], f"{file}, column {name!r} (used as the id; --id changes it)")
    if id_column is None and not first.strip():
        raise DataError(
            "the first column has no name, as pandas writes the numbers of rows. Call it id in all three tables."
        )
    if id_column is None and first in train and first not in test:
        raise DataError(
            f"no id: {first!r}, the sample's first column, is not in the test table. Add a column id with "
            "distinct values to all three tables, the same in the sample and the test table, or name the ids with --id."
        )
    expected = id_column or next(filter(str.strip, sample.columns), "")
    others = {file: table for file, table in tables.items() if expected not in table}
    missing = [f"{file} (it has {', '.join(table.columns)})" for file, table in others.items()]
    raise DataError(
        f"the id column {expected!r} is missing in {' and in '.join(missing)}. All three tables need it: add "
        "the column, or choose another one with --id."
    )


def _are_molecules(name: str, table: pd.DataFrame) -> bool:
    """Return whether a column has SMILES, and not words or codes."""
    values = list(table[name].unique()[:MAX_SAMPLED])
    n_parsed = sum(canonical_smiles(value) is not None for value in values)
    return looks_like_smiles(name, values, n_parsed / max(1, len(values)))


def _is_id(name: str, tables: dict[str, pd.DataFrame]) -> bool:
    """Return whether no cell of a column is empty or twice in a table."""
    return all(table[name].is_unique and (table[name].str.strip() != "").all() for table in tables.values())


def _begin_with_ids(cells: pd.Series, ids: pd.Series) -> bool:
    """Return whether cells are ids with more behind them, such as 17_logS; the first twenty are examined."""
    return all(any(cell.startswith(each) and cell != each for each in ids) for cell in cells[:20])


def _require_one_column(tables: dict[str, pd.DataFrame], shared: list[str], name: str) -> None:
    """Raise a DataError if only several columns together are an id, or if ids repeat in the training table only.

    Args:
        tables: file -> table; the training table is the first.
        shared: columns of all three tables.
        name: the column that was taken for the id.
    """
    if any((table[name].str.strip() == "").any() for table in tables.values()):
        return
    parts = [column for column in shared if not _is_id(column, tables)]
    if not any(table.duplicated(parts).any() for table in tables.values()):
        raise DataError(
            f"no column alone identifies the rows, but {join_first(parts)} together do. Join their cells in a new "
            "column of all three tables, such as row_id, and name it with --id row_id."
        )
    (train_file, train), *others = tables.items()
    *logs, sample = tables.values()
    are_events = all(len(table) >= 2 * table[name].nunique() for table in logs)
    if sample[name].is_unique and are_events:
        raise DataError(
            f"the sample has one row for each {name!r}, and the other tables have several, such as events: make tables "
            "of one row each, with columns made of its rows (docs/recipes.md, Columns from other rows of a group)."
        )
    repeated = train[name].duplicated(keep=False)
    if repeated.any() and all(table[name].is_unique for _, table in others):
        raise DataError(
            f"{train_file}: {repeated.sum()} of {len(train)} rows share their id with another row "
            f"({join_first(train[name][repeated].unique())}), and no rows of the other tables do. If these are several "
            f"measurements, keep them: call the column {name}_group in {train_file}, number its rows in a new column "
            f"{name}, and add --group {name}_group."
        )
