"""Raw tables and their cells: ids, numbers, molecules and texts, checked and made canonical; messages name
the row.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.classes import MISSING, class_numbers
from competition.config import CompetitionConfig
from competition.dataset import INPUT_KEY
from competition.errors import DataError
from competition.files import digest, read_text_table
from competition.molecules import canonical_smiles, normalised_text

LARGEST = 1e100  # larger numbers are as good as infinite: their squares overflow
MOST_SHOWN = 5


def join_first(values: Iterable[Any], form: Callable[[Any], str] = repr) -> str:
    """The first values, and how many more there are."""
    values = list(values)
    more = f" and {len(values) - MOST_SHOWN} more" if len(values) > MOST_SHOWN else ""
    return (", ".join(map(form, values[:MOST_SHOWN])) or "none") + more


def describe_rows(table: pd.DataFrame, wrong: Any, id_column: str, name: str | None = None) -> str:
    """The first rows of a mask by number and id, with the cell of one column, and how many more there are."""
    rows = table[np.asarray(wrong)]
    ids, cells = rows[id_column], rows[name or id_column]
    return join_first(rows.index, lambda n: f"row {n} (id {ids[n]!r})" + (f": {cells[n]!r}" if name else ""))


def raise_if_any(
    table: pd.DataFrame,
    wrong: Any,
    name: str,
    id_column: str,
    where: object,
    what: str,
    advice: str = "Correct them.",
) -> None:
    """Refuse a column of a table of the user's with wrong cells, (n_rows,) bool."""
    if np.any(wrong):
        raise DataError(
            f"{where}: column {name!r} has {what}: {describe_rows(table, wrong, id_column, name)}. {advice}"
        )


def require_columns(table: pd.DataFrame, names: list[str], where: object) -> None:
    """Refuse a table without these columns."""
    lacking = ", ".join(name for name in names if name not in table.columns)
    if lacking:
        has = ", ".join(table.columns)
        raise DataError(
            f"{where}: columns are lacking: {lacking} (it has {has}); correct the file, or the YAML."
        )


def check_ids(ids: pd.Series, where: object) -> None:
    """Refuse an empty or a doubled id."""
    if len(empty := ids.index[ids.str.strip() == ""]):
        raise DataError(f"{where}: row {empty[0]} has no id; give every row one of its own.")
    if len(doubled := ids[ids.duplicated()].unique()):
        raise DataError(
            f"{where}: the ids {join_first(doubled)} stand in several rows. Remove the extra rows."
        )


def read_table_with_ids(file: Path, columns: list[str]) -> pd.DataFrame:
    """A CSV of the user's as text, which has these columns, the first of them with an id of its own in each
    row.
    """
    table = read_text_table(file)
    require_columns(table, columns, file)
    check_ids(table[columns[0]], file)
    return table


def parse_numbers(table: pd.DataFrame, name: str, id_column: str, where: object) -> pd.Series:
    """A column as finite floats; an empty cell, NA, NaN, null or None is NaN."""
    text = table[name].str.strip()
    missing = text.str.lower().isin(MISSING)
    numbers = pd.to_numeric(text.where(~missing, "nan"), errors="coerce")
    wrong = (numbers.isna() & ~missing) | (numbers.abs() > LARGEST)
    raise_if_any(
        table, wrong, name, id_column, where, "cells that are no finite number", "Correct or empty them."
    )
    return numbers.astype(float)


def parse_labels(table: pd.DataFrame, name: str, config: CompetitionConfig, where: object) -> pd.Series:
    """A column of labels as floats: the number of the class of a target that has classes, else as
    `parse_numbers`.
    """
    if not config.classes or name not in config.targets:
        return parse_numbers(table, name, config.id, where)
    numbers, wrong = class_numbers(table[name], config.classes)
    what = f"labels that are none of the classes ({join_first(config.classes)})"
    raise_if_any(table, wrong, name, config.id, where, what, "Correct them, or set competition.classes.")
    return numbers


def parse_times(table: pd.DataFrame, name: str, id_column: str, where: object) -> pd.Series:
    """A column of numbers, or of ISO 8601 dates, as numbers that rise with time."""
    text = table[name].str.strip()
    numbers = pd.to_numeric(text, errors="coerce")
    dates = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
    if numbers.notna().sum() < dates.notna().sum():
        numbers = (dates - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
    what = "times that are neither a number nor a date such as 2025-05-31, or are of the other kind than most"
    raise_if_any(table, ~np.isfinite(numbers), name, id_column, where, what)
    return numbers.astype(float)


def parse_folds(table: pd.DataFrame, name: str, id_column: str, where: object) -> pd.Series:
    """A column of whole numbers from -1 up, none missing."""
    text = table[name].str.strip()
    wrong = ~text.str.fullmatch(r"-1|\d{1,4}")
    raise_if_any(
        table, wrong, name, id_column, where, "folds that are neither a whole number from 0 up nor -1"
    )
    return text.astype(int)


def clean_inputs(
    table: pd.DataFrame, config: CompetitionConfig, where: object, in_train: bool
) -> tuple[pd.DataFrame, np.ndarray]:
    """Id, canonical inputs and the key of the whole input; and which rows have no usable input, (n_rows,)
    bool.

    Without input columns the key tells every row from all others, and a training row from a test row of the
    same id.
    """
    clean = pd.DataFrame({config.id: table[config.id]})
    dropped = np.zeros(len(table), dtype=bool)
    for name in config.smiles + config.text:
        if name in config.smiles:
            clean[name] = [
                canonical_smiles(cell.strip() or config.empty_smiles or "") or "" for cell in table[name]
            ]
            wrong, what = (clean[name] == "").to_numpy(), "cells that are no valid SMILES"
        else:
            clean[name] = table[name]
            wrong, what = (table[name].map(normalised_text) == "").to_numpy(), "empty texts"
        if config.unparsable == "error":
            advice = (
                "Correct them, or set competition.unparsable: drop (for predict, before the run it "
                "predicts with)"
            )
            if name in config.smiles:
                advice += ', or empty_smiles: "[Ar]" where an empty cell means no molecule'
            raise_if_any(table, wrong, name, config.id, where, what, f"{advice}.")
        dropped |= wrong
    if dropped.all():
        raise DataError(f"{where} has no row whose molecules and texts can be read.")
    for name in config.numeric:
        clean[name] = parse_numbers(table, name, config.id, where)
    for name in config.categorical:
        clean[name] = table[name].str.strip()
    if config.inputs:
        clean[INPUT_KEY] = input_keys(clean, config)
    else:
        rows = ("train " if in_train else "test ") + table[config.id]
        clean[INPUT_KEY] = [digest([row]) for row in rows]
    return clean, dropped


def input_keys(clean: pd.DataFrame, config: CompetitionConfig) -> list[str]:
    """Return the key of all inputs of each clean row: canonical molecules, normalised texts, numbers,
    categories.
    """
    keys = clean[config.inputs].copy()
    for name in config.text:
        keys[name] = clean[name].map(normalised_text)
    for name in config.numeric:
        keys[name] = clean[name].map(repr)
    return [digest(list(row)) for row in keys.itertuples(index=False)]
