"""Losses that are watched while a network trains: on held-out rows, and with `monitor: held_out` on training rows, too,
each with dropout on and off, epoch by epoch.

Why both modes: where dropout sits inside a network, the variance of its activations differs between training and
inference (Li et al., arXiv 1801.05134), so the two losses on the same rows come apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from models.settings import NeuralStage
from models.training.batches import Batches
from models.training.losses import Labels, training_loss

MEASURES = "measures.json"
"""Flat numbers that a job found out about itself, by name."""
TRAINING_MODE, EVALUATION_MODE = "training_mode", "evaluation_mode"
Watched = dict[str, tuple[Batches, Labels]]
"""Rows by the name of their loss: train, held_out."""


def as_many(batches: Batches, labels: Labels, n_rows: int) -> tuple[Batches, Labels]:
    """At most `n_rows` of the rows, evenly spread over the table, so that watching costs little."""
    rows = np.unique(np.linspace(0, len(batches.lengths) - 1, n_rows).astype(np.intp))
    items = [batches.items[i] for i in rows]
    return replace(batches, items=items, lengths=batches.lengths[rows]), labels.take(rows, torch.device("cpu"))


def losses(forward: Callable[..., Tensor], watched: Watched, settings: NeuralStage) -> dict[str, float]:
    """Loss of the watched rows in each mode, as `<name>_<mode>`; every random stream is left as it was found.

    Args:
        forward: outputs (n_rows, n_outputs) of batches; its argument `drops` says whether dropout is on.
    """
    modes = [TRAINING_MODE, EVALUATION_MODE] if settings.monitor == "held_out" else [EVALUATION_MODE]
    found = {}
    with torch.random.fork_rng():
        for name, (batches, labels) in watched.items():
            for mode in modes:
                torch.manual_seed(0)  # the same masks in every epoch
                outputs = forward(batches, drops=mode == TRAINING_MODE)
                found[f"{name}_{mode}"] = float(training_loss(settings.loss, outputs, labels))
    return found
