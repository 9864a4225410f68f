"""Cells of a raw table: ids, numbers, molecules and texts, checked and made canonical; messages name the row."""

from __future__ import annotations

import numpy as np
import pandas as pd

from competition.config import CompetitionConfig
from competition.errors import DataError
from competition.files import digest
from competition.molecules import canonical_smiles, normalised_text
from competition.tables import INPUT_KEY

LARGEST = 1e100  # larger numbers are as good as infinite: their squares overflow
MISSING = {"", "na", "n/a", "nan", "null", "none"}


def check_ids(ids: pd.Series, where: object) -> pd.Series:
    """The ids, if each row has one of its own.

    Raises:
        DataError: for an empty or a doubled id.
    """
    empty = (ids.str.strip() == "").to_numpy()
    if empty.any():
        raise DataError(f"{where}: every row must have an id; row {int(empty.argmax()) + 2} has none.")
    doubled = ids[ids.duplicated()].unique()
    if len(doubled):
        raise DataError(f"{where}: ids must be unique; doubled: {listed(doubled)}. Remove the extra rows.")
    return ids


def parse_numbers(table: pd.DataFrame, name: str, id_column: str, where: object) -> pd.Series:
    """A column as finite floats; an empty cell, NA, NaN, null or None is NaN.

    Raises:
        DataError: for other text or an infinite number; names the row.
    """
    text = table[name].str.strip()
    numbers = pd.to_numeric(text.where(~text.str.lower().isin(MISSING), "nan"), errors="coerce")
    wrong = (numbers.isna() & ~text.str.lower().isin(MISSING)) | (numbers.abs() > LARGEST)
    if wrong.any():
        first = int(wrong.to_numpy().argmax())
        raise DataError(
            f"{where}: column {name!r} must hold finite numbers or nothing; row {first + 2} "
            f"(id {table[id_column][first]!r}) has {table[name][first]!r}"
            + (f", and {int(wrong.sum()) - 1} more rows." if wrong.sum() > 1 else ".")
        )
    return numbers.astype(float)


def parse_times(table: pd.DataFrame, name: str, id_column: str, where: object) -> pd.Series:
    """A column of numbers, or of ISO 8601 dates, as numbers that rise with time.

    Raises:
        DataError: for a cell that is neither, and for one of the other kind than most; names the row.
    """
    text = table[name].str.strip()
    numbers = pd.to_numeric(text, errors="coerce")
    dates = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
    if numbers.notna().sum() < dates.notna().sum():
        numbers = (dates - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
    wrong = ~np.isfinite(numbers)
    if wrong.any():
        raise DataError(
            f"{where}: the time column {name!r} must hold a number or a date such as 2025-05-31 in every row, and one "
            f"kind alone; it does not in {named_rows(table, wrong, id_column)}. Fill or correct it."
        )
    return numbers.astype(float)


def parse_folds(table: pd.DataFrame, name: str, id_column: str, where: object) -> pd.Series:
    """A column of whole numbers from -1 up, none missing.

    Raises:
        DataError: for another cell; names the row.
    """
    text = table[name].str.strip()
    wrong = ~text.str.fullmatch(r"-1|\d{1,4}")
    if wrong.any():
        raise DataError(
            f"{where}: the fold column {name!r} must hold a whole number from 0 up, or -1, in every row; it does "
            f"not in {named_rows(table, wrong, id_column)} (the first has {table[name][wrong].iloc[0]!r}). "
            "Fill or correct it."
        )
    return text.astype(int)


def clean_inputs(
    table: pd.DataFrame, config: CompetitionConfig, where: str, in_train: bool
) -> tuple[pd.DataFrame, np.ndarray]:
    """Id, canonical inputs and the key of the whole input; and which rows have no usable input, (n_rows,) bool.

    Where the competition has no input column, the key tells every row from all others; `in_train` tells a training
    row from a test row of the same id.

    Raises:
        DataError: if a molecule does not parse or a text is empty, unless `unparsable: drop` is set.
    """
    clean = pd.DataFrame({config.id: table[config.id]})
    keys = pd.DataFrame(index=table.index)
    dropped = np.zeros(len(table), dtype=bool)
    for name in config.smiles:
        none = config.empty_smiles or ""
        canonical = {smiles: canonical_smiles(smiles.strip() or none) for smiles in table[name].unique()}
        clean[name] = table[name].map(canonical)
        keys[name] = clean[name]
        dropped |= _unusable(table, name, clean[name].isna().to_numpy(), "a SMILES that RDKit can parse", config, where)
        clean[name] = clean[name].fillna("")
    for name in config.text:
        clean[name] = table[name]
        keys[name] = table[name].map(normalised_text)
        dropped |= _unusable(table, name, (keys[name] == "").to_numpy(), "text", config, where)
    for name in config.numeric:
        clean[name] = parse_numbers(table, name, config.id, where)
        keys[name] = clean[name].map(repr)
    for name in config.categorical:
        clean[name] = keys[name] = table[name].str.strip()
    if not config.inputs:
        keys["row"] = ("train " if in_train else "test ") + table[config.id]
    clean[INPUT_KEY] = [digest(list(row)) for row in keys.fillna("").itertuples(index=False)]
    return clean, dropped


def _unusable(
    table: pd.DataFrame, name: str, wrong: np.ndarray, what: str, config: CompetitionConfig, where: str
) -> np.ndarray:
    if wrong.any() and config.unparsable == "error":
        first = int(np.flatnonzero(wrong)[0])
        is_empty = name in config.smiles and not table[name][first].strip()
        no_molecule = ', or empty_smiles: "[Ar]" where empty means no molecule' if is_empty else ""
        raise DataError(
            f"{where}: column {name!r} must hold {what} in every row; it does not in "
            f"{named_rows(table, pd.Series(wrong), config.id)} (the first has {table[name][first]!r}). Correct it, or "
            f"set competition.unparsable: drop{no_molecule} (for predict: before the run that it predicts with)."
        )
    return wrong


def require_columns(table: pd.DataFrame, names: list[str], where: object) -> None:
    """Raise a DataError that lists the columns which are not there."""
    lacking = [name for name in names if name not in table.columns]
    if lacking:
        raise DataError(
            f"{where} must have the columns {', '.join(names)}; lacking: {', '.join(lacking)} "
            f"(it has {', '.join(table.columns)})."
        )


def require_rows(table: pd.DataFrame, where: object) -> None:
    """Raise a DataError where a table is empty."""
    if table.empty:
        raise DataError(f"{where} must have at least one row below its header; it has none.")


def listed(values: object, most: int = 5) -> str:
    """The first values, and how many more there are."""
    items = [repr(value) for value in values]  # type: ignore[attr-defined]
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def named_rows(table: pd.DataFrame, wrong: pd.Series, id_column: str) -> str:
    """The first rows of a mask by line of the file and id, and how many more there are."""
    positions = np.flatnonzero(wrong.to_numpy())
    named = ", ".join(f"row {i + 2} (id {table[id_column].iloc[i]!r})" for i in positions[:5])
    return named + (f" and {len(positions) - 5} more" if len(positions) > 5 else "")
