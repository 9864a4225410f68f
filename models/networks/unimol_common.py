"""What both Uni-Mol networks share: the import of unimol_tools, batches of atoms, and checkpoints."""

import argparse
import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from core.errors import ConfigError

MoleculeInput = dict[str, NDArray[Any]]


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


def with_atoms(conformer: NDArray[np.float32], remove_hydrogens: bool) -> NDArray[np.float32]:
    """Return the atoms of a conformer (n_atoms, 4) without hydrogens, if there are others."""
    heavy = conformer[conformer[:, 0] != 1]
    return heavy if remove_hydrogens and len(heavy) else conformer


def collate(items: list[MoleculeInput]) -> dict[str, Tensor]:
    """Return the arguments of a backbone for some molecules, padded with 0 to the longest."""
    batch = {}
    for name, first in items[0].items():
        shape = np.max([item[name].shape for item in items], axis=0)
        padded = np.zeros((len(items), *shape), first.dtype)
        for row, item in zip(padded, items, strict=True):
            row[tuple(map(slice, item[name].shape))] = item[name]
        batch[name] = torch.from_numpy(padded)
    return batch


def load_checkpoint(backbone: nn.Module, files: dict[str, Path], ignored_prefixes: tuple[str, ...]) -> None:
    """Load the checkpoint (.pt or .safetensors) among the files of weights.

    Args:
        ignored_prefixes: prefixes of keys that are not loaded.

    Raises:
        ConfigError: if there is no checkpoint or more than one, or if its other keys differ from the keys of the
            backbone.
    """
    paths = [path for name, path in files.items() if name.endswith((".pt", ".safetensors"))]
    if len(paths) != 1:
        raise ConfigError(
            f"weights must be one .pt or .safetensors file, or a folder with one; got {', '.join(files)}."
        )
    (path,) = paths
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
            f"{path} does not have the weights of this architecture; "
            f"set weights and architecture that belong together: {str(error)[:500]}"
        ) from None
