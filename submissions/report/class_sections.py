"""Sections of the report for classification."""

from typing import Any

import numpy as np
import pandas as pd

from competition.task import Task
from core.text import format_number
from core.types import Array
from submissions.blend.serialization import from_json
from submissions.report import figures
from submissions.report.elements import Element, Figure, MoreFigures, make_table
from submissions.report.training_predictions import labels, predictions
from submissions.run import Run

N_BINS = 15
"""Number of bins of a reliability curve."""
MAX_CURVES = 10
"""Number of reliability curves."""
THRESHOLDS = {
    "multiclass": "number that is subtracted from the logarithm of the probability of a class",
    "ordinal": "mean level from which a row has this level, where the lowest is 0",
}
"""Problem type -> meaning of the thresholds."""


def scores_by_class(run: Run) -> list[Element]:
    """Return precision, recall and F1 per class, or of class 1 per target; thresholds, shares and confusions."""
    from sklearn.metrics import precision_recall_fscore_support

    task = run.task
    y = run.columns.y
    predicted = labels(run)
    shares = run.choice.get("class_shares", {})
    has_several_targets = len(task.targets) > 1
    rows: list[list[Any]] = []
    for t, target in enumerate(task.targets):
        is_labelled = np.isfinite(y[:, t]) & np.isfinite(predicted[:, t])
        truth = y[is_labelled, t]
        label = predicted[is_labelled, t]
        scores = precision_recall_fscore_support(
            truth, label, labels=range(len(task.classes)), zero_division=np.nan
        )
        class_rows = list(zip(task.classes, *scores, strict=True))
        for name, precision, recall, f1, count in class_rows[1 if has_several_targets else 0 :]:
            class_shares = [part[target][name] for part in shares.values()]
            title = target if has_several_targets else name
            rows.append([title, str(count), precision, recall, f1, *class_shares])
    header = ["class", "rows", "precision", "recall", "F1"]
    how = "" if shares else ": the most probable class"
    sentences = [f"Training rows, by labels that were predicted without their fold{how}."]
    if shares:
        thresholds, explanation = _thresholds(run)
        header += ["share in training", "out of fold", "on test", "threshold"]
        sentences.append(explanation)
        missing = [None] * (len(rows) - len(thresholds))
        rows = [[*row, value] for row, value in zip(rows, [*missing, *thresholds], strict=True)]
    elements: list[Element] = [make_table(header, rows, "{:.3f}"), *sentences]
    if not has_several_targets:
        elements.append(Figure("Confusion matrix", figures.confusion_matrix(task.classes, truth, label)))
    return elements


def _thresholds(run: Run) -> tuple[list[float], str]:
    """Return the thresholds of the submission, and the gain of tuning them as a sentence."""
    task = run.task
    chosen = run.candidates[run.chosen]
    default_score = run.columns.score(task.default_labels(predictions(run)))
    meaning = THRESHOLDS.get(task.problem_type, "probability from which a row has the class")
    return from_json(chosen["decision"]).cuts.tolist(), (
        f"threshold: {meaning}. The labels of {run.chosen} score {format_number(default_score)} without tuning, "
        f"and {format_number(chosen['score'])} with thresholds that were tuned without the row's fold."
    )


def probability_section(run: Run) -> list[Element]:
    """Return the reliability of the submission, and of the stages in a collapsed block."""
    task = run.task
    class_name = "the most probable class" if task.problem_type == "multiclass" else task.classes[1]
    caption = "Number before the name: expected calibration error, which is above 0 by chance with few rows"

    def curve(name: str, y_pred: Array) -> dict[str, tuple[Array, Array]]:
        probability, frequency, error = reliability(task, run.columns.y, y_pred)
        return {f"{error:.3f} {name}": (probability, frequency)}

    submission = curve("submission", predictions(run))
    stages: dict[str, tuple[Array, Array]] = {}
    for stage in list(run.config.stages)[:MAX_CURVES]:
        stages |= curve(stage, run.columns.stage_oof(stage))
    return [
        Figure(caption, figures.reliability(submission, class_name)),
        MoreFigures("Reliability of the stages", [Figure(caption, figures.reliability(stages, class_name))]),
    ]


def reliability(task: Task, y: Array, y_pred: Array) -> tuple[Array, Array, float]:
    """Return mean probability and frequency in bins of equal numbers of rows, and their mean absolute difference.

    The probability is that of class 1, or of the most probable of several classes. Sources: Niculescu-Mizil
    and Caruana, Predicting good probabilities with supervised learning, ICML 2005; Guo et al., On calibration
    of modern neural networks, ICML 2017.
    """
    truth = task.one_hot(y)
    if task.problem_type == "multiclass":
        most_probable = y_pred.argmax(axis=1)[:, None]
        truth = np.take_along_axis(truth, most_probable, 1)
        y_pred = np.take_along_axis(y_pred, most_probable, 1)
    cells = np.column_stack([y_pred.ravel(), truth.ravel()])
    cells = cells[np.isfinite(cells).all(axis=1)]
    inner = np.quantile(cells[:, 0], np.arange(1, N_BINS) / N_BINS)
    bins = pd.DataFrame(cells).groupby(np.searchsorted(inner, cells[:, 0], side="right"))
    probability, frequency = bins.mean().to_numpy().T
    error = np.average(np.abs(probability - frequency), weights=bins.size())
    return probability, frequency, error
