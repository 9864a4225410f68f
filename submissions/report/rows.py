"""Rows that are worth a look: the worst training rows with their inputs."""

from typing import Any

import numpy as np

from competition.files import read_table
from submissions.formatting import shortened
from submissions.report import figures
from submissions.report.elements import Card, Element, make_table
from submissions.report.training_predictions import labels, predictions
from submissions.run import Run

N_ROWS = 20
"""Worst rows that are shown."""
LONGEST_TEXT = 1500
"""Characters of a text that a card shows."""
RESIDUALS = (
    "Training rows with the largest error of the submission's out-of-fold prediction, in standard "
    "deviations of the "
    "target's labels: wrong labels and unusual inputs are often among them."
)
MISTAKES = (
    "Training rows whose out-of-fold label is wrong, the largest probability of the wrong class first: "
    "wrong labels "
    "and unusual inputs are often among them."
)


def worst_rows(run: Run) -> list[Element]:
    """Training rows with the largest errors; of probabilities, the most confident mistakes."""
    columns, competition, task = run.columns, run.config.competition, run.task
    errors = _mistakes(run) if task.has_probabilities else _residuals(run)
    sizes = np.nan_to_num(np.abs(list(errors.values())[-1]), nan=-1.0)
    largest = sizes.max(axis=1)
    order = np.argsort(-largest, kind="stable")[:N_ROWS]
    table, parts = (
        read_table(run.paths.train),
        list[Element]([MISTAKES if task.has_probabilities else RESIDUALS]),
    )
    for rank, i in enumerate(order[largest[order] >= 0], start=1):
        row = table.iloc[i]
        shown = [t for t in range(len(task.targets)) if sizes[i, t] >= 0 or not task.has_probabilities]
        parts.append(Card(
            f"{rank}. {columns.ids[i]}, fold {columns.folds[i]}",
            {row[name]: figures.molecule(row[name]) for name in competition.smiles},
            {name: row[name][:LONGEST_TEXT] for name in competition.text},
            ", ".join(f"{name} {row[name]}" for name in [*competition.numeric, *competition.categorical]),
            make_table(
                ["target", *errors], [[task.targets[t], *(each[i, t] for each in errors.values())] for t in shown]
            ),
        ))  # fmt: skip
    return parts


def _residuals(run: Run) -> dict[str, Any]:
    """What a card says of each target, (n_rows, n_targets) each; what is largest comes last."""
    y, y_pred = run.columns.y, predictions(run)
    deviations = np.nanstd(y[run.columns.folds >= 0], axis=0)
    return {
        "truth": y,
        "prediction": y_pred,
        "residual (sd)": (y - y_pred) / np.where(deviations, deviations, np.nan),
    }


def _mistakes(run: Run) -> dict[str, Any]:
    """The same of wrong labels."""
    y, y_pred, predicted = run.columns.y, predictions(run), labels(run)
    p = np.where(predicted == 1, y_pred, 1 - y_pred)
    if run.task.problem_type == "multiclass":
        p = (run.task.one_hot(predicted) * y_pred).sum(axis=1, keepdims=True)
    names = np.array([*map(shortened, run.task.classes), "-"], dtype=object)
    truth, label = (names[np.nan_to_num(each, nan=-1).astype(int)] for each in (y, predicted))
    wrong = np.where(np.isnan(y) | (y == predicted), np.nan, p)
    return {"truth": truth, "predicted": label, "its probability": wrong}
