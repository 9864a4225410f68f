"""What both Uni-Mol stages share: the import of unimol_tools, its weights, and conformers as augmentations."""

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
from core.errors import ConfigError
from core.text import join_first
from models.context import Context
from models.inputs.conformers import MAX_ATOMS, conformer_cache, is_flat, select
from models.inputs.weights import find_weights
from models.stage import write_notes
from models.training.batches import Batches
from models.training.neural_model import MoleculeModel

MoleculeInput = dict[str, NDArray[Any]]
MAX_CHARACTERS = 60
"""Number of characters of a SMILES in a message."""


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Undo the side effects of an import of unimol_tools.

    It makes a folder logs/, and changes the root logger and the filter of warnings.
    """
    level = logging.root.level
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), warnings.catch_warnings():
        yield
    logging.root.setLevel(level)
    logging.getLogger("Uni-Mol Tools").handlers.clear()


class ConformerModel(MoleculeModel):
    """A stage with a backbone that reads conformers; the conformers of a molecule are its augmentations.

    A kind of stage implements `reader` and `restore_backbone`.
    """

    ignored_checkpoint_prefixes: tuple[str, ...]
    """Prefixes of checkpoint keys that are not loaded: heads of the pre-training or an earlier fine-tuning."""
    equal_lengths: bool
    """Whether a batch must have molecules of equal length, since the backbone does not mask padding."""

    def __init__(self, config: Any, context: Context) -> None:
        super().__init__(config, context)
        self.cache = conformer_cache(context.cache, **config.conformer_settings)

    def reader(self, folder: Path) -> Callable[[str, NDArray[np.float32]], MoleculeInput]:
        """Return a function that makes the input of the backbone from a SMILES and a conformer (n_atoms, 4).

        The input has an array `tokens`, by whose length rows are batched.
        """
        raise NotImplementedError

    @property
    def n_augmentations(self) -> tuple[int, int]:
        """Number of conformers in training, and in prediction."""
        return self.config.conformers, self.config.conformers

    def init_backbone(self, train: Dataset, folder: Path) -> nn.Module:
        """Return the backbone with the configured weights, or random ones, and note flat molecules."""
        backbone = self.restore_backbone(folder)
        if self.config.weights:
            load_checkpoint(backbone, find_weights(self.config.weights), self.ignored_checkpoint_prefixes)
        smiles = sorted(set(train.inputs[self.columns].to_numpy().ravel()))
        conformers = self.cache.load(smiles)
        flat = [text for text, conformer in zip(smiles, conformers, strict=True) if is_flat(conformer)]
        if flat:
            note = (
                f"{len(flat)} of {len(smiles)} training molecules have flat coordinates, since RDKit finds no "
                f"others or they have {MAX_ATOMS} or more atoms, of which {MAX_ATOMS} are read: "
                f"{join_first(flat, shortened)}"
            )
            write_notes(folder, [note])
        return backbone

    def encode_molecules(self, smiles: list[str], folder: Path, augmentation: int) -> Batches:
        """Return one conformer of each molecule, the one of the augmentation."""
        make_input = self.reader(folder)
        inputs: dict[str, MoleculeInput] = {}
        for text, conformers in zip(smiles, self.cache.load(smiles), strict=True):
            if text not in inputs:
                inputs[text] = make_input(text, select(conformers, augmentation))
        items = [inputs[text] for text in smiles]
        lengths = np.array([len(item["tokens"]) for item in items])
        return Batches(items, lengths, collate, self.equal_lengths, pads=False)


def shortened(smiles: str) -> str:
    """Return the first characters of a SMILES, for messages."""
    return smiles if len(smiles) <= MAX_CHARACTERS else f"{smiles[:MAX_CHARACTERS]} ..."


def with_atoms(conformer: NDArray[np.float32], remove_hydrogens: bool) -> NDArray[np.float32]:
    """Return the atoms of a conformer (n_atoms, 4) without hydrogens, if there are others."""
    heavy = conformer[conformer[:, 0] != 1]
    return heavy if remove_hydrogens and len(heavy) else conformer


def collate(items: list[MoleculeInput]) -> dict[str, Tensor]:
    """Return the arguments of a backbone for some molecules, padded with 0 to the longest."""
    return {
        name: pad_sequence([torch.from_numpy(item[name]) for item in items], batch_first=True)
        for name in items[0]
    }


def load_checkpoint(backbone: nn.Module, files: dict[str, Path], ignored_prefixes: tuple[str, ...]) -> None:
    """Load the checkpoint (.pt or .safetensors) among the files of weights.

    Args:
        ignored_prefixes: prefixes of keys that are not loaded.

    Raises:
        ConfigError: if there is no checkpoint, or if the other keys are not those of the backbone.
    """
    path = next((path for name, path in files.items() if name.endswith((".pt", ".safetensors"))), None)
    if path is None:
        raise ConfigError(f"weights must contain a .pt or .safetensors file; got {', '.join(files)}.")
    try:
        if path.suffix == ".pt":
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True)
            state = content.get("model", content.get("model_state_dict", content))
        else:
            state = load_file(path)
        backbone.load_state_dict({key: state[key] for key in state if not key.startswith(ignored_prefixes)})
    except (RuntimeError, SafetensorError, UnpicklingError) as error:
        raise ConfigError(
            f"{path} does not have the weights of this architecture; set weights and architecture that belong "
            f"together: {str(error)[:500]}"
        ) from None
