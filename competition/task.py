"""What is predicted: the targets, their classes, and the names of the columns that every stage predicts.

Class labels in tables are 0 and 1, booleans, names, or ordinal levels.
"""

import re
import sys
from dataclasses import dataclass, field
from functools import cache
from os.path import commonprefix
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import BeforeValidator

from core.types import Array, ProblemType

MISSING = {"", "na", "n/a", "nan", "null", "none"}
"""Cells without a number or label, in lower case. If other classes are names, None and NA may be classes."""

WORD = r"(?<![^\W_]){}(?![^\W_])"
"""Regular expression of a name between characters that are neither letters nor digits."""
MIN_LENGTH = 3
"""Number of characters from which a name may be a part of a word, since others are there by chance."""
N_CLASSES: dict[ProblemType, tuple[str, range]] = {
    "regression": ("no", range(1)), "binary": ("two", range(2, 3)), "multilabel": ("two", range(2, 3)),
    "multiclass": ("two or more", range(2, sys.maxsize)), "ordinal": ("two or more", range(2, sys.maxsize)),
}  # fmt: skip
"""Problem type -> number of classes that it takes, as text and as a range."""
BOOLEANS = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}


@dataclass(frozen=True)
class Task:
    """What stages, metrics and submission writers need to know about the targets.

    Labels are (n_rows, n_targets), NaN if missing: values in regression, otherwise class numbers. Predictions
    are (n_rows, n_outputs): a value per target (regression, ordinal), the probability of class 1 per target
    (binary, multilabel), or a probability per class (multiclass). The inputs of a blend are (n_rows,
    n_models, n_outputs).

    Attributes:
        targets: names of the label columns in the training table.
        submission_columns: names of the columns of the sample submission if they differ from the targets.
        classes: labels of all targets, in the order of their numbers; empty in regression.
        labels_in_sample: the same as a submission has them, if it has others.
        scores_labels: whether labels are submitted and scored instead of values or probabilities.
        top_k: how many classes a submission lists per row, most probable first; None if it lists none.
        minimizes_absolute_error: whether the metric consists of absolute errors. Trees then minimize Huber's
            loss instead of squared errors.
        target_transform: `target_transform` of stages that set none, which depends on the metric.
    """

    targets: list[str]
    submission_columns: list[str] | None = None
    problem_type: ProblemType = "regression"
    classes: list[str] = field(default_factory=list)
    labels_in_sample: list[str] = field(default_factory=list)
    scores_labels: bool = False
    top_k: int | None = None
    minimizes_absolute_error: bool = False
    target_transform: str = "none"

    @property
    def has_probabilities(self) -> bool:
        """Whether stages predict probabilities instead of values."""
        return self.problem_type in ("binary", "multiclass", "multilabel")

    @property
    def outputs(self) -> list[str]:
        """Names of the predicted columns: the targets, or `target=class` for each class of a multiclass
        target.
        """
        if self.problem_type != "multiclass":
            return self.targets
        return [f"{self.targets[0]}={name}" for name in self.classes]

    @property
    def scored_columns(self) -> list[str]:
        """Names of the columns that the metric scores: the targets if labels are scored, else the outputs."""
        return self.targets if self.scores_labels else self.outputs

    @property
    def written_classes(self) -> list[str]:
        """Labels of the classes in a submission."""
        return self.labels_in_sample or self.classes

    @property
    def columns_in_sample(self) -> list[str]:
        """Columns of the sample submission except the id, in the order of `targets`, or of `classes`."""
        return self.submission_columns or self.targets

    @property
    def has_column_per_class(self) -> bool:
        """Whether the sample submission has a column for each class of the only target."""
        return len(self.columns_in_sample) > len(self.targets)

    def one_hot(self, y: Array) -> Array:
        """Return labels (n_rows, n_targets) as perfect predictions, (n_rows, n_outputs); NaN for missing
        labels.
        """
        if self.problem_type != "multiclass":
            return y
        return np.where(np.isnan(y), np.nan, (y == np.arange(len(self.classes))).astype(np.float64))

    def on_scale_of_levels(self, values: Array) -> Array:
        """Return ordinal labels or predictions on the scale of numeric levels, such as stars from 1 to 5.

        Inside the project they count the levels from 0. Values of other problem types, and of levels that are
        names, are returned unchanged.
        """
        levels = self._numeric_levels
        return values if levels is None else np.interp(values, np.arange(len(levels)), levels)

    def from_scale_of_levels(self, values: Array) -> Array:
        """Return values on the scale of numeric levels as counts from 0, the reverse of `on_scale_of_levels`."""
        levels = self._numeric_levels
        if levels is None:
            return values
        order = np.argsort(levels)  # classes may be in descending order
        return np.interp(values, levels[order], order)

    @property
    def _numeric_levels(self) -> Array | None:
        """The levels of an ordinal target; None for other targets, and for levels that are names."""
        if self.problem_type != "ordinal":
            return None
        levels = pd.to_numeric(pd.Series(self.classes), errors="coerce").to_numpy(dtype=np.float64)
        return None if np.isnan(levels).any() else levels

    def default_labels(self, y_pred: Array) -> Array:
        """Return labels (n_rows, n_targets) of predictions (n_rows, n_outputs) without tuned thresholds.

        They are the most probable class (multiclass), class 1 from a probability of 0.5 on (binary,
        multilabel), or the nearest level (ordinal).
        """
        if self.problem_type == "multiclass":
            return y_pred.argmax(axis=1)[:, None].astype(np.float64)
        return np.clip(np.floor(y_pred + 0.5), 0, len(self.classes) - 1)

    def as_scored(self, y_pred: Array) -> Array:
        """Return what the metric scores, (n_rows, n_scored): labels without tuned thresholds, or the predictions."""
        return self.default_labels(y_pred) if self.scores_labels else y_pred


def to_submission_columns(task: Task, scored: Array) -> pd.DataFrame:
    """Convert what the metric scores to the columns of the sample submission, without the id.

    Labels become class names, or 0 and 1 in a column per class. Probabilities stay numbers, or become the
    names of the most probable classes if the sample submission lists classes.

    Args:
        scored: (n_rows, n_scored) labels or predictions, in the order of `task.scored_columns`.
    """
    class_names = np.array(task.written_classes, dtype=object)
    if task.scores_labels and not task.has_column_per_class:
        return pd.DataFrame(class_names[scored.astype(np.int64)], columns=task.columns_in_sample)
    if task.scores_labels:
        scored = (scored == np.arange(len(class_names))).astype(np.int64)
    elif task.top_k:
        ranked_classes = np.argsort(-scored, axis=1, kind="stable")[:, : task.top_k]
        return pd.DataFrame(
            {task.columns_in_sample[0]: [" ".join(row) for row in class_names[ranked_classes]]}
        )
    elif task.has_column_per_class and len(task.outputs) == 1:
        scored = np.hstack([1 - scored, scored])
    return pd.DataFrame(scored.reshape(len(scored), -1), columns=task.columns_in_sample)


def from_submission_columns(task: Task, table: pd.DataFrame) -> Array:
    """Return the scored array from the columns of a submission as text; NaN for invalid cells.

    It is the inverse of `to_submission_columns`. If rows list classes, a listed class gets 1 divided by its
    rank in place of its probability.
    """
    if task.scores_labels and not task.has_column_per_class:
        return np.column_stack(
            [class_numbers(table[name], task.written_classes)[0] for name in task.columns_in_sample]
        )
    if task.top_k:
        listed = [cell.split() for cell in table[task.columns_in_sample[0]]]
        return np.array([_reciprocal_ranks(names, task.written_classes) for names in listed])
    numbers = table[task.columns_in_sample].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    if task.scores_labels:
        return np.where(np.isnan(numbers).any(axis=1), np.nan, numbers.argmax(axis=1))[:, None]
    return numbers[:, 1:] if task.has_column_per_class and len(task.outputs) == 1 else numbers


def _reciprocal_ranks(listed: list[str], classes: list[str]) -> list[float]:
    return [1 / (1 + listed.index(name)) if name in listed else 0.0 for name in classes]


def class_name(cell: str) -> str:
    """Return the normalized form of a label: no whitespace around it, no decimals of a whole number."""
    return re.sub(r"^([+-]?\d+)\.0*$", r"\1", cell.strip())


ClassName = Annotated[str, BeforeValidator(lambda label: class_name(str(label)))]
"""Normalized class label; a YAML may have numbers and booleans."""


def class_names(labels: pd.DataFrame) -> list[str]:
    """Return the distinct labels of columns of text, sorted as numbers if all of them are, else as text."""
    cells = pd.unique(labels.to_numpy().ravel())
    names = sorted({class_name(cell) for cell in cells} - {"", "nan", "NaN"})
    labelled = [name for name in names if name.lower() not in MISSING]
    numbers = pd.to_numeric(pd.Series(labelled, dtype=str), errors="coerce")
    return names if numbers.isna().any() else [labelled[i] for i in np.argsort(numbers, kind="stable")]


@cache  # the columns are needed at many places, and a competition may have a thousand classes
def match_columns(columns: tuple[str, ...], names: tuple[str, ...]) -> dict[str, str]:
    """Return the class or target that the name of each column contains; {} without a match.

    A column contains the name as a word (prob_high), in upper or lower case. If all columns match, it may
    come after a prefix that all columns share (spam_ham, spam_spam), or be a part of a word, unless names are
    short: profit does not match f. Of several names in a column, the one that contains the others counts
    (not_toxic, toxic). Whole numbers may be written as floats (prob_1.0).
    """
    by_word = _matches(columns, names, WORD)
    prefix = re.sub(r"[^\W_]*$", "", commonprefix(columns))
    ends = {column.removeprefix(prefix): column for column in columns}
    by_end = {ends[end]: name for end, name in _matches(tuple(ends), names, WORD).items()}
    is_distinctive = all(len(name) >= MIN_LENGTH or name.isdigit() for name in names)
    by_part = _matches(columns, names, "{}") if is_distinctive else {}
    complete = [each for each in (by_word, by_end, by_part) if len({*each.values()}) == len(names)]
    if complete:
        return complete[0]
    whole = {re.sub(r"(?<![\d.])(\d+)\.0+(?![\d.])", r"\1", column): column for column in columns}
    if len(whole) == len(columns) and {*whole} != {*columns}:
        matches = match_columns(tuple(whole), names)
        if len({*matches.values()}) == len(names):
            return {whole[column]: name for column, name in matches.items()}
    return by_word


def _containing_all(names: list[str]) -> list[str]:
    """Return the names that contain all the others."""
    return [name for name in names if all(other.lower() in name.lower() for other in names)]


def _matches(columns: tuple[str, ...], names: tuple[str, ...], pattern: str) -> dict[str, str]:
    expressions = [re.compile(pattern.format(re.escape(name)), re.IGNORECASE) for name in names]
    matches = {}
    for column in columns:
        matching = [
            name for name, expression in zip(names, expressions, strict=True) if expression.search(column)
        ]
        longest = _containing_all(matching)
        if column in names:
            longest = [column]
        if len(longest) == 1:
            matches[column] = longest[0]
    return matches


def class_numbers(cells: pd.Series, classes: list[str]) -> tuple[pd.Series, pd.Series]:
    """Return the class index of each cell, NaN without one, and a mask of the cells with an unknown label.

    Booleans may be written True, TRUE or true.
    """
    names = cells.map({cell: class_name(cell) for cell in cells.unique()}).replace(BOOLEANS)
    numbers = names.map({BOOLEANS.get(name, name): float(i) for i, name in enumerate(classes)})
    return numbers.astype(float), numbers.isna() & ~names.str.lower().isin(MISSING)
