"""What is predicted: the targets, their classes, and the names of the columns that every stage predicts."""

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from competition.classes import class_numbers
from competition.config import CompetitionConfig
from competition.metrics import Metric, named_metric, top_of, users_metric
from competition.types import Array, ProblemType


@dataclass(frozen=True)
class Task:
    """What every stage, metric and writer is told of what is predicted.

    Labels are (n_rows, n_targets) with NaN where one is missing: numbers, or the number of a class. Predictions are
    (n_rows, n_outputs): a number for each target (regression, ordinal), the probability of class 1 for each (binary,
    multilabel), or that of each class (multiclass). What a blend sees is (n_rows, n_columns, n_outputs).

    targets: names of the label columns in the training table.
    submission_columns: names of the sample's columns, where they differ.
    classes: labels of all targets, in the order of their numbers; empty in regression.
    decides: whether labels are submitted and scored, and not numbers or probabilities.
    top: how many classes a submission names for each row, likeliest first; None where it does not.
    absolute_errors: whether the metric is made of absolute errors, which trees then minimise instead of squared ones.
    """

    targets: list[str]
    submission_columns: list[str] | None = None
    problem_type: ProblemType = "regression"
    classes: list[str] = field(default_factory=list)
    decides: bool = False
    top: int | None = None
    absolute_errors: bool = False

    @property
    def has_probabilities(self) -> bool:
        """Whether stages predict probabilities, and not numbers."""
        return self.problem_type in ("binary", "multiclass", "multilabel")

    @property
    def outputs(self) -> list[str]:
        """Names of the predicted columns: the target itself, or `target=class` for each class of a multiclass one."""
        if self.problem_type != "multiclass":
            return self.targets
        return [f"{self.targets[0]}={name}" for name in self.classes]

    @property
    def scored(self) -> list[str]:
        """Names of the columns that the metric scores: labels under the targets, or the outputs."""
        return self.targets if self.decides else self.outputs

    @property
    def columns_in_sample(self) -> list[str]:
        """Names of the sample's columns beside the id, in the order of `targets`, or of `classes`."""
        return self.submission_columns or self.targets

    @property
    def has_column_per_class(self) -> bool:
        """Whether the sample has a column for each class of the single target."""
        return len(self.columns_in_sample) > len(self.targets)

    def truth(self, y: Array) -> Array:
        """Labels (n_rows, n_targets) as a perfect prediction, (n_rows, n_outputs); NaN where there is no label."""
        if self.problem_type != "multiclass":
            return y
        return np.where(np.isnan(y), np.nan, (y == np.arange(len(self.classes))).astype(np.float64))

    def likeliest(self, y_pred: Array) -> Array:
        """Labels (n_rows, n_targets) by what is likeliest, of predictions (n_rows, n_outputs), without any tuning."""
        if self.problem_type == "multiclass":
            return y_pred.argmax(axis=1)[:, None].astype(np.float64)
        return np.clip(np.floor(y_pred + 0.5), 0, len(self.classes) - 1)


def task_of(config: CompetitionConfig) -> Task:
    """The task of a `competition:` section."""
    metric, names = named_metric(config.metric), (config.targets, config.submission_columns)
    absolute_errors = metric is not None and metric.per_target == "absolute"
    task = Task(*names, config.problem_type, config.classes, config.decides, None, absolute_errors)
    return task if task.has_column_per_class else replace(task, top=top_of(config.metric))


def metric_of(config: CompetitionConfig) -> Metric:
    """The metric of a `competition:` section: a named one, or the user's function."""
    named = named_metric(config.metric, config.problem_type)
    return named or users_metric(config.metric, bool(config.greater_is_better), config.needs)


def to_sample(task: Task, scored: Array) -> pd.DataFrame:
    """What the metric scores, (n_rows, n_scored), as the columns that the sample asks for, without the id.

    Labels become names of classes, or 0 and 1 in a column per class; probabilities stay numbers, in the likeliest
    classes' names where the sample asks for these.
    """
    names = np.array(task.classes, dtype=object)
    if task.decides and not task.has_column_per_class:
        return pd.DataFrame(names[scored.astype(np.int64)], columns=task.columns_in_sample)
    if task.decides:
        scored = (scored == np.arange(len(names))).astype(np.int64)
    elif task.top:
        places = np.argsort(-scored, axis=1, kind="stable")[:, : task.top]
        return pd.DataFrame({task.columns_in_sample[0]: [" ".join(row) for row in names[places]]})
    elif task.has_column_per_class and len(task.outputs) == 1:
        scored = np.hstack([1 - scored, scored])
    return pd.DataFrame(scored.reshape(len(scored), -1), columns=task.columns_in_sample)


def from_sample(task: Task, table: pd.DataFrame) -> Array:
    """What `to_sample` was given, from the columns of a submission as text; NaN for a cell that it cannot have made.

    Of the classes that a row names, likeliest first, 1 over the place stands for their probabilities.
    """
    if task.decides and not task.has_column_per_class:
        return np.column_stack([class_numbers(table[name], task.classes)[0] for name in task.columns_in_sample])
    if task.top:
        rows = [cell.split() for cell in table[task.columns_in_sample[0]]]
        return np.array([[1 / (1 + row.index(name)) if name in row else 0.0 for name in task.classes] for row in rows])
    numbers = table[task.columns_in_sample].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    if task.decides:
        return np.where(np.isnan(numbers).any(axis=1), np.nan, numbers.argmax(axis=1))[:, None]
    return numbers[:, 1:] if task.has_column_per_class and len(task.outputs) == 1 else numbers
