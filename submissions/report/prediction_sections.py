"""Sections of the report about predictions: truth and prediction, error correlation, learning curves, folds."""

import numpy as np
import pandas as pd

from core.files import read_json
from core.text import format_with_error
from folds.class_shares import labels_or_indicators, missing_class_warnings
from models.jobs.job_files import stage_oof_std
from submissions.report import figures
from submissions.report.charts import heat_map
from submissions.report.class_sections import probability_section
from submissions.report.elements import Element, Figure, MoreFigures, Table, make_table
from submissions.report.training_predictions import predictions
from submissions.run import Run

MAX_STAGE_FIGURES = 12
"""Maximum number of stages with a scatter plot."""


def prediction_section(run: Run) -> list[Element]:
    """Return predictions against the truth, or the reliability of probabilities; the stages in a collapsed block."""
    if run.task.has_probabilities:
        return probability_section(run)
    stages = list(run.config.stages)[:MAX_STAGE_FIGURES]
    stage_figures = [Figure(stage, figures.scatter(run, run.columns.stage_oof(stage))) for stage in stages]
    return [
        f"Out-of-fold predictions of at most {figures.MAX_POINTS} rows. Blend weights and choices are "
        "cross-fitted, too: those for a row come from the other folds.",
        Figure("Truth against the prediction of the submission", figures.scatter(run, predictions(run))),
        MoreFigures("Truth against the predictions of the stages", stage_figures),
        *_std_coverage(run),
    ]


def _std_coverage(run: Run) -> list[Element]:
    """Return how often held-out labels are within the standard deviations that stages predict for them."""
    columns, outputs = run.columns, run.task.outputs
    rows = []
    for stage in run.config.stages:
        jobs = run.plan.jobs_of_stage(stage)
        std = stage_oof_std(jobs, columns.ids, columns.folds, outputs)
        if std is None:
            continue
        errors = np.abs(columns.y - columns.stage_oof(stage)) / std
        for target, target_errors in zip(outputs, errors.T, strict=True):
            scored = target_errors[np.isfinite(target_errors)]
            rows.append([stage, target, float((scored < 1).mean()), float((scored < 2).mean())])
    if not rows:
        return []
    return [
        "Share of held-out labels within one and two standard deviations that a stage predicts for its own "
        "predictions. Normally distributed errors give .68 and .95.",
        make_table(["stage", "target", "within 1 sd", "within 2 sd"], rows, "{:.2f}"),
    ]


def error_correlation(run: Run) -> list[Element]:
    """Return the correlation of the out-of-fold errors of the base predictions, as a heat map."""
    columns = run.columns
    if len(columns.names) < 2:
        return []
    errors = columns.preds - run.task.one_hot(columns.y)[:, None]  # (n_rows, n_models, n_outputs)
    outputs = range(errors.shape[2])
    correlations = [pd.DataFrame(errors[:, :, t], columns=columns.names).corr() for t in outputs]
    mean = pd.concat(correlations).groupby(level=0, sort=False).mean()
    chart = heat_map(mean.to_numpy(), columns.names, columns.names, 1.0, "{:.2f}")
    return [
        "Pearson correlation of the out-of-fold errors of the base predictions, as a mean over targets or "
        "classes. A blend gains most from predictions whose errors correlate little.",
        Figure("Correlation of errors", chart),
    ]


def learning_curve_section(run: Run) -> list[Element]:
    """Return the losses and held-out scores of the neural stages by epoch."""
    stages = [name for name, stage in run.config.stages.items() if stage.reports_progress]
    curves = figures.learning_curves(run, stages)
    caption = "Training loss, a line per job, and mean held-out score over folds and seeds, by epoch"
    return [Figure(caption, curves)] if curves else []


def folds_and_shift(run: Run) -> list[Element]:
    """Return size, mean labels and missing classes of each fold, and the comparison of test and training rows."""
    task = run.task
    folds = run.columns.folds
    labels = pd.DataFrame(run.columns.y, columns=task.targets)
    values = labels_or_indicators(labels, task.classes)
    statistic = "share" if task.classes else "mean +- sd"
    by_fold = {}
    for fold in np.unique(folds):
        by_fold[str(fold) if fold >= 0 else "-1: only in training"] = values[folds == fold]
    rows = [["rows", *(str(len(part)) for part in by_fold.values())]]
    for name in values:
        std = [None if task.classes else part[name].std(ddof=0) for part in by_fold.values()]
        means = [part[name].mean() for part in by_fold.values()]
        rows.append([f"{name}, {statistic}", *map(format_with_error, means, std)])
    warnings = missing_class_warnings(labels, task.classes, folds, run.config.folds.is_ordered_in_time)
    elements: list[Element] = [Table(["fold", *by_fold], rows), *(f"{warning}." for warning in warnings)]
    return [*elements, *_shift(run)]


def _shift(run: Run) -> list[Element]:
    shift = run.paths.shift
    if not shift.exists():
        return [
            f"./run.sh folds {run.paths.name} compares held-out rows with test rows; it has not been run."
        ]
    shift_report = read_json(shift)
    elements: list[Element] = []
    if not shift_report["made_from"].items() <= run.stored["tables"].items():
        elements.append("Outdated: tables or folds have changed since. Run ./run.sh folds again.")
    recommended = shift_report["recommended"]
    if recommended:
        elements.append(f"Recommended folds: {recommended['kind']}: {recommended['reason']}.")
    else:
        elements.append(f"./run.sh folds {run.paths.name} also compares kinds of folds, and recommends one.")
    adversarial = shift_report["adversarial"]
    if adversarial:
        auc = format_with_error(adversarial["auc"], adversarial["standard_deviation"])
        elements.append(
            f"Adversarial validation: AUC {auc} (standard deviation over folds); at 0.5 train and test are "
            "indistinguishable."
        )
        features = adversarial["features"]
        if features:
            elements.append(make_table(list(features[0]), [list(row.values()) for row in features]))
    figure = shift.with_name("similarity.png")
    if figure.exists():
        caption = "Similarity to the nearest training row; good folds have the curve of the test rows"
        elements.append(Figure(caption, figure.read_bytes()))
    return elements
