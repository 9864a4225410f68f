"""Predictions of the training rows, each without its fold, and the sections of the report about them."""

import math
from dataclasses import asdict

import numpy as np
import pandas as pd

from competition.dataset import read_prepared
from competition.task import Task
from core.files import read_table
from core.text import format_with_error
from core.types import Array
from folds.soundness import missing_class_warnings
from models.jobs.job import stage_oof_std
from models.training.loss_log import read_losses
from submissions.blend.logits import on_scale
from submissions.columns import scored_rows
from submissions.manifest import CROSS_FITTED
from submissions.report import figures
from submissions.report.elements import Card, Element, Figure, make_table
from submissions.run import PREDICTION, Run
from submissions.shift import comparison_for

MAX_POINTS = 2000
"""Number of rows in a scatter plot, which keeps the page small."""
N_BINS = 15
"""Number of bins of a reliability curve."""
MAX_CURVES = 10
"""Number of stages with a reliability curve."""
N_LARGEST_ERRORS = 20
"""Number of training rows with the largest errors."""
MAX_TEXT_LENGTH = 1500
"""Characters of a text in a card."""
RESIDUALS = (
    "Training rows with the largest error of the submission's out-of-fold prediction, "
    "in standard deviations of the labels (of log(1 + label) for rmsle): "
    "wrong labels and unusual inputs are often among them."
)
CONFIDENT_ERRORS = (
    "Misclassified training rows (out of fold), sorted by the probability of the wrong class: "
    "wrong labels and unusual inputs are often among them."
)


def cross_fitted(run: Run) -> Array:
    """Return what the metric scores of the submission, (n_rows, n_scored), fitted without each row's fold."""
    return run.columns.aligned(scored_rows(run.folder, run.task))


def predictions(run: Run) -> Array:
    """Return predictions of the submission, (n_rows, n_outputs), fitted without the fold of each row.

    If the metric scores labels, these are the predictions before the decision.
    """
    if not run.task.scores_labels:
        return cross_fitted(run)
    table = read_table(run.folder / CROSS_FITTED).set_index("id").loc[run.columns.ids]
    return table[[f"{PREDICTION}{output}" for output in run.task.outputs]].to_numpy()


def labels(run: Run) -> Array:
    """Return class labels, (n_rows, n_targets), by the decision or, without one, the most probable ones."""
    y_pred = cross_fitted(run)
    if run.task.scores_labels:
        return y_pred
    return np.where(np.isnan(y_pred[:, :1]), np.nan, run.task.default_labels(y_pred))


def prediction_section(run: Run) -> list[Element]:
    """Return predictions against the truth, or the reliability of probabilities."""
    if run.task.has_probabilities:
        return [_reliability_figure(run)]
    columns = run.columns
    rows = np.flatnonzero(columns.has_fold)
    rows = rows[:: math.ceil(len(rows) / MAX_POINTS)]
    scatter = {}
    truth = on_scale(run.task.on_scale_of_levels(columns.y[rows]), columns.link)
    predicted = on_scale(run.task.on_scale_of_levels(predictions(run)[rows]), columns.link)
    for target, y, y_pred in zip(run.task.targets, truth.T, predicted.T, strict=True):
        ends = [np.nanmin(y), np.nanmax(y)]
        scatter[target] = [(ends, ends, "-"), (y_pred, y, ".")]
    numbers = run.task.on_scale_of_levels(np.arange(len(run.task.classes), dtype=float))
    pairs = zip(numbers, run.task.classes, strict=True)
    levels = [f"{number:g} is the level {name}." for number, name in pairs if f"{number:g}" != name]
    return [
        *levels,
        f"Out-of-fold predictions of at most {MAX_POINTS} rows. Blend weights and choices are "
        "cross-fitted, too: those for a row come from the other folds.",
        Figure(
            f"Truth against the prediction of the submission{', as log(1 + y)' if columns.link == 'log1p' else ''}",
            figures.panels(scatter, "prediction", "truth"),
        ),
        *_std_coverage(run),
    ]


def _reliability_figure(run: Run) -> Figure:
    """Return the reliability of the submission and of the stages."""
    columns = run.columns
    task = run.task
    curves = {}
    stages = {stage: columns.stage_oof(stage) for stage in list(run.config.stages)[:MAX_CURVES]}
    for name, y_pred in {"submission": predictions(run), **stages}.items():
        probability, frequency, error = reliability(task, columns.y, y_pred)
        curves[f"{error:.3f} {name}"] = [(probability, frequency, "-"), ((0, 1), (0, 1), "-")]
    class_name = "the most probable class" if task.problem_type == "multiclass" else task.classes[1]
    caption = (
        f"Observed frequency of {class_name} against its probability. "
        "Number before the name: expected calibration error, which is above 0 by chance with few rows"
    )
    return Figure(caption, figures.panels(curves, "probability", "frequency"))


def reliability(task: Task, y: Array, y_pred: Array) -> tuple[Array, Array, float]:
    """Return mean probability and frequency in equal-sized bins, and their mean absolute difference.

    They are of class 1, or of the most probable of several classes. Sources: Niculescu-Mizil
    and Caruana, Predicting good probabilities with supervised learning, ICML 2005; Guo et al., On calibration
    of modern neural networks, ICML 2017.
    """
    truth = task.one_hot(y)
    if task.problem_type == "multiclass":
        top_class = y_pred.argmax(axis=1)[:, None]
        truth = np.take_along_axis(truth, top_class, 1)
        y_pred = np.take_along_axis(y_pred, top_class, 1)
    cells = pd.DataFrame({"probability": y_pred.ravel(), "frequency": truth.ravel()}).dropna()
    inner = cells["probability"].quantile(np.arange(1, N_BINS) / N_BINS)
    bins = cells.groupby(np.searchsorted(inner, cells["probability"], side="right"))
    probability, frequency = bins.mean().to_numpy().T
    error = np.average(np.abs(probability - frequency), weights=bins.size())
    return probability, frequency, error


def _std_coverage(run: Run) -> list[Element]:
    """Return how often held-out labels are within the standard deviations that stages predict for them."""
    columns = run.columns
    outputs = run.task.outputs
    rows = []
    for stage in run.config.stages:
        std = stage_oof_std(run.plan.jobs_of_stage(stage), columns.ids, columns.folds, outputs)
        if std is None:
            continue
        errors = pd.DataFrame(np.abs(columns.y - columns.stage_oof(stage)) / std, columns=outputs)
        for target in outputs:
            scored = errors[target].dropna()
            coverage = {"within 1 sd": (scored < 1).mean(), "within 2 sd": (scored < 2).mean()}
            rows.append({"stage": stage, "target": target, **coverage})
    if not rows:
        return []
    return [
        "Share of held-out labels within one and two of the standard deviations that a stage predicts. "
        "Normally distributed errors give .68 and .95.",
        make_table(pd.DataFrame(rows), "{:.2f}"),
    ]


def error_correlation(run: Run) -> list[Element]:
    """Return the correlation of the out-of-fold errors of the base predictions, as a heat map."""
    columns = run.columns
    if columns.n_models < 2:
        return []
    errors = columns.preds - run.task.one_hot(columns.y)[:, None]  # (n_rows, n_models, n_outputs)
    of_outputs = [pd.DataFrame(error, columns=columns.names).corr() for error in np.moveaxis(errors, 2, 0)]
    mean = pd.concat(of_outputs).groupby(level=0, sort=False).mean()
    return [
        "Pearson correlation of the out-of-fold errors of the base predictions, as a mean over targets or "
        "classes. A blend gains most from predictions whose errors correlate little.",
        Figure("Correlation of errors", figures.heat_map(mean, -1.0, "RdBu", "{:.2f}")),
    ]


def learning_curve_section(run: Run) -> list[Element]:
    """Return two panels per neural stage: the training loss of each job, and the mean held-out score."""
    curves = {}
    for stage, settings in run.config.stages.items():
        if not settings.reports_progress:
            continue
        tables = []  # of each job, with the last row of each epoch
        for job in run.plan.jobs_of_stage(stage):
            records = [asdict(record) for record in read_losses(job.folder)]
            if records:
                tables.append(pd.DataFrame(records).astype({"held_out_score": float}).groupby("epoch").last())
        if tables:
            curves[f"{stage}, loss"] = [(table.index, table["loss"], "-") for table in tables]
            mean = pd.DataFrame([table["held_out_score"] for table in tables]).mean().dropna()
            if len(mean):
                curves[f"{stage}, held-out {run.config.competition.fold_scorer.name}"] = [
                    (mean.index, mean, "-")
                ]
    if not curves:
        return []
    caption = "Training loss, a line per job, and mean held-out score over folds and seeds, by epoch"
    return [Figure(caption, figures.panels(curves, "epoch"))]


def folds_and_shift(run: Run) -> list[Element]:
    """Return classes that a fold lacks, and the comparison of test and training rows."""
    labels = pd.DataFrame(run.columns.y, columns=run.task.targets)
    is_ordered = run.config.folds.is_ordered_in_time
    warnings = missing_class_warnings(labels, run.task.classes, run.columns.folds, is_ordered)
    return [*(f"{warning}." for warning in warnings), *_shift(run)]


def _shift(run: Run) -> list[Element]:
    """Return the results of `./run.sh folds` about test and training rows; [] without a test table."""
    if not run.config.competition.has_test_table:
        return []
    command = f"./run.sh folds {run.paths.on_command_line}"
    comparison = comparison_for(run)
    if comparison is None:
        return [
            f"{command} compares held-out rows with test rows; "
            "it has not been run with these tables and folds."
        ]
    elements: list[Element] = []
    recommended = comparison.recommended
    if recommended:
        elements.append(f"Recommended folds: {recommended['kind']}: {recommended['reason']}.")
    else:
        elements.append(f"{command} also compares kinds of folds, and recommends one.")
    shift = comparison.adversarial_validation
    measured = comparison.error_ratio
    if shift:
        auc = format_with_error(shift.auc, shift.standard_error)
        elements.append(f"Adversarial validation: AUC {auc}; at 0.5 train and test are indistinguishable.")
        if measured and measured.ratio is not None:
            ratio = format_with_error(measured.ratio, measured.standard_error)
            counts_as = (
                "" if measured.factor == measured.ratio else ", which is not clearly below 1 and counts as 1"
            )
            elements.append(
                f"On the fifth of the training rows most like the test rows, held out together, one model of "
                f"{measured.stage} has {ratio} times the error of one seed in ordinary folds{counts_as}."
            )
        if shift.features:
            elements.append(make_table(pd.DataFrame(shift.features)))
    figure = run.paths.similarity
    if figure.exists():
        caption = "Similarity to the nearest training row; good folds match the test rows' curve"
        elements.append(Figure(caption, figure.read_bytes()))
    return elements


def largest_errors(run: Run) -> list[Element]:
    """Return training rows with the largest errors; for probabilities, the most confident ones."""
    columns = run.columns
    competition = run.config.competition
    train = read_prepared(run.paths.train)
    elements: list[Element] = [CONFIDENT_ERRORS if run.task.has_probabilities else RESIDUALS]
    for rank, (i, errors) in enumerate(rows_with_largest_errors(run).items(), start=1):
        row = train.iloc[i]
        names = [name for name in [*competition.numeric, *competition.categorical] if pd.notna(row[name])]
        card = Card(
            title=f"{rank}. {columns.ids[i]}, fold {columns.folds[i]}",
            molecules={row[name]: figures.molecule(row[name]) for name in competition.smiles},
            texts={name: row[name][:MAX_TEXT_LENGTH] for name in competition.text},
            values=", ".join(f"{name} {row[name]}" for name in names),
            errors=make_table(errors),
        )
        elements.append(card)
    return elements


def rows_with_largest_errors(run: Run) -> dict[int, pd.DataFrame]:
    """Return number of a training row -> targets with truth, prediction and error, the largest errors first.

    For classes only wrong labels are returned.
    """
    is_class = run.task.has_probabilities
    errors = _confident_errors(run) if is_class else _residuals(run)
    errors.insert(0, "target", run.task.targets * len(run.columns.ids))
    sizes = errors.iloc[:, -1].abs()
    rows = errors.index // len(run.task.targets)
    largest = sizes.groupby(rows).max().dropna().nlargest(N_LARGEST_ERRORS)
    is_displayed = sizes.notna() | (not is_class)
    return {int(i): errors[(rows == i) & is_displayed] for i in largest.index}


def _residuals(run: Run) -> pd.DataFrame:
    """Return truth, prediction and residual, with a line per row and target, sorted by row."""
    y = run.task.on_scale_of_levels(run.columns.y)
    y_pred = run.task.on_scale_of_levels(predictions(run))
    link = run.columns.link  # errors on the scale of the metric
    std = np.nanstd(on_scale(y[run.columns.has_fold], link), axis=0)
    residuals = (on_scale(y, link) - on_scale(y_pred, link)) / np.where(std, std, np.nan)
    table = pd.DataFrame(
        {"truth": y.ravel(), "prediction": y_pred.ravel(), "residual_in_sd": residuals.ravel()}
    )
    if run.task.classes:
        table["truth"] = pd.Series(run.columns.y.ravel()).map(dict(enumerate(run.task.classes)))
    return table


def _confident_errors(run: Run) -> pd.DataFrame:
    """Return true and predicted class with its probability, NaN if it is right, sorted by row and target."""
    y = run.columns.y
    y_pred = predictions(run)
    predicted = labels(run)
    probability = np.where(predicted == 1, y_pred, 1 - y_pred)
    if run.task.problem_type == "multiclass":
        probability = (run.task.one_hot(predicted) * y_pred).sum(axis=1, keepdims=True)
    is_correct_or_missing = np.isnan(y) | (y == predicted)
    numbers = pd.DataFrame({"truth": y.ravel(), "prediction": predicted.ravel()})
    names = numbers.replace(dict(enumerate(run.task.classes)))
    return names.assign(its_probability=np.where(is_correct_or_missing, np.nan, probability).ravel())
