"""What the report says of classes beside what it says of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from competition.class_metrics import average_precision, confusion
from competition.metrics import Array
from competition.task import Task
from submissions.blend.stored import from_json
from submissions.fitted import read_cross_fitted
from submissions.report import figures
from submissions.report.parts import Figure, Part, embedded, tabled
from submissions.report.predicted import labels, predictions
from submissions.run import CHOICE, Run
from submissions.words import number

N_BINS = 15
"""Of a reliability curve."""


def scores_by_class(run: Run) -> list[Part]:
    """Precision, recall and F1 of each class, or of class 1 of each label; and who is taken for whom."""
    from sklearn.metrics import multilabel_confusion_matrix, precision_recall_fscore_support

    task, y, predicted, rows = run.task, run.columns.y, labels(run), list[list[Any]]()
    shares = run.stored[CHOICE].get("class_shares", {})
    judged = [1] if task.problem_type == "multilabel" else list(range(len(task.classes)))
    for t, target in enumerate(task.targets):
        known = np.isfinite(y[:, t]) & np.isfinite(predicted[:, t])
        counts = multilabel_confusion_matrix(y[known, t], predicted[known, t], labels=judged).reshape(-1, 4)
        scores = precision_recall_fscore_support(y[known, t], predicted[known, t], labels=judged, zero_division=np.nan)
        for c, of_class, found in zip(judged, counts, np.transpose(scores[:3]), strict=True):
            name = target if len(judged) == 1 else task.classes[c]
            rows.append(
                [name, *map(str, of_class), *found, *(each[target][task.classes[c]] for each in shares.values())]
            )
    header = ["class", "TN", "FP", "FN", "TP", "precision", "recall", "F1"]
    said = ["Training rows by labels that were made without their fold: true and false negatives and positives."]
    if shares:
        cuts, words = _tuned(run)
        header, said = [*header, "share in training", "out of fold", "on test", "cut"], [*said, words]
        rows = [[*row, cut] for row, cut in zip(rows, [*[None] * (len(rows) - len(cuts)), *cuts], strict=True)]
    if len(judged) == 1:
        return [tabled(header, rows), *said]
    matrix = figures.confusion_matrix(task.classes, confusion(y[known, 0], predicted[known, 0], len(task.classes)))
    return [tabled(header, rows), *said, Figure("Confusion matrix", embedded(matrix))]


def _tuned(run: Run) -> tuple[list[float], str]:
    """The cuts of the submission, and what tuning them gains."""
    chosen, rows = run.candidates[run.chosen], run.columns.folds >= 0
    likeliest = run.task.likeliest(read_cross_fitted(run, run.chosen).cross_fitted[rows])
    plain, tuned = run.metric(run.columns.y[rows], likeliest), chosen["cross_fitted_score"]
    cut = {
        "multiclass": "what is taken off the logarithm of the class's probability before the largest is taken",
        "ordinal": "the mean grade from which on it is this one, where the lowest is 0",
    }.get(run.task.problem_type, "the probability from which on a row is of the class")
    return from_json(chosen["decision"]).cuts.tolist(), (
        f"cut: {cut}. {run.chosen} scores {number(plain)} without tuning, and {number(tuned)} with cuts that were "
        "tuned without the row's fold; its in_sample_score is that of cuts which were tuned on the same rows."
    )


def probabilities(run: Run) -> list[Part]:
    """Precision and recall of each class against all others, and reliability of the submission and its stages."""
    from sklearn.metrics import precision_recall_curve

    task, y, y_pred = run.task, run.columns.y, predictions(run)
    truth, curves = task.truth(y), dict[str, tuple[Array, Array]]()
    names = task.classes if task.problem_type == "multiclass" else task.targets
    for c in np.argsort(-np.nansum(truth, axis=0), kind="stable")[: figures.MOST_LINES]:
        known = np.isfinite(truth[:, c]) & np.isfinite(y_pred[:, c])
        cells = truth[known, c], y_pred[known, c]
        precision, recall, _ = precision_recall_curve(*cells)
        curves[f"{average_precision(*cells):.3f} {names[c]}"] = recall, precision
    drawn = embedded(figures.lines(curves, "recall", "precision"))
    parts: list[Part] = [Figure("Average precision of the commonest classes, each against all others", drawn)]
    shown = {"submission": y_pred, **{stage: run.columns.oof_of(stage) for stage in run.config.stages}}
    curves = {}
    for name, each in list(shown.items())[: figures.MOST_LINES]:
        p, true, error = reliability(task, y, each)
        curves[f"{error:.3f} {name}"] = p, true
    curves["if it were 0"] = np.array([0.0, 1.0]), np.array([0.0, 1.0])
    of = "the likeliest class" if task.problem_type == "multiclass" else "class 1"
    drawn = embedded(figures.lines(curves, f"probability of {of}", "how often it is true", marker="."))
    return [*parts, Figure("Expected calibration error, which with few rows is above 0 by chance", drawn)]


def reliability(task: Task, y: Array, y_pred: Array) -> tuple[Array, Array, float]:
    """Mean probability and share of what is true in bins of equal numbers of rows, and the mean gap between the two.

    It is the probability of class 1, of several classes that of the likeliest one. Sources: Niculescu-Mizil and
    Caruana, Predicting good probabilities with supervised learning, ICML 2005; Guo et al., On calibration of modern
    neural networks, ICML 2017.
    """
    truth = task.truth(y)
    if task.problem_type == "multiclass":
        places = y_pred.argmax(axis=1)[:, None]
        truth, y_pred = np.take_along_axis(truth, places, 1), np.take_along_axis(y_pred, places, 1)
    cells = np.column_stack([y_pred.ravel(), truth.ravel()])
    cells = cells[np.isfinite(cells).all(axis=1)]
    inner = np.quantile(cells[:, 0], np.arange(1, N_BINS) / N_BINS)
    bins = pd.DataFrame(cells).groupby(np.searchsorted(inner, cells[:, 0], side="right"))
    p, true = bins.mean().to_numpy().T
    return p, true, float(np.average(np.abs(p - true), weights=bins.size()))
