"""What both Uni-Mol stages share: published weights, and conformers as augmentations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from competition.tables import Rows
from models.inputs.conformers import conformer_cache, is_flat, select
from models.inputs.poses import Item, collate, load_checkpoint
from models.inputs.weights import find_weights
from models.stage import Context, write_notes
from models.training.batches import Batches
from models.training.neural import OnMolecules


class OnConformers(OnMolecules):
    """A stage whose backbone reads molecules in their conformers, which are the augmentations; see `Neural`."""

    foreign_keys: tuple[str, ...]
    """Beginnings of keys of a checkpoint that only its pre-training or an earlier fine-tuning used."""
    equal_lengths: bool
    """Of its batches; see `Batches`."""

    def __init__(self, config: Any, context: Context) -> None:
        super().__init__(config, context)
        self.cache = conformer_cache(context.cache, **config.conformer_settings)

    def reader(self, folder: Path) -> Callable[[str, NDArray[np.float32]], Item]:
        """What makes an input of a SMILES and a conformer (n_atoms, 4), with `tokens` in it. A kind has this and
        `restore`.
        """
        raise NotImplementedError

    @property
    def n_augmentations(self) -> tuple[int, int]:
        """As many as conformers."""
        return self.config.conformers, self.config.conformers

    def start(self, train: Rows, folder: Path) -> nn.Module:
        """The configured weights, or random ones where none are configured; notes which molecules are flat."""
        backbone = self.restore(folder)
        if self.config.weights:
            load_checkpoint(backbone, find_weights(self.config.weights), self.foreign_keys)
        smiles = sorted(set(train.inputs[self.columns].to_numpy().ravel()))
        if flat := [text for text, found in zip(smiles, self.cache.load(smiles), strict=True) if is_flat(found)]:
            said = f"{len(flat)} of {len(smiles)} training molecules have flat coordinates, since RDKit finds no others"
            write_notes(folder, [f"{said}: {', '.join(flat[:3])}{' ...' if len(flat) > 3 else ''}"])
        return backbone

    def encode_molecules(self, smiles: list[str], folder: Path, augmentation: int) -> Batches:
        """Each molecule in one of its conformers."""
        read = self.reader(folder)
        conformers = dict(zip(smiles, self.cache.load(smiles), strict=True))
        item_of = {text: read(text, select(found, augmentation)) for text, found in conformers.items()}
        items = [item_of[text] for text in smiles]
        return Batches(items, np.array([len(item["tokens"]) for item in items]), collate, self.equal_lengths)
