"""Base classes of the stages that train a network: what a kind implements, its fit and its predictions."""

import math
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import NonNegativeFloat

from competition.dataset import Dataset
from core.modules import load
from core.types import Array
from core.user_code import MAX_SECONDS, time_limit, user_code
from models.context import CheckTables, Context, molecule_columns
from models.hardware import cards_in_new_process, cpu_has_bf16, require_precision
from models.targets import require_auxiliary
from models.training.batches import Batches, join_columns
from models.training.schedules import with_warmup
from models.training.settings import Schedule, TrainingSettings

if TYPE_CHECKING:
    from torch import nn

TRAINING_LOOP = "models.training.neural"
COLUMNS = "models.inputs.columns"
SCALING = "models.inputs.scaling"


class NeuralStage(TrainingSettings):
    """A stage that trains a network.

    The network is the backbone of the kind, and a head that the project adds. A kind implements two
    methods, `backbone` and `encode`; docs/own_network.md has an example. Some kinds also override
    `initial_backbone` and `n_augmentations`.
    """

    network_module: ClassVar[str] = ""
    """Module of the project with the network of a built-in kind, which is imported by name
    (`core.modules.load`), since it imports torch. A user-defined class imports torch in its file."""

    @abstractmethod
    def backbone(self, folder: Path, context: Context) -> "nn.Module":
        """Return a network of the right shape with any weights.

        Its attribute `width` is the number of pooled features, and it maps the tensors of a batch of
        `encode`, which it gets by name, to features (n_rows, width). It is called before training and
        before every prediction, so that its shape must not depend on anything but the settings, the
        context, and what `initial_backbone` wrote into `folder`.
        """

    def initial_backbone(self, train: Dataset, folder: Path, context: Context) -> "nn.Module":
        """Return the backbone with the weights to start from, and write what else it needs into `folder`.

        Override it to make a vocabulary from the training rows, or to load weights. Everything that
        `backbone` and `encode` read in addition to the settings must be in `folder` afterwards.
        """
        return self.backbone(folder, context)

    @abstractmethod
    def encode(self, rows: Dataset, folder: Path, context: Context, augmentation: int, seed: int) -> Batches:
        """Return rows as the backbone reads them, one item per row.

        Args:
            augmentation: 0 for none. Others are variants of the inputs, such as randomized SMILES, which
                must depend on (augmentation, seed, input) only.
        """

    def modules(self, context: Context) -> list[str]:
        """Return also the loop, the network, and what scales the columns before the head.

        See `Stage.modules`.
        """
        names = [*super().modules(context), TRAINING_LOOP]
        names += [self.network_module] if self.network_module else []
        return names + ([COLUMNS, SCALING] if self.reads_columns(context) else [])

    def reads_columns(self, context: Context) -> bool:
        """Return whether features, numbers or categories are concatenated with the pooled features."""
        has_columns = bool(context.numeric or context.categorical)
        return self.reads_features or (self.use_tabular_columns and has_columns)

    def fit(self, train: Dataset, folder: Path, context: Context) -> None:
        """Train a network."""
        load(TRAINING_LOOP).fit(self, train, folder, context)

    def predict(self, rows: Dataset, folder: Path, context: Context) -> Array:
        """Return the predictions of rows, (n_rows, n_outputs), as means over augmentations."""
        y_pred: Array = load(TRAINING_LOOP).predict(self, rows, folder, context)
        return y_pred

    def check_machine(self) -> None:
        """Raise a ConfigError if the hardware does not support `precision`."""
        if self.precision not in ("bf16", "fp16"):
            return
        cards = cards_in_new_process()[0] if self.gpu else []
        has_bf16 = all(card.has_bf16 for card in cards) if cards else cpu_has_bf16()
        require_precision(self.precision, bool(cards), has_bf16)

    def check(self, tables: CheckTables) -> Iterator[str]:
        """Check auxiliary targets, and a user's loss and schedule as well; see `Stage.check`."""
        yield from super().check(tables)
        if self.learns_auxiliary_targets:
            names = tables.context.auxiliary
            require_auxiliary(tables.train[names].to_numpy(), names, tables.task.problem_type)
        if self.loss and any(user_code(self.loss)):
            losses = load("models.training.losses")
            n_labels = len(tables.task.targets)
            n_labels += len(tables.context.auxiliary) if self.learns_auxiliary_targets else 0
            with time_limit(MAX_SECONDS):
                losses.try_loss(self.loss, tables.task, n_labels)
        if any(user_code(self.schedule)):
            n_steps = self.epochs * math.ceil(len(tables.train) / self.batch_size)
            with time_limit(MAX_SECONDS):
                list(map(with_warmup(self, n_steps), range(n_steps)))


class MoleculeStage(NeuralStage):
    """A stage with a backbone that reads one molecule column at a time.

    A kind implements `backbone` and `encode_molecules`.
    """

    weights: str | None = None
    """Name of a weight set, or file, to start from (gnn: chemeleon, admet, or message passing that
    chemprop saved). null: random initialization."""
    columns: list[str] = []
    """Molecule columns. Each goes through the same backbone; a hidden layer combines them. Empty:
    all of them."""
    schedule: Schedule = "one_cycle"
    weight_decay: NonNegativeFloat = 0.0

    @property
    def initial_weights(self) -> str | None:
        """The weights that the setting `weights` names."""
        return self.weights

    def check(self, tables: CheckTables) -> Iterator[str]:
        """Check `columns` as well; see `Stage.check`."""
        molecule_columns(self.columns, tables.context.smiles, self.kind)
        yield from super().check(tables)

    def encode_molecules(
        self, smiles: list[str], folder: Path, context: Context, augmentation: int
    ) -> Batches:
        """Return the molecules of a column; equal molecules are the same object."""
        raise NotImplementedError(f"a stage of kind {self.kind} needs encode_molecules")

    def encode(self, rows: Dataset, folder: Path, context: Context, augmentation: int, seed: int) -> Batches:
        """Return the molecules of all columns, joined."""
        columns = []
        for name in molecule_columns(self.columns, context.smiles, self.kind):
            columns.append(self.encode_molecules(list(rows.inputs[name]), folder, context, augmentation))
        return join_columns(columns, once=self.backbone_dropout == 0)
