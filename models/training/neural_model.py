"""What the neural stages share: a backbone and encoded rows become a fitted stage.

A kind of stage gives four things: `start` and `restore` make its backbone, `encode` and `n_augmentations` its
inputs.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed
from torch import Tensor, nn

from competition.dataset import Dataset
from competition.files import derive_seed
from competition.types import Array
from models.inputs.feature_blocks import fit_columns, read_columns
from models.stage import Context, molecule_columns, write_notes
from models.training import prediction, trainer
from models.training.batches import Batches, EncodedDataset
from models.training.heads import Network, build_head
from models.training.labels import balanced_weights, labelled_rows, require_auxiliary
from models.training.losses import loss_of


class NeuralModel:
    """A neural stage; see `models.stage.StageModel` for the contract.

    loss: what the outputs of the network are, whatever the errors of a user's function.
    n_molecules: molecule columns that the backbone reads one by one.
    """

    def __init__(self, config: Any, context: Context) -> None:
        self.config = config
        self.context = context
        self.auxiliary = context.auxiliary if config.auxiliary_weight > 0 else []
        self.loss = loss_of(config.loss, context.task.problem_type)
        self.n_molecules = 1

    # A kind of stage has these four.

    def start(self, train: Dataset, folder: Path) -> nn.Module:
        """The backbone with the weights to start from, its attribute `width` the length of its pooled
        features.

        Writes to `folder` all that `restore` and `encode` need beyond the trained weights: vocabularies,
        shapes.
        """
        raise NotImplementedError

    def restore(self, folder: Path) -> nn.Module:
        """A backbone of the same shape, whatever its weights."""
        raise NotImplementedError

    def encode(self, rows: Dataset, folder: Path, augmentation: int, seed: int) -> Batches:
        """The rows as the backbone reads them.

        Args:
            augmentation: 0 for none; others are other spellings or conformers, by (augmentation, seed, input)
            alone.
        """
        raise NotImplementedError

    @property
    def n_augmentations(self) -> tuple[int | None, int]:
        """How many there are in training (None: a fresh one each epoch), and that a prediction is the mean
        of.
        """
        return 1, 1

    # And these it gets.

    def fit(self, train: Dataset, valid: Dataset | None, folder: Path) -> None:
        """Train on `train`, on its extra rows first and alone with `extra_rows: pretrain`; see the contract."""
        first = None
        if self.config.extra_rows == "pretrain" and train.extra is not None and train.extra.any():
            first, train = train.take(train.extra), train.take(~train.extra)
        asked, trained = self.config, functools.partial(self._train, train, valid, first, folder)
        if not self._in_memory(trained) and self.context.retry_failed_fit:
            self.context = replace(self.context, seed=derive_seed(self.context.seed, "checkpoint_again"))
            end = "." if self._in_memory(trained) else ", no better either."
            said = (
                "no better than the mean of the training labels with its first seed; trained once more "
                "with another"
            )
            write_notes(folder, [said + end])
        if self.config is not asked:
            size, n = self.config.batch_size, self.config.accumulate
            note = f"the memory is too small for batches of {asked.batch_size}: a step has {n} of {size}."
            write_notes(folder, [note])

    def _train(self, train: Dataset, valid: Dataset | None, first: Dataset | None, folder: Path) -> bool:
        network, sample = self.ready(train, folder)
        others = (None if rows is None else self._sample(rows, folder) for rows in (valid, first))
        return self.trainer_of(network, folder).fit(sample, *others)

    def _in_memory(self, function: Callable[[], Any]) -> Any:
        """What a function gives, with smaller batches where memory runs out."""
        while True:
            try:
                return function()
            except RuntimeError as error:
                self.config = trainer.smaller(self.config, error)

    def trainer_of(self, network: Network, folder: Path) -> trainer.Trainer:
        """What trains a network of this stage."""
        told = self.context
        return trainer.Trainer(network, self.config, told.seed, folder, told.progress, told.task.problem_type)

    def ready(self, train: Dataset, folder: Path) -> tuple[Network, EncodedDataset]:
        """The network with the weights to start from, and the rows as it reads them."""
        set_seed(self.context.seed)
        fit_columns(train, self.config, self.context, folder)
        backbone, sample = self.start(train, folder), self._sample(train, folder)
        labelled_rows(sample.y, [*self.context.task.targets, *self.auxiliary])
        return self._network(backbone, sample.encoded(0)), sample

    def predict(self, rows: Dataset, folder: Path) -> Array:
        """Predictions (n_rows, n_outputs)."""
        encoded, n_outputs = self._encoded(rows, folder, seed=0), len(self.context.task.outputs)
        network, n_forms = self._network(self.restore(folder), encoded(0)), self.n_augmentations[1]
        link = self.loss.link
        return self._in_memory(
            lambda: prediction.predict(network, encoded, n_forms, self.config, folder, n_outputs, link)
        )

    def _network(self, backbone: Any, batches: Batches) -> Network:
        n_outputs = len([*self.context.task.outputs, *self.auxiliary])
        width, n_columns = backbone.width, 0 if batches.columns is None else batches.columns.shape[1]
        n_features = width * self.n_molecules + n_columns
        head = build_head(self.config, width, n_outputs)
        if self.n_molecules > 1:
            backbone = PerColumn(backbone, self.n_molecules)
        return Network(backbone, head, None if n_features == width else (n_features, width))

    def _sample(self, rows: Dataset, folder: Path) -> EncodedDataset:
        y = rows.y
        if self.auxiliary and rows.auxiliary is not None:
            require_auxiliary(rows.auxiliary, self.auxiliary, self.context.task.problem_type)
            y = np.hstack([y, rows.auxiliary])
        weights = np.ones_like(y) * (1.0 if rows.weights is None else rows.weights[:, None])
        weights[:, rows.y.shape[1] :] *= self.config.auxiliary_weight
        if self.config.class_weights == "balanced":
            weights = balanced_weights(y, weights)
        encoded, n = self._encoded(rows, folder, self.context.seed), self.n_augmentations[0]
        return EncodedDataset(lambda number: encoded(number % n if n else number), y, weights)

    def _encoded(self, rows: Dataset, folder: Path, seed: int) -> prediction.Encoded:
        """Encoded rows by augmentation, with the columns that join before the head; the last ones are kept."""
        columns = read_columns(rows, self.config, self.context, folder)

        @functools.lru_cache(maxsize=self.n_augmentations[0] or 1)
        def encoded(number: int) -> Batches:
            batches = self.encode(rows, folder, number, seed)
            return replace(batches, columns=columns) if columns.shape[1] else batches

        return encoded


class MoleculeModel(NeuralModel):
    """A stage whose backbone reads each molecule column by itself."""

    def __init__(self, config: Any, context: Context) -> None:
        super().__init__(config, context)
        self.columns = molecule_columns(config.columns, context.smiles, config.kind)
        self.n_molecules = len(self.columns)

    def encode_molecules(self, smiles: list[str], folder: Path, augmentation: int) -> Batches:
        """The molecules of one column; a molecule that stands in several rows is the same object in each."""
        raise NotImplementedError

    def encode(self, rows: Dataset, folder: Path, augmentation: int, seed: int) -> Batches:
        """All columns side by side."""
        columns = [
            self.encode_molecules(list(rows.inputs[name]), folder, augmentation) for name in self.columns
        ]
        return side_by_side(columns, once=self.config.backbone_dropout == 0)


class PerColumn(nn.Module):
    """One backbone on each of several molecule columns, their pooled features side by side."""

    def __init__(self, backbone: nn.Module, n_columns: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.n_columns = n_columns

    def forward(self, **batch: Tensor) -> Tensor:
        """Features (n_rows, n_columns * width) of tensors named `<column>_<name>`, and `<column>_row`
        (n_rows,): the molecule of each row among the distinct ones of that column.
        """
        parts = []
        for i in range(self.n_columns):
            prefix = f"{i}_"
            own = {
                name.removeprefix(prefix): tensor for name, tensor in batch.items() if name.startswith(prefix)
            }
            molecule = own.pop("row")
            parts.append(self.backbone(**own)[molecule])
        return torch.cat(parts, dim=1)


def side_by_side(columns: list[Batches], once: bool) -> Batches:
    """Batches of several columns as the input of `PerColumn`.

    Rows go together by the sum of their lengths, or by all of them where a batch may hold one length only;
    batches stay whole where that encodes each molecule of a batch once.

    Args:
        once: whether a molecule that stands in several rows of a batch is encoded once, as in screens of few
            reagents; not where the backbone drops, or these rows would share a mask.
    """
    if len(columns) == 1:
        return columns[0]
    lengths = np.stack([column.lengths for column in columns], axis=1)
    if columns[0].equal_lengths:
        lengths = np.unique(lengths, axis=0, return_inverse=True)[1].reshape(-1)
    else:
        lengths = np.ones(len(lengths), dtype=np.int64) if once else lengths.sum(axis=1)

    def collate(part: list[Any]) -> dict[str, Tensor]:
        batch: dict[str, Tensor] = {}
        for i, (column, items) in enumerate(zip(columns, zip(*part, strict=True), strict=True)):
            keys = [id(item) for item in items] if once else list(range(len(items)))
            distinct = dict(zip(keys, items, strict=True))
            batch |= {
                f"{i}_{name}": tensor for name, tensor in column.collate(list(distinct.values())).items()
            }
            batch[f"{i}_row"] = torch.tensor([list(distinct).index(key) for key in keys])
        return batch

    items = list(zip(*(column.items for column in columns), strict=True))
    return Batches(items, lengths, collate, columns[0].equal_lengths)
