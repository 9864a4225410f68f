"""The block `extra_train` of `./run.sh new --extra FILE`: which columns of the file are the competition's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from competition.calibration import MIN_CALIBRATION_INPUTS
from competition.molecules import canonical_smiles, normalised_text
from core.errors import DataError, join_first
from core.files import read_text_table
from submissions.new.column_roles import classify, is_numeric, without_censored
from submissions.new.detect import DetectedTables
from submissions.new.yaml_writer import written_yaml


def extra_lines(
    files: Sequence[Path], tables: DetectedTables, yaml_file: Path, is_regression: bool
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the value of `extra_train`, and the reasons for it."""
    blocks = []
    reasons = []
    for file in files:
        table = read_text_table(file)
        columns = _columns(table, file, tables)
        n_shared = _count_shared(table, columns, tables)
        block: dict[str, Any] = {"file": written_yaml(file, yaml_file)}
        renamed = {name: column for name, column in columns.items() if name != column}
        if renamed:
            block["columns"] = renamed
        if is_regression and n_shared >= MIN_CALIBRATION_INPUTS:
            block["calibrate"] = "affine"
        blocks.append(block)
        guess = f"GUESS: {renamed}; " if renamed else ""
        reasons.append(f"{file.name}: {guess}{n_shared} of its inputs are in the training table")
    return blocks, reasons


def _columns(table: pd.DataFrame, file: Path, tables: DetectedTables) -> dict[str, str]:
    """Return column of the competition -> column of an extra table: the one with its name, or the only one like it."""
    columns = {name: name for name in [*tables.inputs, *tables.targets] if name in table}
    unused = [name for name in table.columns if name not in columns]
    for name in tables.inputs:
        if name not in columns:
            role = next(column.role for column in tables.columns if column.name == name)
            alike = [other for other in unused if classify(other, table[other], table[other]).role == role]
            columns[name] = _only(alike, name, file, "input")
            unused.remove(columns[name])
    if not any(name in columns for name in tables.targets):
        target = tables.targets[0]
        labels = [other for other in unused if _is_like(table[other], tables.train[target])]
        columns[target] = _only(labels, target, file, "target")
    return columns


def _is_like(cells: pd.Series, labels: pd.Series) -> bool:
    """Return whether cells are numbers, or censored ones, where labels are, or else have a label of the training
    table.
    """
    cells, labels = without_censored(cells), without_censored(labels)
    return is_numeric(cells) if is_numeric(labels) else bool(cells.isin(labels[labels != ""]).any())


def _only(names: list[str], wanted: str, file: Path, what: str) -> str:
    """Return the only name, or raise a DataError."""
    if len(names) != 1:
        found = f"several columns that may be it ({join_first(names)})" if names else "no column like it"
        raise DataError(
            f"--extra {file} has no column {wanted!r}, the competition's {what}, and {found}. Rename its column."
        )
    return names[0]


def _count_shared(table: pd.DataFrame, columns: dict[str, str], tables: DetectedTables) -> int:
    """Return how many different inputs of an extra table the training table has."""
    renamed = table[[columns[name] for name in tables.inputs]].set_axis(tables.inputs, axis=1)
    return len(_input_keys(renamed, tables) & _input_keys(tables.train, tables))


def _input_keys(table: pd.DataFrame, tables: DetectedTables) -> set[tuple[str | None, ...]]:
    """Return the different inputs of a table, in canonical form; rows with an unreadable molecule are left out."""
    molecules = tables.with_roles("smiles")
    keys = {
        name: table[name].map(canonical_smiles if name in molecules else normalised_text)
        for name in tables.inputs
    }
    return set(pd.DataFrame(keys).dropna().itertuples(index=False, name=None))
