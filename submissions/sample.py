"""Submission files: a table with the ids, order and columns of the sample, checked as a judge would read it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from competition.errors import DataError, SubmissionError
from competition.files import read_text_table, write_table
from competition.metrics import Array
from competition.task import Task, to_sample

DIGITS = 7
"""Significant ones of a prediction in a file."""


def submission_table(
    sample: pd.DataFrame, id_column: str, task: Task, ids: list[str], y_pred: Array, filling: list[float]
) -> tuple[pd.DataFrame, int]:
    """A table with the columns, ids and order of the prepared sample, and how many rows were filled.

    Args:
        ids: of the rows of `y_pred` (n_rows, n_outputs), each in the sample.
        filling: (n_outputs,), for rows of the sample that are not among `ids`: test rows that were dropped.
    """
    values = np.vstack([y_pred.reshape(len(ids), -1), np.array(filling)[None]])
    row_of = {row_id: i for i, row_id in enumerate(ids)}
    place = np.array([row_of.get(row_id, len(ids)) for row_id in sample[id_column]], dtype=np.int64)
    values = np.vectorize(lambda value: float(f"{value:.{DIGITS}g}"), otypes=[float])(values)
    table = to_sample(task, values[place]).assign(**{id_column: list(sample[id_column])})
    return table[list(sample.columns)], int((place == len(ids)).sum())


def check_submission(path: Path, sample: pd.DataFrame, id_column: str) -> None:
    """Read a submission file as a judge would and hold it against the sample.

    Raises:
        SubmissionError: if its columns, its ids or their order differ, or a value is no finite number.
    """
    try:
        table = read_text_table(path)
    except DataError as error:
        raise SubmissionError(str(error)) from None
    if list(table.columns) != list(sample.columns):
        raise SubmissionError(
            f"{path} must have the columns {', '.join(sample.columns)} in this order; found {', '.join(table.columns)}."
        )
    found, expected = list(table[id_column]), list(sample[id_column])
    if found != expected:
        lacking, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
        raise SubmissionError(
            f"{path} must have the ids of the sample in its order, each once; it has {len(found)} rows for "
            f"{len(expected)} ids, lacks {len(lacking)} {lacking[:3]} and has {len(extra)} others {extra[:3]}."
        )
    for name in table.columns.drop(id_column):
        bad = ~np.isfinite(pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64))
        if bad.any():
            first = int(bad.argmax())
            raise SubmissionError(
                f"{path}: column {name!r} must hold finite numbers; {int(bad.sum())} row(s) do not, the first has "
                f"id {found[first]!r} and {table[name].iloc[first]!r}."
            )


def write_submission(path: Path, table: pd.DataFrame, sample: pd.DataFrame, id_column: str) -> None:
    """Write a submission and check the file.

    Raises:
        SubmissionError: as `check_submission`; then there is no file at `path`.
    """
    write_table(path, table)
    try:
        check_submission(path, sample, id_column)
    except SubmissionError:
        path.unlink()
        raise
