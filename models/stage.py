"""The contract of a stage: what it is told, and the two methods that it has.

A stage of your own is a file with a class that has the two methods below, and a block in the YAML (`kind: custom`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from competition.config import CompetitionConfig
from competition.errors import ConfigError
from competition.files import read_json, write_json
from competition.tables import Rows
from competition.task import Task
from competition.types import Array, Integers
from models.config import FileStage
from models.settings import Stage

NOTES = "notes.json"
NEARLY_IN, NEARLY_ONE = 1e-6, 1e-3
"""How far probabilities may lie outside 0 to 1, and their sum from 1, since files have few decimals."""


@dataclass(frozen=True)
class Context:
    """What a stage is told beside its own settings."""

    smiles: list[str]
    text: list[str]
    numeric: list[str]
    categorical: list[str]
    task: Task
    seed: int
    """Seed of this job; every random number of the stage comes from it."""
    cache: Path
    """Folder of conformers and descriptors, shared by all jobs."""
    progress: Callable[[int, int], None] = lambda done, total: None
    """Called with steps done and steps in all."""
    auxiliary: list[str] = field(default_factory=list)
    """Targets beyond those of the task that may be trained on."""
    id: str = "id"
    """Column that names a row in files of the user's."""
    predicts_held_out: bool = False
    """Whether the rows to predict are of the training table: an id may stand in both tables."""
    tries_again: bool = True
    """Whether a network that is no better than the mean is trained once more; where time is measured it is not."""
    threads: int = 1
    """Cores that training may use, of a stage whose result does not depend on it."""
    division: Integers | None = None
    """(n_rows,) numbers of the folds of the training rows, which are other ones than that which is predicted. Rows of a
    group have one number; `Rows.groups` and `Rows.times` are for finer splits."""
    folds: list[Path] = field(default_factory=list)
    """For a refit on all rows: the folders that the folds of this seed were fitted in, whose choices it takes over."""


class FittedStage(Protocol):
    """The contract; `tests/models/test_contract.py` holds every kind to it.

    What labels and predictions are, by `context.task.problem_type`, which is never ordinal (grades come as numbers, or
    as a multilabel task):

    | | y, (n_rows, n_targets) | predictions, (n_rows, n_outputs) |
    |---|---|---|
    | regression | numbers | numbers in the targets' own units |
    | binary, multilabel | 0 or 1 | the probability of 1 for each target |
    | multiclass | the number of the class in `task.classes` | a probability for each class, which sum to 1 |

    A class that no training row has gets the probability 0.
    """

    def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
        """Fit on the rows of `train` alone and write all that prediction needs into the empty `folder`.

        Args:
            train: rows with labels, NaN where one is missing. A split of them must keep `train.groups` together.
            valid: the held-out rows, given only to stages with `keep: best_on_held_out` or `monitor: held_out`.
            folder: exists and is empty.
        """

    def predict(self, rows: Rows, folder: Path) -> Array:
        """Predictions (n_rows, n_outputs), in the order of `rows` and of `task.outputs`, from `folder`."""


def improbable(task: Task, y_pred: Array) -> NDArray[np.bool_]:
    """Which rows (n_rows,) of predictions (n_rows, n_outputs) are no probabilities of the classes; NaN is let through.

    They must lie in 0 to 1 and, where there is one for each class, sum to 1; of numbers no row is wrong.
    """
    wrong = (np.abs(y_pred - 0.5) > 0.5 + NEARLY_IN).any(axis=1)
    wrong |= (task.problem_type == "multiclass") & (np.abs(y_pred.sum(axis=1) - 1) > NEARLY_ONE)
    return np.asarray(wrong & task.has_probabilities)


def as_probabilities(task: Task, y_pred: Array) -> Array:
    """Predictions that are nearly probabilities, as `improbable` lets them pass, as exact ones; numbers as they are."""
    if task.has_probabilities:
        y_pred = np.clip(y_pred, 0.0, 1.0)
    return y_pred / y_pred.sum(axis=1, keepdims=True) if task.problem_type == "multiclass" else y_pred


def write_notes(folder: Path, notes: list[str]) -> None:
    """Leave sentences for a person in a job's folder, while it is fitted: printed and reported once per stage.

    They are added to those that are there, of which a fit that begins again has some, too.
    """
    write_json(folder / NOTES, list(dict.fromkeys([*read_notes(folder), *notes])))


def read_notes(folder: Path) -> list[str]:
    """The sentences of a job; none where it left no file."""
    return list(read_json(folder / NOTES)) if (folder / NOTES).exists() else []


def require_inputs(stage: Stage, competition: CompetitionConfig) -> None:
    """Check that there is something to learn from; predictions made elsewhere need nothing."""
    if not competition.inputs and not isinstance(stage, FileStage):
        raise ConfigError(
            "at least one input column must be named under smiles, text, numeric or categorical of competition, where "
            "not every stage is of kind file; found none. Name one, or remove this stage."
        )


def molecule_columns(columns: list[str], smiles: list[str], kind: str) -> list[str]:
    """The molecule columns that a stage reads: those it names, else all."""
    foreign = [column for column in columns if column not in smiles or columns.count(column) > 1]
    if foreign or not smiles:
        raise ConfigError(
            f"a stage of kind {kind} needs columns of competition.smiles ({', '.join(smiles) or 'none is named'}), "
            f"each once; found {', '.join(foreign) or 'none'}."
        )
    return columns or smiles
