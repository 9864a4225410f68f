"""Epochs under one schedule, and how far they have come."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from models.training.batches import Batches
from models.training.checkpoint import Checkpoint
from models.training.losses import LabelBatch


@dataclass
class TrainingState:
    """How far training has come, in addition to the state of weights, optimizer and schedule.

    history: losses and learning rate of each finished epoch.
    step: finished steps of the current epoch.
    loss_sum: sum of their losses, in float64.
    logged_step, logged_sum: `step` and `loss_sum` at the last row of losses.csv.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    step: int = 0
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    logged_step: int = 0
    logged_sum: float = 0.0

    def end_epoch(self, record: dict[str, float]) -> None:
        """Add an epoch to the history and start the next one."""
        self.load_state_dict(vars(TrainingState(history=[*self.history, record])))

    def state_dict(self) -> dict[str, Any]:
        """Return all fields by their names."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace all fields by those of a checkpoint."""
        vars(self).update(state)


@dataclass(frozen=True)
class Phase:
    """Epochs with one schedule: pre-training on extra rows, or training.

    Attributes:
        name: pretrain or train.
        n_steps: steps of the optimizer per epoch.
        first_step: steps of the previous phase.
        average: moving average of the weights, with `weight_averaging: ema`.
        state: progress, which `checkpoint` contains.
    """

    name: str
    network: nn.Module
    encoded: Callable[[int], Batches]
    labels: LabelBatch
    n_steps: int
    first_step: int
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    average: AveragedModel | None
    state: TrainingState
    checkpoint: Checkpoint

    @property
    def averaged(self) -> nn.Module:
        """The network with the weights to keep: their moving average, if there is one."""
        return self.average.module if self.average else self.network

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return float(self.schedule.get_last_lr()[0])
