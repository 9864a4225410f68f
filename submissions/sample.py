"""Submission files: a table with the ids, order and columns of the sample, checked as a judge would read it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from competition.errors import SubmissionError
from competition.files import read_text_table, write_table
from competition.metrics import Array
from competition.task import Task, to_sample

DIGITS = 7
"""Significant ones of a prediction in a file."""


def write_submission(
    path: Path, sample: pd.DataFrame, id_column: str, task: Task, ids: list[str], y_pred: Array, filling: list[float]
) -> int:
    """Write a submission with the columns, ids and order of the prepared sample; no file is left that does not fit.

    Args:
        ids: of the rows of `y_pred` (n_rows, n_outputs), each in the sample.
        filling: (n_outputs,), for rows of the sample that are not among `ids`: test rows that were dropped.

    Returns:
        How many rows were filled.
    """
    values = np.vstack([y_pred.reshape(len(ids), -1), np.array(filling)[None]])
    values = np.vectorize(lambda value: float(f"{value:.{DIGITS}g}"), otypes=[float])(values)
    places = pd.Index(ids).get_indexer(pd.Index(sample[id_column]))  # -1, the last row, where there is none
    table = to_sample(task, values[places]).assign(**{id_column: list(sample[id_column])})
    write_table(path, table[list(sample.columns)])
    try:
        check_submission(path, sample, id_column)
    except SubmissionError:
        path.unlink()
        raise
    return int((places < 0).sum())


def check_submission(path: Path, sample: pd.DataFrame, id_column: str) -> None:
    """Read a file as a judge would; a SubmissionError where it does not fit the sample or has no finite numbers."""
    table = read_text_table(path)
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
