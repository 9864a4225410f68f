"""Cells of raw tables: ids, numbers, times and folds. Errors name the row and its id."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.molecules import normalised_text
from competition.task import MISSING
from core.errors import DataError, Mistake, join_first
from core.user_tables import read_text_table

DATE = re.compile(r"\D*(\d{4}\D+\d+\D+\d+|\d+\D+(\d+|[A-Za-z]{3,})\D+\d{2,}).*|[A-Za-z]{3,}\D.*\d{4}")
"""Numbers and names of months in three parts, as dates have."""
NUMERIC_DATE = re.compile(r"^(\d{1,2})[./ -]+(\d{1,2})[./ -]+(\d{2}|\d{4})\b")
"""A date of numbers that does not begin with a year of four digits."""
MAX_EXACT = 2**53
"""Largest whole number up to which a float has all digits."""
MAX_NUMBER = 1e100
"""Largest absolute number that is accepted; the squares of larger ones overflow."""


def describe_rows(table: pd.DataFrame, mask: Any, id_column: str, name: str | None = None) -> str:
    """Return the first rows of a mask by number and id, with their cells of a column."""
    rows = table[np.asarray(mask)]
    ids = rows[id_column]
    cells = rows[name or id_column]
    return join_first(rows.index, lambda n: f"row {n} (id {ids[n]!r})" + (f": {cells[n]!r}" if name else ""))


def raise_if_any(
    table: pd.DataFrame,
    is_invalid: Any,
    name: str,
    id_column: str,
    where: object,
    what: str,
    advice: str = "Correct them.",
) -> None:
    """Raise a DataError if a column of a raw table has invalid cells.

    Args:
        is_invalid: (n_rows,) bool.
        where: file of the table.
        what: what the invalid cells are.
    """
    if np.any(is_invalid):
        rows = describe_rows(table, is_invalid, id_column, name)
        invalid = table[np.asarray(is_invalid)]
        errors = [
            Mistake(what, None, str(where), row, row_id, name, value, advice)
            for row, row_id, value in zip(invalid.index, invalid[id_column], invalid[name], strict=True)
        ]
        raise DataError(f"{where}: column {name!r} has {what}: {rows}. {advice}", errors)


def require_columns(table: pd.DataFrame, names: list[str], where: object) -> None:
    """Raise a DataError if a table lacks one of these columns."""
    missing = ", ".join(name for name in names if name not in table.columns)
    if missing:
        available = ", ".join(filter(None, table.columns))  # without that of pandas' row numbers
        raise DataError(
            f"{where}: missing columns: {missing}; available: {available}. Correct the file, or the YAML."
        )


def check_ids(ids: pd.Series, where: object) -> None:
    """Raise a DataError if an id is empty or not unique."""
    empty = ids.index[ids.str.strip() == ""]
    if len(empty):
        raise DataError(f"{where}: row {empty[0]} has no id. Give every row a unique id.")
    duplicates = ids[ids.duplicated()].unique()
    if len(duplicates):
        raise DataError(f"{where}: duplicate ids: {join_first(duplicates)}. Give every row its own id.")


def read_table_with_ids(file: Path, columns: list[str]) -> pd.DataFrame:
    """Return a raw CSV as text.

    Args:
        columns: columns that it must have; the first one has the ids, which must be unique.
    """
    table = read_text_table(file)
    require_columns(table, columns, file)
    check_ids(table[columns[0]], file)
    return table


def to_numbers(cells: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Return cells as floats, and a mask of those that are not finite numbers.

    Invalid cells and empty ones, NA, NaN, null and None are NaN.
    """
    text = cells.str.strip().str.replace("\N{MINUS SIGN}", "-")
    is_missing = is_missing_cell(text)
    numbers = pd.to_numeric(text.where(~is_missing, "nan"), errors="coerce").astype(float)
    is_invalid = (numbers.isna() & ~is_missing) | (numbers.abs() > MAX_NUMBER)
    return numbers.mask(is_invalid), is_invalid


def is_missing_cell(text: pd.Series) -> pd.Series:
    """Return which cells, without blanks around them, are empty, NA, NaN, null or None."""
    return text.str.lower().isin(MISSING)


def molecule_cells(cells: pd.Series) -> pd.Series:
    """Return the cells of a molecule column without blanks around them; cells such as nan or - are empty."""
    text = cells.str.strip()
    return text.mask(text.str.lower().isin({*MISSING, "-"}), "")


def parse_numbers(
    table: pd.DataFrame,
    name: str,
    id_column: str,
    where: object,
    advice: str = "Rewrite them like 1234.5, or empty them.",
) -> pd.Series:
    """Return a column as finite floats; an empty cell, NA, NaN, null or None is NaN."""
    numbers, is_invalid = to_numbers(table[name])
    what = "cells that are not finite numbers"
    raise_if_any(table, is_invalid, name, id_column, where, what, advice)
    return numbers


def iso_dates(cells: pd.Series) -> pd.Series:
    """Return ISO 8601 dates as timestamps; other cells are NaT."""
    return pd.to_datetime(cells, format="ISO8601", utc=True, errors="coerce")


def dates_in_any_form(cells: pd.Series) -> pd.Series | None:
    """Return dates in ISO or another form as timestamps; None if there is no cell, or one cannot be read.

    Where nothing tells the day from the month (`day_is_first`), the day is first.
    """
    if not len(cells):
        return None
    dates = iso_dates(cells)
    if dates.notna().all():
        return dates
    if not cells.str.fullmatch(DATE).all():
        return None
    text = cells.str.replace("[年月]", "-", regex=True).str.replace("日", "")
    day_first = day_is_first(cells) is not False
    dates = pd.to_datetime(text, format="mixed", dayfirst=day_first, utc=True, errors="coerce")
    return dates if dates.notna().all() else None


def day_is_first(cells: pd.Series) -> bool | None:
    """Return whether days are before months in dates such as 31/05/2025; None if no number above 12 tells it.

    None also for contradictions and years of two digits; False where no cell has this form.
    """
    parts = cells.str.extract(NUMERIC_DATE).dropna()
    if parts.empty:
        return False
    first, second = (parts[[0, 1]].astype(int) > 12).any()
    has_years = (parts[2].str.len() == 4).all()
    return bool(first) if has_years and first != second else None


def seconds_of(dates: pd.Series) -> pd.Series:
    """Return timestamps as seconds since 1970."""
    epoch = pd.Timestamp(0, tz="UTC").as_unit(dates.dt.unit)  # nanoseconds would end in 2262
    return (dates - epoch).dt.total_seconds()


def parse_times(table: pd.DataFrame, name: str, id_column: str, where: object) -> pd.Series:
    """Return a column of numbers or dates as numbers that increase with time.

    Raises:
        DataError: a cell is neither, or nothing tells the days of dates such as 05/06/2025 from their months.
    """
    text = table[name].str.strip()
    numbers = pd.to_numeric(text, errors="coerce")
    dates = iso_dates(text)
    if numbers.notna().sum() < dates.notna().sum():
        numbers = seconds_of(dates)
    elif numbers.isna().all() and day_is_first(text) is not None:
        dates_of_any_form = dates_in_any_form(text)
        numbers = numbers if dates_of_any_form is None else seconds_of(dates_of_any_form)
    what = "times that are neither numbers nor dates such as 2025-05-31 or 31/05/2025 (one kind per column)"
    advice = "Correct them; of ids such as E-0001321 make a column of their numbers."
    raise_if_any(table, ~np.isfinite(numbers), name, id_column, where, what, advice)
    return numbers.astype(float)


def parse_folds(table: pd.DataFrame, name: str, id_column: str, where: object) -> pd.Series:
    """Return a column of integers from -1, none missing."""
    text = table[name].str.strip()
    is_invalid = ~text.str.fullmatch(r"-1|\d{1,4}")
    what = "folds that are neither a whole number from 0 up nor -1"
    raise_if_any(table, is_invalid, name, id_column, where, what)
    return text.astype(int)


def canonical_cells(cells: pd.Series) -> pd.Series:
    """Return cells in one spelling: as numbers if all are numbers, else as normalised text; "" if empty.

    Numbers with more digits than a float keeps are text.
    """
    cells = cells.fillna("").astype(str).str.strip()
    distinct = pd.Series(cells.unique())
    numbers, is_invalid = to_numbers(distinct)
    if is_invalid.any() or (numbers.abs() > MAX_EXACT).any():
        canonical = distinct.map(lambda cell: normalised_text(cell) if cell else "")
    else:
        canonical = numbers.map(repr).where(numbers.notna(), "")
    return cells.map(dict(zip(distinct, canonical, strict=True)))


def count_new_values(train: pd.Series, test: pd.Series) -> tuple[int, int]:
    """Return the numbers of `count_new`, ignoring case, blanks and the spelling of numbers."""
    cells = canonical_cells(pd.concat([train, test], ignore_index=True))
    return count_new(cells[: len(train)], cells[len(train) :])


def count_new(train: pd.Series, test: pd.Series) -> tuple[int, int]:
    """Return the number of test cells with a value that no training row has, and of all filled ones."""
    filled = test[test != ""]
    return int((~filled.isin(train)).sum()), len(filled)


def as_written(cells: pd.Series) -> pd.Series:
    """Return text as numbers or truth values, unless a cell would change, as 007 does; empty is NaN."""
    filled = cells[cells != ""]
    if len(filled) == len(cells) and filled.isin(["True", "False"]).all():
        return cells == "True"
    numbers = pd.to_numeric(filled, errors="coerce")
    if numbers.isna().any() or filled.str.match(r"[+-]?0\d").any():
        return cells.where(cells != "")
    return numbers.reindex(cells.index)
