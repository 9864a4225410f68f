"""Training rows with the largest errors, with their inputs."""

from typing import Any

import numpy as np

from core.files import read_table
from core.text import shortened
from submissions.report import figures
from submissions.report.elements import Card, Element, make_table
from submissions.report.training_predictions import labels, predictions
from submissions.run import Run

N_ROWS = 20
"""Number of rows."""
MAX_TEXT_LENGTH = 1500
"""Characters of a text in a card."""
RESIDUALS = (
    "Training rows with the largest error of the submission's out-of-fold prediction, in standard deviations of "
    "the labels: wrong labels and unusual inputs are often among them."
)
CONFIDENT_ERRORS = (
    "Training rows with a wrong out-of-fold label, the largest probability of the wrong class first: wrong labels "
    "and unusual inputs are often among them."
)


def largest_errors(run: Run) -> list[Element]:
    """Return training rows with the largest errors; for probabilities, the most confident ones."""
    columns = run.columns
    competition = run.config.competition
    task = run.task
    values = _confident_errors(run) if task.has_probabilities else _residuals(run)
    sizes = np.nan_to_num(np.abs(list(values.values())[-1]), nan=-1.0)
    largest = sizes.max(axis=1)
    order = np.argsort(-largest, kind="stable")[:N_ROWS]
    table = read_table(run.paths.train)
    elements: list[Element] = [CONFIDENT_ERRORS if task.has_probabilities else RESIDUALS]
    for rank, i in enumerate(order[largest[order] >= 0], start=1):
        row = table.iloc[i]
        targets = [t for t in range(len(task.targets)) if sizes[i, t] >= 0 or not task.has_probabilities]
        rows = [[task.targets[t], *(array[i, t] for array in values.values())] for t in targets]
        others = [f"{name} {row[name]}" for name in [*competition.numeric, *competition.categorical]]
        card = Card(
            title=f"{rank}. {columns.ids[i]}, fold {columns.folds[i]}",
            molecules={row[name]: figures.molecule(row[name]) for name in competition.smiles},
            texts={name: row[name][:MAX_TEXT_LENGTH] for name in competition.text},
            values=", ".join(others),
            errors=make_table(["target", *values], rows),
        )
        elements.append(card)
    return elements


def _residuals(run: Run) -> dict[str, Any]:
    """Return the columns of a card, (n_rows, n_targets) each; the last one is sorted by."""
    y = run.columns.y
    y_pred = predictions(run)
    std = np.nanstd(y[run.columns.folds >= 0], axis=0)
    residuals = (y - y_pred) / np.where(std, std, np.nan)
    return {"truth": y, "prediction": y_pred, "residual (sd)": residuals}


def _confident_errors(run: Run) -> dict[str, Any]:
    """Return the columns of a card for classification; the last one is sorted by."""
    y = run.columns.y
    y_pred = predictions(run)
    predicted = labels(run)
    probability = np.where(predicted == 1, y_pred, 1 - y_pred)
    if run.task.problem_type == "multiclass":
        probability = (run.task.one_hot(predicted) * y_pred).sum(axis=1, keepdims=True)
    names = np.array([*map(shortened, run.task.classes), "-"], dtype=object)
    truth, label = (names[np.nan_to_num(array, nan=-1).astype(int)] for array in (y, predicted))
    is_correct_or_missing = np.isnan(y) | (y == predicted)
    return {
        "truth": truth,
        "predicted": label,
        "its probability": np.where(is_correct_or_missing, np.nan, probability),
    }
