"""Submission files: tables with the ids, order and columns of the sample."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.task import Task, to_submission_columns
from core.errors import SubmissionError
from core.files import write_table
from core.types import Array
from core.user_tables import read_text_table

DIGITS = 7
"""Significant digits of predictions, and digits of the standard deviation of their column."""


def write_submission(
    path: Path,
    sample: pd.DataFrame,
    id_column: str,
    task: Task,
    ids: list[str],
    scored: Array,
    means: Sequence[float | None],
) -> None:
    """Write a submission with the columns, ids and order of the prepared sample.

    An invalid file is deleted.

    Args:
        ids: ids of the rows of `scored`; all of them are in the sample.
        scored: labels or predictions, (n_rows, n_scored) (`Task.scored_columns`).
        means: means of the labels, or shares of classes, (n_outputs,). Rows of the sample that are not among
            `ids` get them, or the most frequent class.
    """
    default = task.as_scored(np.array([means], dtype=np.float64))
    values = np.vstack([scored.reshape(len(ids), -1), default])
    positions = pd.Index(ids).get_indexer(pd.Index(sample[id_column]))  # -1, the last row, if missing
    table = to_submission_columns(task, values[positions])
    for name in table.select_dtypes("float"):
        table[name] = rounded(table[name])
    for name in sample.columns.difference(table.columns):  # the id, and columns of the test table
        table[name] = list(sample[name])
    write_table(path, table[sample.columns])
    try:
        check_submission(path, sample, id_column, task)
    except SubmissionError:
        path.unlink()
        raise


def rounded(values: pd.Series) -> list[float]:
    """Return predictions with DIGITS digits of their value or standard deviation, whichever are more.

    Values of almost the same size keep what distinguishes them. Equal values are not rounded.
    """
    std = values.std(ddof=0)
    if not std > 0:
        return values.tolist()
    n_decimals = DIGITS - math.floor(math.log10(std))
    return [
        round(value, max(n_decimals, DIGITS - 1 - math.floor(math.log10(abs(value) or 1.0))))
        for value in values
    ]


def check_submission(path: Path, sample: pd.DataFrame, id_column: str, task: Task) -> None:
    """Check a submission file against the sample.

    Raises:
        SubmissionError: if columns or ids differ, or if a cell is not what the metric needs: a finite number,
            a probability, or classes.
    """
    table = read_text_table(path)
    if list(table.columns) != list(sample.columns):
        raise SubmissionError(
            f"{path} must have the columns {', '.join(sample.columns)} in this order; got "
            f"{', '.join(table.columns)}."
        )
    ids = list(table[id_column])
    expected = list(sample[id_column])
    if ids != expected:
        missing = sorted(set(expected) - set(ids))
        extra = sorted(set(ids) - set(expected))
        raise SubmissionError(
            f"{path} must have the ids of the sample in its order, each once; it has {len(ids)} rows for "
            f"{len(expected)} ids, {len(missing)} are missing {missing[:3]} and {len(extra)} are not in the "
            f"sample {extra[:3]}."
        )
    for name in task.columns_in_sample:
        what, is_valid = _check_cells(table[name], task)
        if not is_valid.all():
            first = is_valid.argmin()
            raise SubmissionError(
                f"{path}: column {name!r} must have {what}; {(~is_valid).sum()} row(s) have not, "
                f"the first is id {ids[first]!r} with {table[name].iloc[first]!r}."
            )


def _check_cells(cells: pd.Series, task: Task) -> tuple[str, NDArray[np.bool_]]:
    """Return what a column must have, and a mask of its valid cells."""
    if task.top_k:
        rows = [cell.split() for cell in cells]
        is_valid = [
            0 < len(row) <= task.top_k and len({*row} & {*task.written_classes}) == len(row) for row in rows
        ]
        return f"up to {task.top_k} different classes, separated by spaces", np.array(is_valid)
    if task.scores_labels and not task.has_column_per_class:
        is_class = cells.isin(task.written_classes).to_numpy()
        return f"one of the classes {', '.join(task.written_classes)}", is_class
    numbers = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64)
    if task.has_probabilities:
        return "probabilities from 0 to 1", (numbers >= 0) & (numbers <= 1)
    return "finite numbers", np.isfinite(numbers)
