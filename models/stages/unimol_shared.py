"""What both Uni-Mol stages share: the import of unimol_tools, published weights, and conformers as
augmentations.
"""

import argparse
import contextlib
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from competition.dataset import Dataset
from competition.errors import ConfigError
from models.inputs.conformers import conformer_cache, is_flat, select
from models.inputs.weights import find_weights
from models.stage import Context, write_notes
from models.training.batches import Batches
from models.training.neural_model import MoleculeModel

MoleculeInput = dict[str, NDArray[Any]]


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Import unimol_tools and leave alone what it touches: a folder logs/, the root logger, the filter of
    warnings.
    """
    level = logging.root.level
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), warnings.catch_warnings():
        yield
    logging.root.setLevel(level)
    logging.getLogger("Uni-Mol Tools").handlers.clear()


class ConformerModel(MoleculeModel):
    """A stage whose backbone reads molecules in their conformers, which are the augmentations; see
    `NeuralModel`.
    """

    foreign_keys: tuple[str, ...]
    """Beginnings of keys of a checkpoint that only its pre-training or an earlier fine-tuning used."""
    equal_lengths: bool
    """Of its batches; see `Batches`."""

    def __init__(self, config: Any, context: Context) -> None:
        super().__init__(config, context)
        self.cache = conformer_cache(context.cache, **config.conformer_settings)

    def reader(self, folder: Path) -> Callable[[str, NDArray[np.float32]], MoleculeInput]:
        """What makes an input of a SMILES and a conformer (n_atoms, 4), with `tokens` in it. A kind has this
        and `restore`.
        """
        raise NotImplementedError

    @property
    def n_augmentations(self) -> tuple[int, int]:
        """Number of conformers in training, and in prediction."""
        return self.config.conformers, self.config.conformers

    def init_backbone(self, train: Dataset, folder: Path) -> nn.Module:
        """The configured weights, or random ones where none are configured; notes which molecules are flat."""
        backbone = self.restore_backbone(folder)
        if self.config.weights:
            load_checkpoint(backbone, find_weights(self.config.weights), self.foreign_keys)
        smiles = sorted(set(train.inputs[self.columns].to_numpy().ravel()))
        if flat := [
            text for text, found in zip(smiles, self.cache.load(smiles), strict=True) if is_flat(found)
        ]:
            said = (
                f"{len(flat)} of {len(smiles)} training molecules have flat coordinates, since RDKit "
                f"finds no others"
            )
            write_notes(folder, [f"{said}: {', '.join(flat[:3])}{' ...' if len(flat) > 3 else ''}"])
        return backbone

    def encode_molecules(self, smiles: list[str], folder: Path, augmentation: int) -> Batches:
        """Each molecule in one of its conformers."""
        read = self.reader(folder)
        conformers = dict(zip(smiles, self.cache.load(smiles), strict=True))
        item_of = {text: read(text, select(found, augmentation)) for text, found in conformers.items()}
        items = [item_of[text] for text in smiles]
        return Batches(items, np.array([len(item["tokens"]) for item in items]), collate, self.equal_lengths)


def with_atoms(conformer: NDArray[np.float32], remove_hydrogens: bool) -> NDArray[np.float32]:
    """The atoms of a conformer (n_atoms, 4) that a model sees: molecular hydrogen has nothing but hydrogens."""
    heavy = conformer[conformer[:, 0] != 1]
    return heavy if remove_hydrogens and len(heavy) else conformer


def collate(items: list[MoleculeInput]) -> dict[str, Tensor]:
    """Molecules to the arguments of a backbone, padded with 0 to the longest."""
    return {
        name: pad_sequence([torch.from_numpy(item[name]) for item in items], batch_first=True)
        for name in items[0]
    }


def load_checkpoint(backbone: nn.Module, files: dict[str, Path], foreign_keys: tuple[str, ...]) -> None:
    """Load the checkpoint (.pt or .safetensors) among the files of weights but for its foreign keys; a
    ConfigError unless all others are those of the backbone.
    """
    path = next((path for name, path in files.items() if name.endswith((".pt", ".safetensors"))), None)
    if path is None:
        raise ConfigError(f"weights must hold a .pt or .safetensors file; there is only {', '.join(files)}.")
    try:
        if path.suffix == ".pt":
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True)
            state = content.get("model", content.get("model_state_dict", content))
        else:
            state = load_file(path)
        backbone.load_state_dict({key: state[key] for key in state if not key.startswith(foreign_keys)})
    except (RuntimeError, SafetensorError, UnpicklingError) as error:
        raise ConfigError(
            f"{path} does not hold the weights of this architecture; set the two that belong together: "
            f"{str(error)[:500]}"
        ) from None
