"""The interface of a stage: the methods that it implements, and the `Context` that it gets.

A user-defined stage is a class with `fit` and `predict` in a file, and a block in the YAML:

    stages:
      mine: {kind: custom, code: mine.py:Mine, settings: {n_neighbors: 5}}

The class is called with its settings and a `Context`. `tests/models/custom_stage.py` is a small example.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.config import CompetitionConfig
from competition.dataset import Dataset
from competition.task import Task
from core.errors import ConfigError
from core.files import read_json, write_json
from core.types import Array, Integers

NOTES = "notes.json"
RANGE_TOLERANCE = 1e-6
"""How far a probability may be outside 0 to 1."""
SUM_TOLERANCE = 1e-3
"""How far the sum of a row's class probabilities may be from 1, since files have few decimals."""


@dataclass(frozen=True)
class HeldOut:
    """The held-out fold of a job, to watch training by. Nothing may be selected by its score."""

    rows: Dataset
    """Held-out rows without labels."""
    score: Callable[[Array], float]
    """Maps predictions for these rows, (n_rows, n_outputs), to the metric of the competition. It may raise any
    error, since the metric may be the user's."""


@dataclass(frozen=True)
class Context:
    """What a stage gets in addition to its settings."""

    smiles: list[str]
    """Molecule columns of the inputs. Their cells are canonical SMILES."""
    text: list[str]
    """Text columns of the inputs."""
    numeric: list[str]
    """Numeric columns of the inputs, user-defined features included. A missing number is NaN."""
    categorical: list[str]
    """Categorical columns of the inputs. Their cells are strings."""
    task: Task
    """What the stage learns: targets, outputs, problem type and classes."""
    seed: int
    """Seed of this job. Every random number of the stage must be derived from it."""
    cache: Path
    """Folder for conformers and features of molecules and texts, which all jobs share."""
    progress: Callable[[int, int], None] = lambda done, total: None
    """Function that a stage may call during a fit with the number of finished steps and of all steps."""
    auxiliary: list[str] = field(default_factory=list)
    """Columns of additional targets that a stage may train on (competition.auxiliary_targets)."""
    id: str = "id"
    """Name of the id column in files of the user."""
    predicts_held_out: bool = False
    """Whether the rows to predict are held-out training rows, not test rows. External predictions are
    looked up by id, and both tables may contain the same ids."""
    retry_failed_fit: bool = True
    """Whether a network that does not beat the mean predictor is fitted once more with another seed."""
    held_out: HeldOut | None = None
    """Held-out rows and their score, which networks write into losses.csv after each epoch. None for a refit."""
    threads: int = 1
    """Number of CPU cores that training may use, if its result does not depend on this number."""
    fold_ids: Integers | None = None
    """Folds of the training rows, (n_rows,), for splits inside them; the predicted fold is not
    among them. Rows of one group are in one fold. `Dataset.groups` and `Dataset.times` allow finer
    splits."""
    fold_model_dirs: list[Path] = field(default_factory=list)
    """For a refit on all rows: the folders of the fold models of this seed. The refit reads from
    them what the folds selected, such as the number of trees. Empty for the model of a fold."""


@dataclass(frozen=True)
class CheckTables:
    """What `check` knows before anything is trained.

    Attributes:
        task: what the stage learns.
        train: prepared training table; its last rows are those of extra_train.
        test: prepared test table.
        folds: (n_rows without extra_train,), -1 for rows that train in every fold.
        groups: (n_rows without extra_train,), equal for rows that share a fold.
        in_time_order: whether the rows of a fold are later than its training rows.
    """

    competition: CompetitionConfig
    task: Task
    train: pd.DataFrame
    test: pd.DataFrame
    folds: Integers
    groups: Integers
    in_time_order: bool

    @property
    def y(self) -> Array:
        """Labels of the training table, (n_rows without extra_train, n_targets)."""
        return self.train[self.task.targets].to_numpy()[: len(self.folds)]


class StageModel(Protocol):
    """The interface of a stage. `tests/models/test_contract.py` tests every kind against it.

    `context.task.problem_type` determines labels and predictions. It is never ordinal, except for
    external predictions: an ordinal task is passed as regression of its levels.

    | problem type | y, (n_rows, n_targets) | predictions, (n_rows, n_outputs) |
    |---|---|---|
    | regression | values | values in the units of the targets |
    | binary, multilabel | 0 or 1 | probability of 1, for each target |
    | multiclass | index of the class in `task.classes` | probability of each class, with a sum of 1 |

    A class without training rows gets probability 0.

    A stage may have a third method `predict_std`, with the arguments of `predict`. It returns the standard
    deviation of the label of each row for regression, (n_rows, n_outputs). It is written beside the
    predictions, and blends do not use it.
    """

    def fit(self, train: Dataset, folder: Path) -> None:
        """Fit on the rows of `train` and write everything that prediction needs into `folder`.

        Args:
            train: training rows with labels. Missing labels are NaN. Rows with the same value of
                `train.groups` must be on the same side of every split inside them.
            folder: existing, empty folder.
        """

    def predict(self, rows: Dataset, folder: Path) -> Array:
        """Return predictions for rows, (n_rows, n_outputs), by a model that was fitted into `folder`.

        It may be called on a new object in another process than `fit`.

        Args:
            rows: rows without labels. The prediction of a row must not depend on the other rows.
            folder: folder that `fit` wrote to.

        Returns:
            Finite predictions. Rows are in the order of `rows`, columns in the order of `task.outputs`.
        """


def invalid_probability_rows(task: Task, y_pred: Array) -> NDArray[np.bool_]:
    """Return which rows of predictions are not probabilities, (n_rows,); none for regression.

    Probabilities are between 0 and 1, and for multiclass they sum to 1. NaN is accepted.

    Args:
        y_pred: predictions (n_rows, n_outputs).
    """
    if not task.has_probabilities:
        return np.zeros(len(y_pred), dtype=bool)
    is_invalid = (np.abs(y_pred - 0.5) > 0.5 + RANGE_TOLERANCE).any(axis=1)
    if task.problem_type == "multiclass":
        is_invalid |= np.abs(y_pred.sum(axis=1) - 1) > SUM_TOLERANCE
    return np.asarray(is_invalid)


def as_probabilities(task: Task, y_pred: Array) -> Array:
    """Return exact probabilities: clipped to 0 to 1 and, for multiclass, divided by their sum.

    Args:
        y_pred: predictions (n_rows, n_outputs) that `invalid_probability_rows` accepts. Regression
            predictions are returned unchanged.
    """
    if task.has_probabilities:
        y_pred = np.clip(y_pred, 0.0, 1.0)
    return y_pred / y_pred.sum(axis=1, keepdims=True) if task.problem_type == "multiclass" else y_pred


def write_notes(folder: Path, notes: list[str]) -> None:
    """Add messages for the user to a job's folder, which are printed and reported once per stage.

    A stage calls it in `fit`. Messages that the file already contains, for example from an
    interrupted fit, are not repeated.
    """
    write_json(folder / NOTES, list(dict.fromkeys([*read_notes(folder), *notes])))


def read_notes(folder: Path) -> list[str]:
    """Return the messages of a job; empty if it wrote none."""
    return list(read_json(folder / NOTES)) if (folder / NOTES).exists() else []


def molecule_columns(columns: list[str], smiles: list[str], kind: str) -> list[str]:
    """Return the molecule columns that a stage of some kind reads.

    Args:
        columns: setting of the stage; empty for all molecule columns.
        smiles: molecule columns of the competition.

    Raises:
        ConfigError: a column is not a molecule column or is repeated, or the competition has no
            molecule columns.
    """
    invalid = [column for column in columns if column not in smiles or columns.count(column) > 1]
    if invalid or not smiles:
        raise ConfigError(
            f"a stage of kind {kind} requires columns of competition.smiles "
            f"({', '.join(smiles) or 'empty'}), each once; got {', '.join(invalid) or 'none'}."
        )
    return columns or smiles
