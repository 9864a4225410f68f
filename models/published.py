"""What the stages on Uni-Mol share: the import of unimol_tools, and the weights that it publishes."""

from __future__ import annotations

import argparse
import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from competition.errors import ConfigError


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Import unimol_tools and leave alone what it touches: a folder logs/, the root logger, the filter of warnings."""
    level = logging.root.level
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), warnings.catch_warnings():
        yield
    logging.root.setLevel(level)
    logging.getLogger("Uni-Mol Tools").handlers.clear()


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
