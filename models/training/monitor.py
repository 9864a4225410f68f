"""What `monitor: held_out` writes: the loss on training and held-out rows, with dropout on and off, epoch by epoch.

Why both modes: where dropout sits inside a network, the variance of its activations differs between training and
inference (Li et al., arXiv 1801.05134), so the two losses on the same rows come apart. Nothing is chosen by them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from models.training.batches import Batches
from models.training.losses import Labels, training_loss

MEASURES = "measures.json"
"""Flat numbers that a job found out about itself, by name."""
MODES = {"training_mode": True, "evaluation_mode": False}
Forward = Callable[..., NDArray[np.float64]]


def as_many(train: tuple[Batches, Labels], n_rows: int) -> tuple[Batches, Labels]:
    """At most `n_rows` of the training rows, evenly spread over the table, so that watching costs little."""
    batches, labels = train
    rows = np.unique(np.linspace(0, len(batches.lengths) - 1, n_rows).astype(np.intp))
    items = [batches.items[i] for i in rows]
    return replace(batches, items=items, lengths=batches.lengths[rows]), labels.take(rows, torch.device("cpu"))


def losses(forward: Forward, parts: dict[str, tuple[Batches, Labels]], loss: str) -> dict[str, float]:
    """Loss of each part in each mode, as `<part>_<mode>`; every random stream is left as it was found.

    Args:
        forward: outputs (n_rows, n_outputs) of batches; its argument `drops` says whether dropout is on.
        loss: a value of the setting `loss`.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    found = {}
    with torch.random.fork_rng(devices=devices):
        for name, (batches, labels) in parts.items():
            for mode, drops in MODES.items():
                torch.manual_seed(0)  # the same masks in every epoch
                outputs = torch.tensor(forward(batches, drops=drops), dtype=torch.float32)
                found[f"{name}_{mode}"] = float(training_loss(loss, outputs, labels))
    return found


def measures(history: list[dict[str, float]], n_steps: int) -> dict[str, float]:
    """The last epoch's losses in both modes, and the seconds of one of `n_steps` steps of the optimizer."""
    last = {name: value for name, value in history[-1].items() if name.endswith(tuple(MODES))}
    return {**last, "seconds_per_step": sum(epoch["seconds"] for epoch in history) / n_steps}
