"""Sections of the report about predictions: truth and prediction, error correlation, learning curves, folds."""

import numpy as np
import pandas as pd

from competition.files import read_json
from folds.class_shares import class_shares, missing_class_warnings
from folds.fold_files import time_ordered
from models.neural_config import NeuralConfig
from submissions.formatting import format_with_error
from submissions.report import figures
from submissions.report.charts import heat_map
from submissions.report.class_sections import probabilities
from submissions.report.elements import Element, Figure, MoreFigures, Table, make_table
from submissions.report.training_predictions import predictions
from submissions.run import Run

MAX_STAGE_FIGURES = 12
"""Number of stages with a scatter plot."""


def prediction_section(run: Run) -> list[Element]:
    """Return predictions against the truth, or the reliability of probabilities; stages on request."""
    if run.task.has_probabilities:
        return probabilities(run)
    stages = list(run.config.stages)[:MAX_STAGE_FIGURES]
    stage_figures = [Figure(stage, figures.scatter(run, run.columns.stage_oof(stage))) for stage in stages]
    return [
        f"Out-of-fold predictions of at most {figures.MAX_POINTS} rows, by weights and choices that were made "
        "without the fold of the row.",
        Figure("Truth against the prediction of the submission", figures.scatter(run, predictions(run))),
        MoreFigures("Truth against the predictions of the stages", stage_figures),
    ]


def error_correlation(run: Run) -> list[Element]:
    """Return the correlation of the out-of-fold errors of all columns, as a heat map."""
    columns = run.columns
    if len(columns.names) < 2:
        return []
    errors = columns.oof - run.task.one_hot(columns.y)[:, None]  # (n_rows, n_columns, n_outputs)
    outputs = range(errors.shape[2])
    correlations = [pd.DataFrame(errors[:, :, t], columns=columns.names).corr() for t in outputs]
    mean = pd.concat(correlations).groupby(level=0, sort=False).mean()
    chart = heat_map(mean.to_numpy(), columns.names, columns.names, 1.0, "{:.2f}")
    return [
        "Pearson correlation of the out-of-fold errors, as a mean over targets or classes. Columns with a low "
        "correlation help a blend.",
        Figure("Correlation of errors", chart),
    ]


def learning_curve_section(run: Run) -> list[Element]:
    """Return the losses of the neural stages."""
    stages = [name for name, stage in run.config.stages.items() if isinstance(stage, NeuralConfig)]
    curves = figures.learning_curves(run, stages)
    return [Figure("Training loss by epoch; a line is a job", curves)] if curves else []


def folds_and_shift(run: Run) -> list[Element]:
    """Return size and labels of each fold, missing classes, and the comparison of test and training rows."""
    task = run.task
    folds = run.columns.folds
    labels = pd.DataFrame(run.columns.y, columns=task.targets)
    values = class_shares(labels, task.classes)
    what = "share" if task.classes else "mean +- sd"
    by_fold = {}
    for fold in np.unique(folds):
        by_fold[str(fold) if fold >= 0 else "-1: only in training"] = values[folds == fold]
    rows = [["rows", *(str(len(part)) for part in by_fold.values())]]
    for name in values:
        std = [None if task.classes else part[name].std(ddof=0) for part in by_fold.values()]
        means = [part[name].mean() for part in by_fold.values()]
        rows.append([f"{name}, {what}", *map(format_with_error, means, std)])
    warnings = missing_class_warnings(labels, task.classes, folds, time_ordered(run.paths.folds_report))
    elements: list[Element] = [Table(["fold", *by_fold], rows), *(f"{warning}." for warning in warnings)]
    return [*elements, *_shift(run)]


def _shift(run: Run) -> list[Element]:
    shift = run.paths.shift
    if not shift.exists():
        return [
            f"./run.sh folds {run.paths.name} compares held-out rows with test rows; it has not been run."
        ]
    stored = read_json(shift)
    elements: list[Element] = []
    if not stored["made_from"].items() <= run.stored["tables"].items():
        elements.append("This is about other tables or folds: run ./run.sh folds again.")
    recommended = stored["recommended"]
    if recommended:
        elements.append(f"Recommended folds: {recommended['kind']}: {recommended['reason']}.")
    else:
        elements.append(f"./run.sh folds {run.paths.name} also compares kinds of folds, and recommends one.")
    if stored["adversarial"]:
        auc = format_with_error(stored["adversarial"]["auc"], stored["adversarial"]["standard_deviation"])
        elements.append(
            f"Adversarial validation: AUC {auc} (standard deviation over folds); at 0.5 train and test are "
            "indistinguishable."
        )
        features = stored["adversarial"]["features"]
        if features:
            elements.append(make_table(list(features[0]), [list(row.values()) for row in features]))
    figure = shift.with_name("similarity.png")
    if figure.exists():
        caption = "Similarity to the nearest training row; good folds have the curve of the test rows"
        elements.append(Figure(caption, figure.read_bytes()))
    return elements
