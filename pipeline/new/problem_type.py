"""Detection of the problem type, the classes and the metric, each with its reason."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from competition.cells import to_numbers
from competition.labels import describe_code, describe_range, parse_bounded
from competition.metrics import get_metric
from competition.task import MISSING, class_name, class_names, match_columns
from core.errors import DataError, join_first
from core.types import ProblemType
from pipeline.new.column_roles import describe_damage, is_numeric, without_censored
from pipeline.new.detect import DetectedTables
from pipeline.new.series import GRADE, options_of

POSITIVE = {
    "+",
    "abnormal",
    "unhealthy",
    "unsafe",
    "misinformation",
    "fake",
    "hateful",
    "offensive",
    "sarcastic",
    "ai",
    "generated",
    "mutagenic",
    "inhibitor",
    "blocker",
    "yes",
    "y",
    "true",
    "t",
    "positive",
    "pos",
    "active",
    "toxic",
    "spam",
    "fraud",
    "sick",
    "hit",
    "present",
}
"""Names of the positive class in lower case."""
MAX_LEVELS = 10
"""Number of levels of an ordinal target."""
MIN_ROWS_PER_LEVEL = 3
"""Number of rows that each level of an ordinal target must have."""
MAX_IMBALANCE = 3
"""Rows of the largest class over rows of the smallest, above which a macro-averaged metric is chosen."""


class ProblemGuess(NamedTuple):
    """Settings of the targets.

    Attributes:
        reasons: "type", "classes" and "metric" -> reason.
        classes: the negative one first, ordinal levels from the lowest; empty for regression.
        submission_columns: columns of the targets, or of the classes in their order, if the sample has other
            names.
        needs: what a user-defined classification metric scores.
    """

    reasons: dict[str, str]
    type: ProblemType
    classes: list[str]
    metric: str
    submission_columns: list[str] | None
    needs: str | None


class LabelSummary(NamedTuple):
    """Labels of the training table, and how the sample submits them.

    Attributes:
        numbers: (n_rows, n_targets), NaN if missing; None if labels are names.
        counts: rows per class, over all targets.
        column_per_class: whether the sample has a column per class.
        has_labels_in_sample: whether cells of the sample are labels; a number may be a placeholder.
        top: largest number of classes in a cell of the sample.
    """

    tables: DetectedTables
    numbers: pd.DataFrame | None
    classes: list[str]
    counts: pd.Series
    column_per_class: bool
    has_labels_in_sample: bool
    top: int


def choose_problem(
    tables: DetectedTables, metric: str | None = None, problem_type: ProblemType | None = None
) -> ProblemGuess:
    """Return problem type, classes and metric.

    Args:
        metric: the metric, if the user gives it.
        problem_type: the type, if the user gives it.

    Raises:
        DataError: if the labels do not allow the metric or the type.
    """
    known_metric = get_metric(metric or "")
    allowed = [problem_type] if problem_type else list(known_metric.types) if known_metric else []
    labels = read_labels(tables, are_classes=bool(allowed) and "regression" not in allowed)
    possible, reason = possible_types(labels)
    option = ""
    if problem_type:
        option = f"--problem-type {problem_type}"
    elif known_metric:
        option = f"--metric {metric} ({', '.join(allowed)})"
        if known_metric.name == "quadratic_kappa":  # the usual metric of ordinal targets
            allowed.sort(key=lambda name: name != "ordinal")
    chosen = next((name for name in allowed or possible if name in possible), None)
    if chosen is None:
        raise DataError(_describe_misfit(labels, possible, option))
    classes, classes_reason = order_classes(labels, chosen)
    columns = tables.submission_columns
    if columns and labels.column_per_class:
        columns = [columns[labels.classes.index(name)] for name in classes]
    needs = None
    if classes and metric and ":" in metric:
        in_one_column = chosen == "multiclass" and not labels.column_per_class
        has_labels = chosen == "ordinal" or labels.has_labels_in_sample or in_one_column
        needs = "classes" if has_labels else "probabilities"
    if problem_type:
        type_reason = "set with --problem-type"
    else:
        type_reason = f"GUESS: {reason if chosen == possible[0] else 'what the metric scores'}"
    if chosen == "regression" and labels.numbers is not None:
        is_transformed = known_metric is not None and known_metric.target_transform != "none"
        describe = describe_code if is_transformed else describe_range
        ranges = [describe(name, labels.numbers[name]) for name in tables.targets]
        type_reason += "".join(f"; WARNING: {sentence}" for sentence in ranges if sentence)
    metric_reason = "set with --metric"
    if not metric:
        metric, metric_reason = choose_metric(labels, chosen)
    reasons = {"type": type_reason, "classes": classes_reason, "metric": metric_reason}
    return ProblemGuess(reasons, chosen, classes, metric, columns, needs)


def _describe_misfit(labels: LabelSummary, possible: list[ProblemType], option: str) -> str:
    """Return why the labels do not allow the metric or the problem type of the user."""
    targets = labels.tables.targets
    examples = labels.classes
    fit = f"suit {' or '.join(possible)}, not {option}"
    if not possible:  # a few damaged cells among numbers
        names = pd.Series(labels.classes)
        examples = list(names[to_numbers(names)[1]])
        fit = "are neither numbers nor classes"
    message = f"the labels of {join_first(targets)} ({join_first(examples)}) {fit}"
    if len(targets) > 1:
        message += "; in multilabel classification all targets have the same two classes"
    return f"{message}."


def read_labels(tables: DetectedTables, are_classes: bool = False) -> LabelSummary:
    """Return the labels of all targets.

    Args:
        are_classes: whether the user says so, such as of 0, 1, 2 and 3+.

    Raises:
        DataError: if numbers are damaged, or if all labels are equal.
    """
    cells = tables.train[tables.targets].apply(without_censored)
    for name in tables.targets:
        if not are_classes and describe_damage(cells[name]):
            parse_bounded(tables.train, name, tables.id, "the training table")  # its error names the row
    classes = class_names(cells)
    if len(tables.targets) > 1:  # of the same two classes
        classes = [name for name in classes if name.lower() not in MISSING]
    if len(classes) < 2:
        are = f"are {classes[0]!r}" if classes else "are missing"
        raise DataError(f"all labels of {join_first(tables.targets)} {are}, so there is nothing to predict.")
    column_per_class = len(tables.submission_columns or []) > len(tables.targets)
    are_numbers = all(is_numeric(cells[name]) for name in tables.targets)
    sample_cells = {class_name(cell) for cell in pd.unique(tables.sample.to_numpy().ravel())}
    known = {*classes}
    lists = [cell.split() for cell in sample_cells - known if not known.isdisjoint(cell.split())]
    _, is_label = to_numbers(pd.Series(sorted(sample_cells)))
    return LabelSummary(
        tables=tables,
        numbers=cells.apply(lambda column: to_numbers(column)[0]) if are_numbers else None,
        classes=classes,
        counts=pd.concat([cells[name].map(class_name) for name in cells]).value_counts().reindex(classes),
        column_per_class=column_per_class,
        has_labels_in_sample=not column_per_class and bool(is_label.any()),
        top=max(map(len, lists), default=1),
    )


def possible_types(labels: LabelSummary) -> tuple[list[ProblemType], str]:
    """Return the problem types that the labels allow, the most probable first, and the reason for that one."""
    classes = labels.classes
    numbers = labels.numbers
    n_classes = len(classes)
    as_number: list[ProblemType] = [] if numbers is None or labels.column_per_class else ["regression"]
    are_integers = numbers is not None and all(float(name) % 1 == 0 for name in classes)
    if len(labels.tables.targets) > 1 and n_classes == 2:
        return ["multilabel", *as_number], f"each is {classes[0]} or {classes[1]}"
    if len(labels.tables.targets) > 1:
        return as_number, "numbers"
    if labels.top > 1:
        return ["multiclass"], f"the sample has up to {labels.top} classes in a cell"
    if labels.column_per_class and n_classes > 2:
        return ["multiclass"], "the sample has a column for each class"
    if 2 * n_classes > labels.counts.sum() or (numbers is not None and not are_integers):
        return as_number, "numbers"
    if n_classes == 2:
        return ["binary", "multiclass", *as_number], f"{classes[0]} or {classes[1]}"
    if numbers is None:
        return ["multiclass", "ordinal"], f"{n_classes} names that repeat"
    options = options_of(classes, labels.tables)
    if options:
        reason = (
            f"each is one of the options {join_first(options)}; --problem-type ordinal if they are grades"
        )
        return ["multiclass", "ordinal", "regression"], reason
    is_consecutive = float(classes[-1]) - float(classes[0]) == n_classes - 1 < MAX_LEVELS
    has_enough_rows = labels.counts.min() >= MIN_ROWS_PER_LEVEL
    has_integers_in_sample = labels.tables.sample.stack().str.fullmatch(r"[+-]?\d+").all()
    if is_consecutive and has_enough_rows and has_integers_in_sample:
        if float(classes[0]) == 0 and not GRADE.search(labels.tables.targets[0]):
            reason = f"{n_classes} whole numbers from 0, as codes of classes; --problem-type ordinal if they are levels"
            return ["multiclass", "ordinal", "regression"], reason
        reason = f"{n_classes} consecutive levels, and whole numbers in the sample; "
        reason += "--problem-type multiclass if they have no order"
        return ["ordinal", "multiclass", "regression"], reason
    reason = "whole numbers; --problem-type multiclass if they are classes"
    return ["regression", "multiclass", "ordinal"], reason


def positive_class(labels: LabelSummary, classes: list[str]) -> tuple[str, str]:
    """Return the class whose probability is submitted, and the reason."""
    columns = labels.tables.submission_columns or labels.tables.targets
    matches = match_columns(tuple(columns), tuple(classes)) if len(columns) == 1 else {}
    if matches:
        return matches[columns[0]], f"since the sample has {columns[0]!r}"
    named = [name for name in classes if name.lower() in POSITIVE]
    if not named:  # such as soluble, and insoluble
        named = [name for name in classes if all(name.lower() in other.lower() for other in classes)]
    if len(named) == 1:
        return named[0], "by its name"
    return str(labels.counts[::-1].idxmin()), "the rarer one"


def order_classes(labels: LabelSummary, problem_type: ProblemType) -> tuple[list[str], str]:
    """Return the classes, the negative one first, ordinal levels from the lowest, and the reason."""
    classes = labels.classes if problem_type != "regression" else []
    if problem_type in ("binary", "multilabel") and labels.numbers is None:
        positive, reason = positive_class(labels, classes)
        ordered = sorted(classes, key=lambda name: name == positive)
        return ordered, f"GUESS: {positive} is the positive class, {reason}"
    singles = labels.counts.index[labels.counts == 1]
    if problem_type == "multiclass" and len(singles):
        return (
            classes,
            f"WARNING: only one row each of {join_first(singles)}; correct these if they are typos",
        )
    absent = [name for name in classes if name.lower() in MISSING]
    if absent:
        return (
            classes,
            f"WARNING: {join_first(absent)} is read as a class; empty its cells if it means missing",
        )
    if problem_type == "ordinal" and labels.numbers is None:
        return classes, "GUESS: alphabetical order; write them from the lowest to the highest"
    return classes, ""


def choose_metric(labels: LabelSummary, problem_type: ProblemType) -> tuple[str, str]:
    """Return a metric and the reason, if the user gives none."""
    if problem_type == "regression" and len(labels.tables.targets) == 1:
        return "rmse", "GUESS, the usual one for a single target"
    if problem_type == "regression":
        assert labels.numbers is not None
        std = labels.numbers.std()
        ratio = std.max() / std.min() if std.min() > 0 else np.inf
        reason = f"GUESS: the standard deviations of the targets differ by a factor of {ratio:.1f}"
        if ratio <= 2:
            return "rmse", f"{reason}, which is small"
        return "r2", f"{reason}, so that the one with the largest would dominate rmse"
    if problem_type == "ordinal":
        return "quadratic_kappa", "GUESS, the usual one for ordinal levels"
    if labels.top > 1:
        return f"map_at_{labels.top}", f"GUESS: the sample has up to {labels.top} classes in a cell"
    if problem_type == "multiclass" and labels.column_per_class:
        return "log_loss", "GUESS: the sample has a column for each class"
    if problem_type != "multiclass" and not labels.has_labels_in_sample:
        reason = "GUESS, the usual one for two classes"
        in_sample = {class_name(cell) for cell in pd.unique(labels.tables.sample.to_numpy().ravel())}
        if in_sample <= {*labels.classes}:
            metric = "f1" if problem_type == "binary" else "f1_micro"
            reason += f"; the sample has {' and '.join(sorted(in_sample))}: --metric {metric} if labels are submitted"
        return "roc_auc", reason
    ratio = labels.counts.max() / labels.counts.min()
    reason = (
        f"GUESS: labels are submitted, and the largest class has {ratio:.1f} times the rows of the smallest"
    )
    if ratio <= MAX_IMBALANCE:
        return "accuracy", reason
    return "f1" if problem_type == "binary" else "f1_macro", reason
