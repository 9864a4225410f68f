"""What is predicted: the targets, their classes, and the names of the columns that every stage predicts."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.config import CompetitionConfig

ProblemType = Literal["regression", "binary", "multiclass", "multilabel", "ordinal"]


@dataclass(frozen=True)
class Task:
    """What every stage, metric and writer is told of what is predicted.

    Labels are (n_rows, n_targets) with NaN where one is missing, predictions are (n_rows, n_outputs), and what a blend
    sees is (n_rows, n_columns, n_outputs).

    targets: names of the label columns in the training table.
    submission_columns: names of the targets in the sample, where they differ.
    problem_type: only regression is trained and scored so far.
    classes: of each multiclass target its classes, in the order of their outputs; no other target has any.
    """

    targets: list[str]
    submission_columns: list[str] | None = None
    problem_type: ProblemType = "regression"
    classes: dict[str, list[str]] = field(default_factory=dict)

    @property
    def outputs(self) -> list[str]:
        """Names of the predicted columns: the target itself, or `target=class` for each class of a multiclass one."""
        names = ([f"{target}={name}" for name in self.classes.get(target, [])] or [target] for target in self.targets)
        return list(chain.from_iterable(names))

    @property
    def columns_in_sample(self) -> list[str]:
        """Names of the targets in the sample, in the order of `targets`."""
        return self.submission_columns or self.targets


def task_of(config: CompetitionConfig) -> Task:
    """The task of a `competition:` section."""
    return Task(config.targets, config.submission_columns)


def to_sample(task: Task, y_pred: NDArray[np.float64]) -> pd.DataFrame:
    """Predictions, (n_rows, n_outputs), as the columns that the sample asks for, without the id.

    In regression these are the outputs under the sample's names.
    """
    if task.problem_type != "regression":
        raise NotImplementedError(f"no submission is written for problem_type {task.problem_type} yet")
    return pd.DataFrame(y_pred.reshape(-1, len(task.outputs)), columns=task.columns_in_sample)
