"""What the targets are: problem type, classes and metric, each with its reason."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from competition.classes import MISSING, class_name, class_names
from competition.clean import join_first, parse_numbers
from competition.errors import DataError
from competition.metrics import get_metric
from competition.types import ProblemType
from submissions.new.detect import DetectedTables, describe_damage, is_not_numeric, is_numeric

POSITIVE = {
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
"""Names of the positive class of two, in small letters."""
MOST_GRADES = 10
FEWEST_ROWS = 3
"""Of each grade; else whole numbers are no grades."""
IMBALANCED = 3
"""Rows of the largest class over those of the smallest, above which the metric should count classes alike."""


class ProblemGuess(NamedTuple):
    """What `new` makes of the targets.

    reasons: of some of these settings.
    classes: the negative one first, grades from the lowest; none in regression.
    submission_columns: of the targets, or of the classes in their order, where the sample has other names.
    needs: what a metric of the user's own scores, where the targets are classes.
    """

    reasons: dict[str, str]
    type: ProblemType
    classes: list[str]
    metric: str
    submission_columns: list[str] | None
    needs: str | None


class LabelSummary(NamedTuple):
    """What stands in the columns to predict, and in the sample.

    numbers: (n_rows, n_targets), NaN where there is none; None where labels are names.
    counts: rows of each class, over all targets.
    column_per_class: whether the sample has one.
    named_in_sample: whether its cells name classes; a number may be a placeholder.
    top: most classes in one of them.
    """

    found: DetectedTables
    numbers: pd.DataFrame | None
    classes: list[str]
    counts: pd.Series
    column_per_class: bool
    named_in_sample: bool
    top: int


def choose_problem(
    found: DetectedTables, metric: str | None = None, problem_type: ProblemType | None = None
) -> ProblemGuess:
    """Problem type, classes and metric, which the user may name; a DataError where the labels do not allow
    these.
    """
    labels, ours = read_labels(found), get_metric(metric or "")
    possible, reason = possible_types(labels)
    asked = [problem_type] if problem_type else list(ours.types) if ours else possible
    if ours and ours.name == "quadratic_kappa":
        asked.sort(key=lambda each: each != "ordinal")  # it is the metric of grades
    chosen = next((each for each in asked if each in possible), None)
    if chosen is None:
        named = (
            f"--problem-type {problem_type}" if problem_type else f"--metric {metric} ({', '.join(asked)})"
        )
        fit = (
            f"fit to {' or '.join(possible)}, not to {named}"
            if possible
            else "are neither numbers nor classes"
        )
        same = "; several targets of classes all have the same two" * (len(found.targets) > 1)
        raise DataError(
            f"the labels of {join_first(found.targets)} ({join_first(labels.classes)}) {fit}{same}."
        )
    classes, of_classes = order_classes(labels, chosen)
    columns, needs = found.submission_columns, None
    if columns and labels.column_per_class:
        columns = [columns[labels.classes.index(name)] for name in classes]
    if classes and metric and ":" in metric:
        needs = "classes" if chosen == "ordinal" or labels.named_in_sample else "probabilities"
    guess = f"GUESS: {reason if chosen == possible[0] else 'what the metric scores'}"
    metric, of_metric = (metric, "named with --metric") if metric else choose_metric(labels, chosen)
    of_type = "named with --problem-type" if problem_type else guess
    reasons = {"type": of_type, "classes": of_classes, "metric": of_metric}
    return ProblemGuess(reasons, chosen, classes, metric, columns, needs)


def read_labels(found: DetectedTables) -> LabelSummary:
    """The labels of all targets; a DataError where numbers are damaged, or all labels are the same."""
    cells, sample = found.train[found.targets], found.sample
    for name in found.targets:
        if describe_damage(cells[name]):
            parse_numbers(found.train, name, found.id, "the training table")  # which names the row
    classes, column_per_class = class_names(cells), len(found.submission_columns or []) > len(found.targets)
    if len(classes) < 2:
        are = f"are {classes[0]!r}" if classes else "are missing"
        raise DataError(f"all labels of {join_first(found.targets)} {are}, so there is nothing to predict.")
    are_numbers = all(is_numeric(cells[name]) for name in found.targets)
    numbers = cells.apply(pd.to_numeric, errors="coerce") if are_numbers else None
    counts = pd.concat([cells[name].map(class_name) for name in cells]).value_counts().reindex(classes)
    in_sample = {class_name(cell) for name in sample for cell in sample[name].unique()}
    lists = [cell.split() for cell in in_sample - {*classes} if {*cell.split()} & {*classes}]
    named_in_sample = not column_per_class and not is_not_numeric(pd.Series(sorted(in_sample)))[0].empty
    return LabelSummary(
        found, numbers, classes, counts, column_per_class, named_in_sample, max(map(len, lists), default=1)
    )


def possible_types(labels: LabelSummary) -> tuple[list[ProblemType], str]:
    """Problem types that the labels allow, the likeliest first, and the reason for that one."""
    classes, numbers, n = labels.classes, labels.numbers, len(labels.classes)
    as_number: list[ProblemType] = [] if numbers is None or labels.column_per_class else ["regression"]
    whole = numbers is not None and all(float(name) % 1 == 0 for name in classes)
    if len(labels.found.targets) > 1 and n == 2:
        return ["multilabel", *as_number], f"each is {classes[0]} or {classes[1]}"
    if len(labels.found.targets) > 1:
        return as_number, "numbers"
    if labels.top > 1:
        return ["multiclass"], f"the sample names up to {labels.top} classes in a cell"
    if labels.column_per_class and n > 2:
        return ["multiclass"], "the sample has a column for each class"
    if 2 * n > labels.counts.sum() or (numbers is not None and not whole):
        return as_number, "numbers"
    if n == 2:
        return ["binary", "multiclass", *as_number], f"{classes[0]} or {classes[1]}"
    if numbers is None:
        return ["multiclass", "ordinal"], f"{n} names that repeat"
    consecutive = float(classes[-1]) - float(classes[0]) == n - 1 < MOST_GRADES
    placeholders = labels.found.sample.stack()
    if consecutive and labels.counts.min() >= FEWEST_ROWS and placeholders.str.fullmatch(r"[+-]?\d+").all():
        return [
            "ordinal",
            "multiclass",
            "regression",
        ], f"{n} consecutive grades, whole numbers in the sample, too"
    return ["regression", "multiclass", "ordinal"], "whole numbers"


def order_classes(labels: LabelSummary, problem_type: ProblemType) -> tuple[list[str], str]:
    """The classes, the negative one of two first, grades from the lowest, and the reason."""
    classes = labels.classes if problem_type != "regression" else []
    if problem_type in ("binary", "multilabel") and labels.numbers is None:
        known = [name for name in classes if name.lower() in POSITIVE]
        positive, why = (
            (*known, "by its name") if len(known) == 1 else (labels.counts[::-1].idxmin(), "the rarer one")
        )
        return sorted(
            classes, key=lambda name: name == positive
        ), f"GUESS: {positive} is the positive class, {why}"
    if problem_type == "multiclass" and len(single := labels.counts.index[labels.counts == 1]):
        return classes, f"WARNING: one row each of {join_first(single)}; correct these if they are typos"
    if absent := [name for name in classes if name.lower() in MISSING]:
        return classes, f"WARNING: {join_first(absent)} is taken for a class; empty its cells if it is none"
    if problem_type == "ordinal" and labels.numbers is None:
        return classes, "GUESS: the order of the alphabet; write them from the lowest to the highest"
    return classes, ""


def choose_metric(labels: LabelSummary, problem_type: ProblemType) -> tuple[str, str]:
    """Metric and reason, where the user names none."""
    if problem_type == "regression" and len(labels.found.targets) == 1:
        return "rmse", "GUESS, the usual one for a single target"
    if problem_type == "regression":
        assert labels.numbers is not None
        deviations = labels.numbers.std()
        ratio = deviations.max() / deviations.min() if deviations.min() > 0 else np.inf
        said = f"GUESS: the targets' standard deviations differ {ratio:.1f} times"
        return (
            ("rmse", f"{said}, little")
            if ratio <= 2
            else ("r2", f"{said}, so that in rmse the widest would decide")
        )
    if problem_type == "ordinal":
        return "quadratic_kappa", "GUESS, the usual one for grades"
    if labels.top > 1:
        return f"map_at_{labels.top}", f"GUESS: the sample names up to {labels.top} classes in a cell"
    if problem_type == "multiclass" and labels.column_per_class:
        return "log_loss", "GUESS: the sample has a column for each class"
    if problem_type != "multiclass" and not labels.named_in_sample:
        return "roc_auc", "GUESS, the usual one for two classes"
    ratio = labels.counts.max() / labels.counts.min()
    said = (
        f"GUESS: labels are submitted, and the largest class has {ratio:.1f} times the rows of the smallest"
    )
    return ("accuracy" if ratio <= IMBALANCED else "f1" if problem_type == "binary" else "f1_macro"), said
