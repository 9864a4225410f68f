"""Submission files: a table with the ids, order and columns of the sample, checked as a judge would read it."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.errors import SubmissionError
from competition.files import read_text_table, write_table
from competition.task import Task, to_sample
from competition.types import Array

DIGITS = 7
"""Significant ones of a prediction in a file."""


def write_submission(
    path: Path,
    sample: pd.DataFrame,
    id_column: str,
    task: Task,
    ids: list[str],
    scored: Array,
    means: list[float],
) -> int:
    """Write a submission with the columns, ids and order of the prepared sample; no file is left that does
    not fit.

    Args:
        ids: of the rows of `scored`, (n_rows, n_scored) labels or predictions (`Task.scored_columns`), each
            in the sample.
        means: of the labels, or shares of classes, (n_outputs,): for rows of the sample that are not among
            `ids`, test rows that were dropped; the commonest class where labels are scored.

    Returns:
        How many rows were filled.
    """
    filling = np.array([means])
    values = np.vstack(
        [scored.reshape(len(ids), -1), task.default_labels(filling) if task.scores_labels else filling]
    )
    places = pd.Index(ids).get_indexer(pd.Index(sample[id_column]))  # -1, the last row, where there is none
    table = to_sample(task, values[places])
    numbers = table.select_dtypes("float")
    table[numbers.columns] = numbers.map(lambda value: float(f"{value:.{DIGITS}g}"))
    for name in sample.columns.difference(table.columns):  # the id, and what repeats the test table
        table[name] = list(sample[name])
    write_table(path, table[sample.columns])
    try:
        check_submission(path, sample, id_column, task)
    except SubmissionError:
        path.unlink()
        raise
    return (places < 0).sum()


def check_submission(path: Path, sample: pd.DataFrame, id_column: str, task: Task) -> None:
    """Read a file as a judge would; a SubmissionError where it does not fit the sample, or has a cell that is
    not what
    the metric asks for: a finite number, a probability, or names of classes.
    """
    table = read_text_table(path)
    if list(table.columns) != list(sample.columns):
        raise SubmissionError(
            f"{path} must have the columns {', '.join(sample.columns)} in this order; found "
            f"{', '.join(table.columns)}."
        )
    found, expected = list(table[id_column]), list(sample[id_column])
    if found != expected:
        lacking, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
        raise SubmissionError(
            f"{path} must have the ids of the sample in its order, each once; it has {len(found)} rows for "
            f"{len(expected)} ids, lacks {len(lacking)} {lacking[:3]} and has {len(extra)} others "
            f"{extra[:3]}."
        )
    for name in task.columns_in_sample:
        what, good = _asked(table[name], task)
        if (bad := ~good).any():
            first = bad.argmax()
            raise SubmissionError(
                f"{path}: column {name!r} must hold {what}; {bad.sum()} row(s) do not, the first has "
                f"id {found[first]!r} and {table[name].iloc[first]!r}."
            )


def _asked(cells: pd.Series, task: Task) -> tuple[str, NDArray[np.bool_]]:
    """What a column has to hold, and which of its cells do."""
    if task.top_k:
        rows = [cell.split() for cell in cells]
        good = [0 < len(row) <= task.top_k and len({*row} & {*task.classes}) == len(row) for row in rows]
        return f"up to {task.top_k} different classes, separated by spaces", np.array(good)
    if task.scores_labels and not task.has_column_per_class:
        return f"one of the classes {', '.join(task.classes)}", cells.isin(task.classes).to_numpy()
    numbers = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64)
    if task.has_probabilities:
        return "probabilities from 0 to 1", (numbers >= 0) & (numbers <= 1)
    return "finite numbers", np.isfinite(numbers)
