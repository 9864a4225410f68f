"""What both Uni-Mol stages share: the import of unimol_tools, published weights, and conformers as views."""

from __future__ import annotations

import argparse
import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from competition.errors import ConfigError
from competition.files import write_json
from competition.tables import Rows
from models.inputs.conformers import conformer_cache, select
from models.notes import write_notes
from models.stage import Context, molecule_columns
from models.training.neural import Neural, PerColumn


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Import unimol_tools and leave alone what it touches: a folder logs/, the root logger, the filter of warnings."""
    level = logging.root.level
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), warnings.catch_warnings():
        yield
    logging.root.setLevel(level)
    logging.getLogger("Uni-Mol Tools").handlers.clear()


class OnConformers(Neural):
    """A stage whose backbone reads each molecule column, its views the conformers; see `Neural`."""

    def __init__(self, config: Any, context: Context) -> None:
        super().__init__(config, context)
        self.columns = molecule_columns(config.columns, context.smiles, config.kind)

    @property
    def n_views(self) -> tuple[int, int]:
        """One view per conformer."""
        return self.config.conformers, self.config.conformers

    def per_column(self, backbone: nn.Module) -> nn.Module:
        """The same backbone for each column."""
        return PerColumn(backbone, len(self.columns)) if len(self.columns) > 1 else backbone

    def conformers(self, rows: Rows, column: str, view: int) -> list[NDArray[np.float32]]:
        """One conformer (n_atoms, 4) per row."""
        return [select(conformers, view) for conformers in self._load(rows, column)[0]]

    def count_statuses(self, rows: Rows, folder: Path) -> None:
        """Write how many molecules of all columns were embedded in which way, and a note of flat ones."""
        word_of = {
            smiles: word
            for column in self.columns
            for smiles, word in zip(rows.inputs[column], self._load(rows, column)[1], strict=True)
        }
        words = list(word_of.values())
        write_json(folder / "conformers.json", {word: words.count(word) for word in sorted(set(words))})
        flat = sorted(smiles for smiles, word in word_of.items() if word == "flat")
        if flat:
            said = f"{len(flat)} of {len(words)} training molecules have flat coordinates, since RDKit finds no others"
            write_notes(folder, [f"{said}: {', '.join(flat[:3])}{' ...' if len(flat) > 3 else ''}"])

    def _load(self, rows: Rows, column: str) -> tuple[list[NDArray[np.float32]], list[str]]:
        cache = conformer_cache(self.context.cache, **self.config.conformer_settings)
        return cache.load(list(rows.inputs[column]))


def load_checkpoint(backbone: nn.Module, files: dict[str, Path], foreign_keys: tuple[str, ...]) -> None:
    """Load published weights; every key of the backbone must be set.

    Args:
        files: of the weights, the checkpoint (.pt) among them.
        foreign_keys: beginnings of keys of the checkpoint that may be left out; any other that is foreign is an error.

    Raises:
        ConfigError: if a key is missing, foreign or of another shape.
    """
    path = next(path for name, path in files.items() if name.endswith(".pt"))
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(path, map_location="cpu", weights_only=True)
    state = content.get("model", content.get("model_state_dict", content))
    state = {name: tensor for name, tensor in state.items() if not name.startswith(foreign_keys)}
    expected = backbone.state_dict()
    missing, foreign = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    shapes = sorted(k for k in expected.keys() & state.keys() if expected[k].shape != state[k].shape)
    if missing or foreign or shapes:
        raise ConfigError(
            f"{path} must hold the weights of this architecture; missing: {_few(missing)}; foreign: {_few(foreign)}; "
            f"of another shape: {_few(shapes)}. Set the architecture and weights that belong together."
        )
    backbone.load_state_dict(state)


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "none"
