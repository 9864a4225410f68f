"""The one training loop of the neural stages: read it from `fit` down, and change it.

A stage gives a `Network` and `Sample`s; the loop owns target scaling, length-bucketed batches, the optimizer, the
schedule, precision and device (by accelerate), checkpoints, and what is written for prediction.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from numpy.typing import NDArray
from torch import Tensor, nn

from competition.errors import DataError
from competition.files import read_json, write_atomically, write_json
from models.settings import NeuralStage
from models.training.batches import Batches, Sample, batch_groups, piece_size, sorted_plan, step_plan
from models.training.checkpoint import Checkpoint
from models.training.dropout import audit, rates, set_rates
from models.training.heads import Network
from models.training.labels import target_scale
from models.training.losses import Labels, as_labels, r_drop_penalty, target_weights, training_loss
from models.training.machine import cpu_has_bf16, require_precision
from models.training.monitor import MEASURES, as_many, measures
from models.training.monitor import losses as losses_in_both_modes
from models.training.optimizer import make_average, make_optimizer, prepare_layers
from models.training.schedules import with_warmup

WEIGHTS, TRAINING = "weights.safetensors", "training.json"
Progress = Callable[[int, int], None]


def seed_everything(seed: int) -> None:
    """Seed every generator that a library may draw from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def fit(
    network: Network,
    train: Sample,
    settings: NeuralStage,
    seed: int,
    folder: Path,
    progress: Progress,
    valid: Sample | None = None,
    first: Sample | None = None,
    n_auxiliary: int = 0,
) -> None:
    """Train on labelled rows; write weights and a report to `folder`, and checkpoints on the way.

    Args:
        network: with the random or pretrained weights to start from; left with the trained ones.
        valid: held-out rows, for `keep: best_on_held_out` and `monitor: held_out` only.
        first: rows to train on before, with a schedule of their own (`extra_rows: pretrain`).
        n_auxiliary: how many of the last columns of y are auxiliary targets.

    Raises:
        ConfigError: if the dropout audit finds a module that drops, a layer is not there, or the precision is not.
        DataError: if the loss is not finite, or memory runs out.
    """
    of_target = target_weights(settings.loss, train.y)
    if n_auxiliary:
        of_target[-n_auxiliary:] *= settings.auxiliary_weight
    mean, scale = target_scale(train.y)

    def labels_of(sample: Sample) -> Labels:
        return as_labels(sample.y, sample.weights, of_target, mean, scale)

    accelerator = set_up(network, train, settings)
    n_steps = [steps_per_epoch(sample.views(0), settings) * settings.epochs for sample in (first, train) if sample]
    history: dict[str, list[dict[str, float]]] = {}
    if first is not None:
        history["pretrain_history"], _ = train_epochs(
            network, first.views, labels_of(first), settings, seed, folder / "checkpoint_pretrain.pt",
            lambda done, total: progress(done, sum(n_steps)), accelerator,
        )  # fmt: skip
    held_out = None if valid is None else (valid.views(0), labels_of(valid))
    watched: dict[str, tuple[Batches, Labels]] = {}
    if held_out is not None and settings.monitor == "held_out":
        own = (train.views(0), labels_of(train))
        watched = {"train": as_many(own, len(held_out[0].lengths)), "held_out": held_out}
    history["history"], state = train_epochs(
        network, train.views, labels_of(train), settings, seed, folder / "checkpoint.pt",
        lambda done, total: progress(sum(n_steps) - total + done, sum(n_steps)), accelerator,
        held_out if settings.keep == "best_on_held_out" else None, watched=watched,
    )  # fmt: skip
    if watched:
        write_json(folder / MEASURES, measures(history["history"], n_steps[-1]))
    write_atomically(folder / WEIGHTS, safetensors.torch.save({k: v.cpu().contiguous() for k, v in state.items()}))
    on = {path: rate for path, rate in rates(network).items() if rate > 0}
    facts = {"mean": mean.tolist(), "scale": scale.tolist(), "seed": seed, "dropout": on}
    write_json(folder / TRAINING, {**facts, **history, "precision": accelerator.mixed_precision})
    accelerator.free_memory()


def set_up(network: Network, train: Sample, settings: NeuralStage) -> Accelerator:
    """Bring a network to its device with the rates and layers of the settings, its dropout audited."""
    accelerator = make_accelerator(settings.precision)
    set_rates(network.backbone, settings.backbone_dropout)
    prepare_layers(network.backbone, settings)
    network.to(accelerator.device)
    if settings.backbone_dropout == 0:
        with advice_on_memory(settings):
            audit(network.backbone, backbone_inputs(train.views(0), accelerator.device))
    return accelerator


def train_epochs(
    network: Network,
    views: Callable[[int], Batches],
    labels: Labels,
    settings: NeuralStage,
    seed: int,
    checkpoint_file: Path,
    progress: Progress,
    accelerator: Accelerator,
    held_out: tuple[Batches, Labels] | None = None,
    loss_of: Callable[[Network, dict[str, Tensor], Labels, NeuralStage], Tensor] | None = None,
    watched: dict[str, tuple[Batches, Labels]] | None = None,
) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """Train all epochs; the history by epoch and the weights to keep: the last, their average, or the best.

    Args:
        held_out: rows to choose the epoch on.
        loss_of: a batch; `label_loss` unless another is given.
        watched: rows whose loss in both modes joins the history, which nothing is chosen by.
    """
    loss_of = loss_of or label_loss
    total_steps = steps_per_epoch(views(0), settings) * settings.epochs
    optimizer = make_optimizer(network, settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, with_warmup(settings.schedule, settings.warmup, total_steps, settings.cycles, settings.decay)
    )
    optimizer = accelerator.prepare(optimizer)
    average = make_average(network, settings)
    parts = {"network": network, "optimizer": optimizer, "schedule": schedule}
    parts |= {"average": average} if average else {}
    parts |= {"scaler": accelerator.scaler} if accelerator.scaler else {}
    checkpoint = Checkpoint(checkpoint_file, parts)
    facts = checkpoint.load() or {"epoch": 0, "step": 0, "history": [], "best": None}
    history, best, step = facts["history"], facts["best"], facts["step"]
    for epoch in range(facts["epoch"], settings.epochs):
        network.train()
        losses, first_step, started = [], step, time.perf_counter()
        for group in batch_groups(views(epoch + 1), labels, settings, seed, epoch, accelerator.device):
            for batch, target, share in group:
                with advice_on_memory(settings):
                    with accelerator.autocast():
                        loss = loss_of(network, batch, target, settings) * share
                    accelerator.backward(loss)
                losses.append(loss.detach())
            accelerator.clip_grad_norm_(network.parameters(), settings.clip_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            if average is not None and settings.average == "ema":
                average.update_parameters(network)
            step += 1
            progress(step, total_steps)
        epoch_loss = float(torch.stack(losses).sum()) / (step - first_step)
        history.append({"train_loss": epoch_loss, "learning_rate": schedule.get_last_lr()[0]})
        if not np.isfinite(epoch_loss):
            raise DataError(
                f"the training loss must stay finite; it is {epoch_loss} in epoch {epoch + 1}. "
                "Lower the stage's learning_rate."
            )
        is_late = epoch >= settings.epochs - settings.average_epochs
        if average is not None and settings.average == "last_epochs" and is_late:
            average.update_parameters(network)
        kept = average.module if average is not None and int(average.n_averaged) else network
        if watched:
            history[-1]["seconds"] = time.perf_counter() - started
            outputs_of = partial(forward, kept, batch_size=settings.batch_size, accelerator=accelerator)
            history[-1] |= losses_in_both_modes(outputs_of, watched, settings.loss)
        if held_out is not None:
            outputs = torch.tensor(forward(kept, held_out[0], settings.batch_size, accelerator), dtype=torch.float32)
            history[-1]["valid_loss"] = float(training_loss(settings.loss, outputs, held_out[1]))
            if best is None or history[-1]["valid_loss"] < best[0]:
                best = (history[-1]["valid_loss"], state_of(kept))
        checkpoint.save({"epoch": epoch + 1, "step": step, "history": history, "best": best})
    if best is not None:
        return history, best[1]
    return history, state_of(network if average is None else average.module)


def label_loss(network: Network, batch: dict[str, Tensor], target: Labels, settings: NeuralStage) -> Tensor:
    """Training loss of a batch; with R-Drop, of two passes with other masks and of what they disagree on.

    With R-Drop and a backbone that drops, the batch holds each row twice; where only the head drops, the backbone
    runs once and its features go twice through the head.
    """
    features = network.features(batch)
    if settings.r_drop == 0:
        return network.head.loss(features, lambda outputs: training_loss(settings.loss, outputs, target))
    if settings.backbone_dropout == 0:
        features = torch.cat([features, features])
    one, other = network.head(features).chunk(2)
    supervised = (training_loss(settings.loss, one, target) + training_loss(settings.loss, other, target)) / 2
    return supervised + settings.r_drop * r_drop_penalty(settings.loss, one, other, target)


def steps_per_epoch(batches: Batches, settings: NeuralStage) -> int:
    """Steps of the optimizer in one epoch."""
    return len(step_plan(batches, settings, 0, 0, "cpu"))  # the same number on any device


def backbone_inputs(batches: Batches, device: torch.device) -> dict[str, Tensor]:
    """A few rows as the backbone reads them, for the audit."""
    rows = np.arange(min(4, len(batches.lengths)))
    if batches.equal_lengths:
        rows = rows[batches.lengths[rows] == batches.lengths[0]]
    return {name: tensor for name, tensor in batches.batch(rows, device).items() if name != "columns"}


def predict(
    network: Network,
    views: Callable[[int], Batches],
    n_views: int,
    settings: NeuralStage,
    folder: Path,
    n_targets: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Predictions (n_rows, n_targets) in the targets' own units with the weights in `folder`: their mean over views.

    Returns:
        The predictions, and with `mc_dropout` their standard deviation over its passes, of the same shape.

    Source of mc_dropout: Gal and Ghahramani, Dropout as a Bayesian Approximation, ICML 2016.
    """
    load_weights(network, folder)
    set_rates(network.backbone, settings.backbone_dropout)
    # On a CPU always in float32: a notebook's processor may have nothing else, and rows are alike in any batch.
    accelerator = make_accelerator(settings.precision if torch.cuda.is_available() else "float32")
    network.to(accelerator.device)
    training = read_json(folder / TRAINING)
    mean, scale = (np.array(training[name])[:n_targets] for name in ("mean", "scale"))
    seed_everything(training["seed"])
    with advice_on_memory(settings):
        passes = [
            forward(network, batches, settings.batch_size, accelerator, drops=settings.mc_dropout > 0)[:, :n_targets]
            for batches in map(views, range(n_views))
            for _ in range(max(settings.mc_dropout, 1))
        ]
    spread = np.std(passes, axis=0) * scale if settings.mc_dropout else None
    return np.mean(passes, axis=0) * scale + mean, spread


def forward(
    network: nn.Module, batches: Batches, batch_size: int, accelerator: Accelerator, drops: bool = False
) -> NDArray[np.float64]:
    """Outputs (n_rows, n_outputs) in standardised units, in the order of the rows; with `drops`, dropout stays on."""
    network.train(drops)
    plan = sorted_plan(batches.lengths, batch_size, batches.equal_lengths)
    outputs: list[NDArray[np.float64]] = []
    with torch.inference_mode(), accelerator.autocast():
        for rows in plan:
            outputs.append(network(batches.batch(rows, accelerator.device)).float().cpu().numpy().astype(np.float64))
    y_pred = np.concatenate(outputs)
    back = np.argsort(np.concatenate(plan))
    return y_pred[back]


def load_weights(network: nn.Module, folder: Path) -> None:
    """Load what `fit` wrote; every key must be there and none foreign."""
    network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS), strict=True)


def state_of(network: nn.Module) -> dict[str, Tensor]:
    """A copy of its weights on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


@contextmanager
def advice_on_memory(settings: NeuralStage) -> Iterator[None]:
    """Say what to do where memory runs out; finished folds are kept."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # torch.OutOfMemoryError is a RuntimeError; on a CPU there is only the allocator's message.
        words = ("out of memory", "not enough memory", "can't allocate memory")
        if not isinstance(error, MemoryError) and not any(word in str(error) for word in words):
            raise
        device_type = "cuda" if torch.cuda.is_available() else "cpu"
        together = min(settings.batch_size, piece_size(device_type, settings.precision))
        smaller = max(1, together // 2)
        raise DataError(
            f"a batch must fit into memory; of batch_size {settings.batch_size}, {together} rows together do not. "
            f"Set batch_size: {smaller} and accumulate: {settings.batch_size * settings.accumulate // smaller} "
            "(the same step), or checkpoint_layers: true; finished folds are kept."
        ) from None


def make_accelerator(precision: str) -> Accelerator:
    """Device and precision of this process.

    Raises:
        ConfigError: if fp16 is asked for on a CPU, or bf16 where the hardware has no instructions for it.
    """
    has_gpu = torch.cuda.is_available()
    has_bf16 = gpu_has_bf16() if has_gpu else cpu_has_bf16()
    if precision == "auto":
        precision = ("bf16" if has_bf16 else "fp16") if has_gpu else "float32"
    require_precision(precision, has_gpu, has_bf16)
    AcceleratorState._reset_state(True)  # stages of one worker may differ in precision
    return Accelerator(mixed_precision="no" if precision == "float32" else precision)


def gpu_has_bf16() -> bool:
    """Whether the GPU has it: a T4 says so too, by slow emulation (pytorch issue 148322)."""
    return torch.cuda.is_bf16_supported(including_emulation=False)
