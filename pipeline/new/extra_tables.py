"""The block `extra_train` of `./run.sh new --extra FILE`: which columns of the file are the competition's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from competition.molecules import canonical_smiles, normalised_text
from core.errors import DataError, join_first
from core.files import read_text_table
from pipeline.new.column_roles import classify, is_numeric, without_censored
from pipeline.new.detect import DetectedTables
from pipeline.new.yaml_writer import written_yaml


def extra_lines(
    files: Sequence[Path], tables: DetectedTables, yaml_file: Path
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the value of `extra_train`, and the reasons for it."""
    blocks = []
    reasons = []
    train_inputs, test_inputs = (_canonical_inputs(table, tables) for table in (tables.train, tables.test))
    for file in files:
        table = read_text_table(file)
        columns = _columns(table, file, tables)
        inputs = table.rename(columns={column: name for name, column in columns.items()})
        has_label = (inputs[[name for name in tables.targets if name in inputs]] != "").any(axis=1)
        labelled = _canonical_inputs(inputs[has_label], tables)
        n_shared, n_answers = len(labelled.merge(train_inputs)), len(labelled.merge(test_inputs))
        block: dict[str, Any] = {"file": written_yaml(file, yaml_file)}
        renamed = {name: column for name, column in columns.items() if name != column}
        if renamed:
            block["columns"] = renamed
        blocks.append(block)
        guess = f"GUESS: {renamed}; " if renamed else ""
        reason = f"{file.name}: {guess}{n_shared} of its inputs are in the training table"
        if n_answers:
            reason += (
                f"; WARNING: it has labels of {n_answers} inputs of the test table, which are not trained on"
            )
        reasons.append(reason)
    return blocks, reasons


def _columns(table: pd.DataFrame, file: Path, tables: DetectedTables) -> dict[str, str]:
    """Return column of the competition -> column of an extra table: the one with its name, or the only one like it.

    A column is like an input if it has its role. It is like a target if both have numbers, or else a common
    label.
    """
    columns = {name: name for name in [*tables.inputs, *tables.targets] if name in table}
    unused = [name for name in table.columns if name not in columns]
    roles = {column.name: column.role for column in tables.columns}
    for name in tables.inputs:
        if name not in columns:
            alike = [
                other for other in unused if classify(other, table[other], table[other]).role == roles[name]
            ]
            columns[name] = _only(alike, f"{name!r}, the competition's input", file)
            unused.remove(columns[name])
    if not any(name in columns for name in tables.targets):
        target = tables.targets[0]
        labels = without_censored(tables.train[target])
        alike = []
        for other in unused:
            cells = without_censored(table[other])
            if is_numeric(cells) if is_numeric(labels) else cells.isin(labels[labels != ""]).any():
                alike.append(other)
        columns[target] = _only(alike, f"{target!r}, the competition's target", file)
    return columns


def _only(names: list[str], wanted: str, file: Path) -> str:
    """Return the only name, or raise a DataError."""
    if len(names) != 1:
        found = f"several columns that may be it ({join_first(names)})" if names else "no column like it"
        raise DataError(f"--extra {file} has no column {wanted}, and {found}. Rename its column.")
    return names[0]


def _canonical_inputs(table: pd.DataFrame, tables: DetectedTables) -> pd.DataFrame:
    """Return the different inputs of a table, in canonical form; rows with an unreadable molecule are left out."""
    molecules = tables.with_roles("smiles")
    return (
        pd.DataFrame(
            {
                name: table[name].map(canonical_smiles if name in molecules else normalised_text)
                for name in tables.inputs
            }
        )
        .dropna()
        .drop_duplicates()
    )
