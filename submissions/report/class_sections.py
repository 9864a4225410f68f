"""What the report says of classes beside what it says of numbers."""

from typing import Any

import numpy as np
import pandas as pd

from competition.task import Task
from competition.types import Array
from submissions.blend.serialization import from_json
from submissions.formatting import format_number
from submissions.report import figures
from submissions.report.elements import Element, Figure, make_table
from submissions.report.training_predictions import labels, predictions, read_cross_fitted
from submissions.run import CHOICE, Run

N_BINS = 15
"""Of a reliability curve."""
MOST_LINES = 10
CUTS = {
    "multiclass": "what is taken off the logarithm of the class's probability before the largest is taken",
    "ordinal": "the mean grade from which on it is this one, where the lowest is 0",
}


def scores_by_class(run: Run) -> list[Element]:
    """Precision, recall and F1 of each class, or of class 1 of each label; cuts and shares; who is taken for
    whom.
    """
    from sklearn.metrics import precision_recall_fscore_support

    task, y, predicted, rows = run.task, run.columns.y, labels(run), list[list[Any]]()
    shares, several = run.stored[CHOICE].get("class_shares", {}), len(task.targets) > 1
    for t, target in enumerate(task.targets):
        known = np.isfinite(y[:, t]) & np.isfinite(predicted[:, t])
        truth, taken, numbers = y[known, t], predicted[known, t], range(len(task.classes))
        scores = precision_recall_fscore_support(truth, taken, labels=numbers, zero_division=np.nan)
        for name, *of_class, count in list(zip(task.classes, *scores, strict=True))[1 if several else 0 :]:
            of_tables = [part[target][name] for part in shares.values()]
            rows.append([target if several else name, str(count), *of_class, *of_tables])
    header = ["class", "rows", "precision", "recall", "F1"]
    said = [
        f"Training rows by labels that were made without their "
        f"fold{'' if shares else ': the likeliest class'}."
    ]
    if shares:
        cuts, words = _cuts(run)
        header, said = [*header, "share in training", "out of fold", "on test", "cut"], [*said, words]
        rows = [
            [*row, cut] for row, cut in zip(rows, [*[None] * (len(rows) - len(cuts)), *cuts], strict=True)
        ]
    parts: list[Element] = [make_table(header, rows, "{:.3f}"), *said]
    if not several:
        parts.append(Figure("Confusion matrix", figures.confusion_matrix(task.classes, truth, taken)))
    return parts


def _cuts(run: Run) -> tuple[list[float], str]:
    """The cuts of the submission, and what tuning them gains."""
    chosen, rows, task = run.candidates[run.chosen], run.columns.folds >= 0, run.task
    y, y_pred = run.columns.y[rows], read_cross_fitted(run, run.chosen).cross_fitted[rows]
    plain, tuned = run.metric(y, task.default_labels(y_pred)), chosen["cross_fitted_score"]
    cut = CUTS.get(task.problem_type, "the probability from which on a row is of the class")
    return from_json(chosen["decision"]).cuts.tolist(), (
        f"cut: {cut}. The labels of {run.chosen} score {format_number(plain)} by what is likeliest, and "
        f"{format_number(tuned)} by cuts tuned without the row's fold."
    )


def probabilities(run: Run) -> list[Element]:
    """Reliability of the submission and of its first stages."""
    task, curves = run.task, dict[str, tuple[Array, Array]]()
    shown = {
        "submission": predictions(run),
        **{stage: run.columns.stage_oof(stage) for stage in run.config.stages},
    }
    for name, y_pred in list(shown.items())[:MOST_LINES]:
        p, true, error = reliability(task, run.columns.y, y_pred)
        curves[f"{error:.3f} {name}"] = p, true
    of = "the likeliest class" if task.problem_type == "multiclass" else task.classes[1]
    said = "Expected calibration error, which with few rows is above 0 by chance"
    return [Figure(said, figures.reliability(curves, of))]


def reliability(task: Task, y: Array, y_pred: Array) -> tuple[Array, Array, float]:
    """Mean probability and share of what is true in bins of equal numbers of rows, and the mean gap between
    the two.

    It is the probability of class 1, of several classes that of the likeliest one. Sources: Niculescu-Mizil
    and Caruana, Predicting good probabilities with supervised learning, ICML 2005; Guo et al., On calibration
    of modern neural networks, ICML 2017.
    """
    truth = task.one_hot(y)
    if task.problem_type == "multiclass":
        places = y_pred.argmax(axis=1)[:, None]
        truth, y_pred = np.take_along_axis(truth, places, 1), np.take_along_axis(y_pred, places, 1)
    cells = np.column_stack([y_pred.ravel(), truth.ravel()])
    cells = cells[np.isfinite(cells).all(axis=1)]
    inner = np.quantile(cells[:, 0], np.arange(1, N_BINS) / N_BINS)
    bins = pd.DataFrame(cells).groupby(np.searchsorted(inner, cells[:, 0], side="right"))
    p, true = bins.mean().to_numpy().T
    return p, true, np.average(np.abs(p - true), weights=bins.size())
