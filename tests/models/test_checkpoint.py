"""A checkpoint that was cut is named; it does not look like a failure of the library that reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from competition.errors import DataError
from models.training.checkpoint import Checkpoint, seconds_in


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_cut_checkpoint_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr("models.training.checkpoint.SECONDS_BETWEEN", 0.0)
    path, part = tmp_path / "checkpoint.pt", torch.nn.Linear(100, 100)
    Checkpoint(path, {"network": part}).save({"epoch": 1})
    assert Checkpoint(path, {"network": part}).load() == {"epoch": 1}
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    for read in (Checkpoint(path, {"network": part}).load, lambda: seconds_in(path)):
        with pytest.raises(DataError, match=r"checkpoint\.pt must be a whole checkpoint.*delete it"):
            read()
