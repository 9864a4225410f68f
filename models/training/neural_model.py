"""What the neural stages share: a backbone and encoded rows become a fitted stage.

A kind of stage implements four methods: `init_backbone` and `restore_backbone` make its backbone, `encode` and
`n_augmentations` its inputs.
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
from core.files import derive_seed
from core.types import Array
from models.context import Context, molecule_columns
from models.inputs.feature_blocks import fit_columns, read_columns
from models.stage import write_notes
from models.training import prediction, trainer
from models.training.batches import Batches, EncodedDataset
from models.training.hardware import free_gpu_memory
from models.training.heads import Network, build_head
from models.training.labels import balanced_weights, labelled_rows, require_auxiliary, with_bounds
from models.training.losses import builtin_loss


class NeuralModel:
    """Base class of neural stages; `models.stage.Stage` documents `fit` and `predict`.

    A kind of stage implements `init_backbone`, `restore_backbone`, `encode` and `n_augmentations`.

    Attributes:
        loss: loss with the link from outputs to predictions.
        n_molecules: number of molecule columns that the backbone reads one by one.
    """

    def __init__(self, config: Any, context: Context) -> None:
        self.config = config
        self.context = context
        self.auxiliary = context.auxiliary if config.auxiliary_weight > 0 else []
        self.loss = builtin_loss(config.loss, context.task.problem_type)
        self.n_molecules = 1

    def init_backbone(self, train: Dataset, folder: Path) -> nn.Module:
        """Return the backbone with the weights to start from.

        Its attribute `width` is the length of its pooled features. Everything that `restore_backbone` and
        `encode` need in addition to the trained weights is written to `folder`: vocabularies, shapes.
        """
        raise NotImplementedError

    def restore_backbone(self, folder: Path) -> nn.Module:
        """Return a backbone of the same shape, with any weights."""
        raise NotImplementedError

    def encode(self, rows: Dataset, folder: Path, augmentation: int, seed: int) -> Batches:
        """Return the rows as the backbone reads them.

        Args:
            augmentation: 0 for none. Others are randomized SMILES or conformers, which depend only on
                (augmentation, seed, input).
        """
        raise NotImplementedError

    @property
    def n_augmentations(self) -> tuple[int | None, int]:
        """Number of augmentations in training (None: a new one per epoch), and in prediction."""
        return 1, 1

    def fit(self, train: Dataset, folder: Path) -> None:
        """Train on `train`; with `extra_rows: pretrain` first on its extra rows only."""
        pretrain_set = None
        if self.config.extra_rows == "pretrain" and train.extra is not None and train.extra.any():
            pretrain_set = train.take(train.extra)
            train = train.take(~train.extra)
        config = self.config
        fit_once = functools.partial(self._train, train, pretrain_set, folder)
        if not self._retry_on_oom(fit_once) and self.context.retry_failed_fit:
            self.context = replace(self.context, seed=derive_seed(self.context.seed, "checkpoint_again"))
            end = "." if self._retry_on_oom(fit_once) else ", which is not better either."
            note = "not better than the mean of the training labels with its first seed; trained with another"
            write_notes(folder, [note + end])
        if self.config is not config:
            size = self.config.batch_size
            n = self.config.gradient_accumulation_steps
            note = f"the memory is too small for batches of {config.batch_size}: a step has {n} of {size}."
            write_notes(folder, [note])

    def _train(self, train: Dataset, pretrain_set: Dataset | None, folder: Path) -> bool:
        network, encoded_train = self.prepare_training(train, folder)
        encoded_pretrain = None if pretrain_set is None else self._encode(pretrain_set, folder)
        self._note_unlabelled(train, pretrain_set, folder)
        return self.make_trainer(network, folder).fit(encoded_train, encoded_pretrain)

    def _note_unlabelled(self, train: Dataset, pretrain_set: Dataset | None, folder: Path) -> None:
        """Note auxiliary targets without a label among the training rows, such as with `extra_rows: ignore`."""
        if not self.auxiliary:
            return
        has_label = np.zeros(len(self.auxiliary), dtype=bool)
        for rows in (train, pretrain_set):
            if rows is not None and rows.auxiliary is not None:
                has_label |= np.isfinite(rows.auxiliary).any(axis=0)
        names = [name for name, labelled in zip(self.auxiliary, has_label, strict=True) if not labelled]
        if names:
            note = f"no training row has a label of the auxiliary targets {', '.join(names)}"
            write_notes(folder, [f"{note}, so their heads are not trained"])

    def _retry_on_oom(self, function: Callable[[], Any]) -> Any:
        """Return the result of a function, with smaller batches if the memory is too small."""
        while True:
            try:
                return function()
            except RuntimeError as error:
                self.config = trainer.halve_batch_size(self.config, error)
            finally:
                free_gpu_memory()

    def make_trainer(self, network: Network, folder: Path) -> trainer.Trainer:
        """Return the trainer of a network of this stage."""
        held_out = self.context.held_out
        encoded_held_out = None
        if held_out is not None:
            encoded_held_out = trainer.EncodedHeldOut(
                batches=functools.cache(lambda: self._encoded(held_out.rows, folder, seed=0)(0)),
                n_outputs=len(self.context.task.outputs),
                score=held_out.score,
            )
        return trainer.Trainer(
            network=network,
            settings=self.config,
            seed=self.context.seed,
            folder=folder,
            progress=self.context.progress,
            problem_type=self.context.task.problem_type,
            held_out=encoded_held_out,
        )

    def prepare_training(self, train: Dataset, folder: Path) -> tuple[Network, EncodedDataset]:
        """Return the network with the weights to start from, and the encoded rows."""
        set_seed(self.context.seed)
        fit_columns(train, self.config, self.context, folder)
        backbone = self.init_backbone(train, folder)
        encoded_train = self._encode(train, folder)
        labelled_rows(train.y, self.context.task.targets)
        return self._network(backbone, encoded_train.encoded(0)), encoded_train

    def predict(self, rows: Dataset, folder: Path) -> Array:
        """Return the predictions of rows, (n_rows, n_outputs)."""
        encoded = self._encoded(rows, folder, seed=0)
        network = self._network(self.restore_backbone(folder), encoded(0))
        return self._retry_on_oom(
            lambda: prediction.predict(
                network=network,
                encoded=encoded,
                n_augmentations=self.n_augmentations[1],
                settings=self.config,  # smaller batches in a second try
                folder=folder,
                n_outputs=len(self.context.task.outputs),
                link=self.loss.link,
            )
        )

    def _network(self, backbone: Any, batches: Batches) -> Network:
        n_outputs = len([*self.context.task.outputs, *self.auxiliary])
        width = backbone.width
        n_columns = 0 if batches.columns is None else batches.columns.shape[1]
        n_features = width * self.n_molecules + n_columns
        head = build_head(self.config, width, n_outputs)
        if self.n_molecules > 1:
            backbone = PerColumn(backbone, self.n_molecules)
        return Network(backbone, head, None if n_features == width else (n_features, width))

    def _encode(self, rows: Dataset, folder: Path) -> EncodedDataset:
        y = rows.y
        if self.auxiliary and rows.auxiliary is not None:
            require_auxiliary(rows.auxiliary, self.auxiliary, self.context.task.problem_type)
            y = np.hstack([y, rows.auxiliary])
        sides = None
        if rows.bounds is not None:
            y, sides = with_bounds(y, rows.bounds[:, : y.shape[1]])
        weights = np.ones_like(y) * (1.0 if rows.weights is None else rows.weights[:, None])
        weights[:, rows.y.shape[1] :] *= self.config.auxiliary_weight
        if self.config.class_weights == "balanced":
            weights = balanced_weights(y, weights)
        encoded = self._encoded(rows, folder, self.context.seed)
        n = self.n_augmentations[0]
        return EncodedDataset(
            encoded=lambda number: encoded(number % n if n else number),
            y=y,
            weights=weights,
            sides=sides,
            n_auxiliary=y.shape[1] - rows.y.shape[1],
        )

    def _encoded(self, rows: Dataset, folder: Path, seed: int) -> prediction.Encoded:
        """Return a function of the augmentation that returns the encoded rows, with the columns before the head."""
        columns = read_columns(rows, self.config, self.context, folder)

        @functools.lru_cache(maxsize=self.n_augmentations[0] or 1)
        def encoded(number: int) -> Batches:
            batches = self.encode(rows, folder, number, seed)
            return replace(batches, columns=columns) if columns.shape[1] else batches

        return encoded


class MoleculeModel(NeuralModel):
    """Base class of stages with a backbone that reads one molecule column at a time."""

    def __init__(self, config: Any, context: Context) -> None:
        super().__init__(config, context)
        self.columns = molecule_columns(config.columns, context.smiles, config.kind)
        self.n_molecules = len(self.columns)

    def encode_molecules(self, smiles: list[str], folder: Path, augmentation: int) -> Batches:
        """Return the molecules of a column; equal molecules are the same object."""
        raise NotImplementedError

    def encode(self, rows: Dataset, folder: Path, augmentation: int, seed: int) -> Batches:
        """Return the batches of all columns, joined."""
        columns = [
            self.encode_molecules(list(rows.inputs[name]), folder, augmentation) for name in self.columns
        ]
        return join_columns(columns, once=self.config.backbone_dropout == 0)


class PerColumn(nn.Module):
    """Applies one backbone to several molecule columns, and concatenates their pooled features."""

    def __init__(self, backbone: nn.Module, n_columns: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.n_columns = n_columns

    def forward(self, **batch: Tensor) -> Tensor:
        """Return features (n_rows, n_columns * width).

        Args:
            batch: tensors `<column>_<name>`, and `<column>_row` (n_rows,): position of the molecule of each row
                among the distinct molecules of the column.
        """
        parts = []
        for i in range(self.n_columns):
            prefix = f"{i}_"
            inputs = {
                name.removeprefix(prefix): tensor for name, tensor in batch.items() if name.startswith(prefix)
            }
            molecule = inputs.pop("row")
            parts.append(self.backbone(**inputs)[molecule])
        return torch.cat(parts, dim=1)


def join_columns(columns: list[Batches], once: bool) -> Batches:
    """Return batches of several columns as inputs of `PerColumn`.

    Rows are batched by the sum of their lengths, or by all of them if a batch must have one length.

    Args:
        once: whether equal molecules of a batch are encoded once, as in screens of few reagents. With dropout
            in the backbone they are not, since these rows would share a mask.
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
    return Batches(items, lengths, collate, columns[0].equal_lengths, columns[0].pads)
