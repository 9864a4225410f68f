"""What a stage gets besides its settings and rows: the `Context` of a job, and the tables of `check`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from competition.dataset import Dataset
from competition.swap import Swap
from competition.task import Task
from core.errors import ConfigError
from core.types import Array, Integers


@dataclass(frozen=True)
class HeldOut:
    """The held-out fold of a job, to watch training by. Nothing may be selected by its score."""

    rows: Dataset
    """Held-out rows without labels."""
    score: Callable[[Array], float]
    """Maps predictions for these rows, (n_rows, n_outputs), to their score (`CompetitionConfig.fold_scorer`).
    It may raise any error, since the metric may be the user's."""


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
    held_out: HeldOut | None = None
    """Held-out rows and their score, which networks write into losses.csv after some epochs. None for a
    refit."""
    threads: int = 1
    """Number of CPU cores that training may use, if its result does not depend on this number."""
    pairs: list[list[str]] = field(default_factory=list)
    """Text columns that are compared, two each (competition.pairs)."""
    swap: Swap | None = None
    """Columns that may change places, and their labels (competition.swap). Training rows are in all orders."""
    fold_ids: Integers | None = None
    """Folds of the training rows, (n_rows,), for splits inside them; the predicted fold is not
    among them. Rows of one group are in one fold. `Dataset.groups` and `Dataset.times` allow finer
    splits."""
    fold_model_dirs: list[Path] = field(default_factory=list)
    """For a refit on all rows: the folders of the fold models of this seed. The refit reads from
    them what the folds selected, such as the number of trees. Empty for the model of a fold."""

    @property
    def inputs(self) -> list[str]:
        """All columns of the inputs, user-defined features included."""
        return [*self.smiles, *self.text, *self.numeric, *self.categorical]


@dataclass(frozen=True)
class CheckTables:
    """What `check` knows before anything is trained.

    Attributes:
        context: columns and task of the competition.
        task: what the stage learns.
        train: prepared training table; its last rows are from extra_train.
        test: prepared test table.
        folds: (n_rows without extra_train,), -1 for rows that train in every fold.
        groups: (n_rows without extra_train,), equal for rows that share a fold.
        in_time_order: whether the rows of a fold are later than its training rows.
        has_weights: whether the rows of the training table have weights.
        has_extra_weights: whether rows of an extra table count more or less than others.
        here: whether this machine trains.
    """

    context: Context
    task: Task
    train: pd.DataFrame
    test: pd.DataFrame
    folds: Integers
    groups: Integers
    in_time_order: bool
    has_weights: bool = False
    has_extra_weights: bool = False
    here: bool = True

    @property
    def y(self) -> Array:
        """Labels of the training table, (n_rows without extra_train, n_targets)."""
        return self.train[self.task.targets].to_numpy()[: len(self.folds)]


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
