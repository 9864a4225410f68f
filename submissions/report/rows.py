"""Single rows that a person should look at: those with the largest errors, and those that models disagree on."""

from __future__ import annotations

import numpy as np

from competition.files import read_table, read_text_table
from competition.metrics import Array
from submissions.report import figures
from submissions.report.parts import Card, Part, Table
from submissions.run import SPREAD_FILE, SUBMISSION_FILE, Run
from submissions.words import number, with_error

N_ROWS = 20
"""Worst and most uncertain rows that are shown."""
LONGEST_TEXT = 1500
"""Characters of a text that a card shows."""


def worst_rows(run: Run, cross_fitted: Array) -> list[Card]:
    """The rows with the largest residual, in standard deviations of the target's labels.

    Args:
        cross_fitted: (n_rows, n_outputs), of the submission.
    """
    columns, competition = run.columns, run.config.competition
    with np.errstate(divide="ignore", invalid="ignore"):
        residuals = (columns.y - cross_fitted) / np.nanstd(columns.y[columns.folds >= 0], axis=0)
    largest = np.where(np.isfinite(residuals), np.abs(residuals), -1.0).max(axis=1)
    table = read_table(run.paths.train)
    cards = []
    for rank, i in enumerate(np.argsort(-largest, kind="stable")[:N_ROWS], start=1):
        if largest[i] < 0:
            break
        row = table.iloc[i]
        errors = [
            [target, number(columns.y[i, t]), number(cross_fitted[i, t]), number(residuals[i, t])]
            for t, target in enumerate(run.task.targets)
        ]
        cards.append(Card(
            f"{rank}. {columns.ids[i]}, fold {columns.folds[i]}",
            {row[name]: figures.molecule(row[name]) for name in competition.smiles},
            {name: row[name][:LONGEST_TEXT] for name in competition.text},
            ", ".join(f"{name} {row[name]}" for name in [*competition.numeric, *competition.categorical]),
            Table(["target", "truth", "prediction", "residual (sd)"], errors),
        ))  # fmt: skip
    return cards


def uncertain_rows(run: Run) -> list[Part]:
    """Test rows on which the models of seeds and folds disagree most, in standard deviations of the target's labels."""
    path, id_column = run.folder / SPREAD_FILE, run.config.competition.id
    if not path.exists():
        return []
    deviations = read_text_table(path).set_index("id")[run.task.outputs]
    submitted = read_text_table(run.folder / SUBMISSION_FILE).set_index(id_column)
    values = deviations.replace("", "nan").to_numpy(dtype=np.float64)
    labels = np.nanstd(run.columns.y[run.columns.folds >= 0], axis=0)
    order = np.argsort(-np.nan_to_num(values / labels).max(axis=1), kind="stable")[:N_ROWS]  # a dropped row has none
    predicted = submitted.loc[deviations.index, run.task.columns_in_sample].to_numpy(dtype=np.float64)
    rows = [[str(deviations.index[i]), *map(with_error, predicted[i], values[i])] for i in order]
    said = "Test rows on which the models of different seeds and folds disagree most: prediction +- standard deviation."
    return [said, Table(["id", *run.task.targets], rows)]
