"""The one training loop of the neural stages: read it from `fit` down, and change it.

A stage gives a `Network`, `Batches` and labels; the loop owns target scaling, length-bucketed batches, the
optimizer, the schedule, precision and device (by accelerate), and what is written for prediction.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from numpy.typing import NDArray
from torch import Tensor, nn

from competition.errors import ConfigError, DataError
from competition.files import read_json, write_atomically, write_json
from models.config import NeuralStage
from models.dropout import audit, set_rates
from models.heads import Network
from models.schedules import with_warmup
from models.targets import target_scale

WEIGHTS, TRAINING = "weights.safetensors", "training.json"
WINDOW_BATCHES = 20
"""Most batches whose rows are sorted by length together: enough for little padding, few enough to stay random."""


@dataclass(frozen=True)
class Batches:
    """Encoded rows and how they become a batch.

    items: one encoded input per row.
    lengths: (n_rows,) tokens or atoms, by which rows of like size are batched.
    collate: items to the keyword arguments of the backbone, tensors on the CPU.
    """

    items: list[Any]
    lengths: NDArray[np.int64]
    collate: Callable[[list[Any]], dict[str, Tensor]]

    def batch(self, positions: NDArray[np.intp], device: torch.device) -> dict[str, Tensor]:
        """The rows at `positions`, on the device."""
        batch = self.collate([self.items[i] for i in positions])
        return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def seed_everything(seed: int) -> None:
    """Seed every generator that a library may draw from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def fit(
    network: Network,
    batches: Batches,
    y: NDArray[np.float64],
    settings: NeuralStage,
    seed: int,
    folder: Path,
    progress: Callable[[int, int], None],
    valid: tuple[Batches, NDArray[np.float64]] | None = None,
) -> None:
    """Train on rows with labels `y` (n_rows, n_targets), NaN where missing; write weights and a report to `folder`.

    Args:
        network: with the random or pretrained weights to start from; left with the trained ones.
        valid: held-out rows, for `keep: best_on_held_out` only.

    Raises:
        ConfigError: if the dropout audit finds a module that drops, or the precision is not to be had.
        DataError: if the loss is not finite.
    """
    mean, scale = target_scale(y)
    labels = torch.tensor((y - mean) / scale, dtype=torch.float32)
    accelerator = make_accelerator(settings.precision)
    set_rates(network.backbone, settings.backbone_dropout)
    network.to(accelerator.device)
    if settings.backbone_dropout == 0:
        audit(network.backbone, batches.batch(np.arange(min(4, len(y))), accelerator.device))
    plans = [batch_plan(batches.lengths, settings.batch_size, seed, epoch) for epoch in range(settings.epochs)]
    total_steps = sum(len(plan) for plan in plans)
    optimizer = make_optimizer(network, settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, with_warmup(settings.schedule, settings.warmup, total_steps)
    )
    model, optimizer = accelerator.prepare(network, optimizer)
    history: list[dict[str, float]] = []
    best: tuple[float, dict[str, Tensor]] | None = None
    step = 0
    for plan in plans:
        model.train()
        losses = []
        for positions in plan:
            batch = batches.batch(positions, accelerator.device)
            target = labels[positions].to(accelerator.device)
            with accelerator.autocast():
                loss = model(batch, lambda y_pred, target=target: masked_mse(y_pred, target))
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), settings.clip_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.detach())
            step += 1
            progress(step, total_steps)
        epoch_loss = float(torch.stack(losses).mean())
        if not np.isfinite(epoch_loss):
            raise DataError(
                f"the training loss must stay finite; it is {epoch_loss} in epoch {len(history) + 1}. "
                "Lower the stage's learning_rate."
            )
        history.append({"train_loss": epoch_loss, "learning_rate": float(schedule.get_last_lr()[0])})
        if valid is not None:
            y_valid = (valid[1] - mean) / scale
            y_pred = _forward(network, valid[0], settings.batch_size, accelerator)
            history[-1]["valid_loss"] = float(np.nanmean((y_pred - y_valid) ** 2))
            if best is None or history[-1]["valid_loss"] < best[0]:
                best = (history[-1]["valid_loss"], {k: v.cpu().clone() for k, v in network.state_dict().items()})
    state = best[1] if best else {name: tensor.cpu() for name, tensor in network.state_dict().items()}
    write_atomically(folder / WEIGHTS, safetensors.torch.save({k: v.contiguous() for k, v in state.items()}))
    write_json(
        folder / TRAINING,
        {"mean": mean.tolist(), "scale": scale.tolist(), "history": history, "precision": accelerator.mixed_precision},
    )
    accelerator.free_memory()


def predict(network: Network, batches: Batches, settings: NeuralStage, folder: Path) -> NDArray[np.float64]:
    """Predictions (n_rows, n_targets) in the targets' own units, with the weights in `folder`."""
    load_weights(network, folder)
    accelerator = make_accelerator(settings.precision)
    network.to(accelerator.device)
    training = read_json(folder / TRAINING)
    y_pred = _forward(network, batches, settings.batch_size, accelerator)
    return y_pred * np.array(training["scale"]) + np.array(training["mean"])


def load_weights(network: nn.Module, folder: Path) -> None:
    """Load what `fit` wrote; every key must be there and none foreign."""
    network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS), strict=True)


def _forward(network: Network, batches: Batches, batch_size: int, accelerator: Accelerator) -> NDArray[np.float64]:
    """Outputs (n_rows, n_targets) in evaluation mode, in standardised units, in the order of the rows."""
    network.eval()
    order = np.argsort(batches.lengths, kind="stable")
    outputs: list[NDArray[np.float64]] = []
    with torch.inference_mode(), accelerator.autocast():
        for start in range(0, len(order), batch_size):
            batch = batches.batch(order[start : start + batch_size], accelerator.device)
            outputs.append(network(batch).float().cpu().numpy().astype(np.float64))
    y_pred = np.concatenate(outputs)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return y_pred[back]


def masked_mse(y_pred: Tensor, y_true: Tensor) -> Tensor:
    """Mean squared error over the labels there are; 0 with a gradient of 0 where a batch has none."""
    known = ~torch.isnan(y_true)
    error = torch.where(known, y_pred.float() - torch.nan_to_num(y_true), torch.zeros_like(y_true))
    return error.square().sum() / known.sum().clamp(min=1)


def batch_plan(lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> list[NDArray[np.intp]]:
    """Positions of each batch of an epoch: a function of (seed, epoch), each row once.

    Rows are shuffled, sorted by length inside windows of some batches, cut, and the batches shuffled:
    little padding, and a different composition each epoch. A small table has at least four windows; one that
    held it all would give the same batches every epoch.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    window = batch_size * max(1, min(WINDOW_BATCHES, len(lengths) // batch_size // 4))
    plan: list[NDArray[np.intp]] = []
    for start in range(0, len(order), window):
        part = order[start : start + window]
        part = part[np.argsort(lengths[part], kind="stable")]
        plan += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    return [plan[i] for i in generator.permutation(len(plan))]


def make_optimizer(network: Network, settings: NeuralStage) -> torch.optim.AdamW:
    """AdamW; no decay on norms, biases and other vectors, and the head's own peak rate where one is set."""
    groups = []
    for part, rate in (
        (network.backbone, settings.learning_rate),
        (network.head, settings.head_learning_rate or settings.learning_rate),
    ):
        for decays in (True, False):
            parameters = [p for p in part.parameters() if p.requires_grad and (p.ndim > 1) == decays]
            if parameters:
                groups.append(
                    {"params": parameters, "lr": rate, "weight_decay": settings.weight_decay if decays else 0.0}
                )
    return torch.optim.AdamW(groups, fused=True)  # one pass over the weights: a sixth of the time on a CPU


def make_accelerator(precision: str) -> Accelerator:
    """Device and precision of this process.

    Raises:
        ConfigError: if half precision is asked for on a CPU, or bf16 of a card that only emulates it.
    """
    has_gpu = torch.cuda.is_available()
    # A T4 answers is_bf16_supported() with True by slow emulation (pytorch issue 148322).
    has_bf16 = has_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "auto":
        precision = ("bf16" if has_bf16 else "fp16") if has_gpu else "float32"
    if (precision == "fp16" and not has_gpu) or (precision == "bf16" and not has_bf16):
        raise ConfigError(f"precision {precision} needs a GPU that has it; there is none here. Set precision: auto.")
    AcceleratorState._reset_state(True)  # stages of one worker may differ in precision
    return Accelerator(mixed_precision="no" if precision == "float32" else precision)
