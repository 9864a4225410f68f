"""The one training loop of the neural stages: read it from `fit` down, and change it.

A stage gives a `Network` and `Sample`s; the loop owns target scaling, length-bucketed batches, the optimizer, the
schedule, precision and device (by accelerate), checkpoints, and what is written for prediction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from accelerate.utils.memory import should_reduce_batch_size
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from competition.errors import DataError
from competition.files import read_json, write_json
from models.settings import NeuralStage
from models.training.batches import Batches, MicroBatch, Sample, micro_batch_size
from models.training.checkpoint import Checkpoint
from models.training.dropout import audit, rates, set_rates
from models.training.heads import Network
from models.training.labels import Floats, target_scale
from models.training.losses import Labels, as_labels, r_drop_penalty, target_weights, training_loss
from models.training.machine import cpu_has_bf16, require_precision
from models.training.optimizer import make_average, make_optimizer, prepare_layers
from models.training.schedules import with_warmup

WEIGHTS, TRAINING = "weights.safetensors", "training.json"
MEASURES = "measures.json"
"""Flat numbers that a job found out about itself, by name."""
Watched = dict[str, tuple[Batches, Labels]]
"""Rows by the name of their loss: train, held_out."""
History = list[dict[str, float]]
"""Losses and the learning rate of each epoch."""
Encoded = Callable[[int], Batches]
"""Rows by augmentation; see `Sample`."""
Progress = Callable[[int, int], None]
LossOfBatch = Callable[[Network, dict[str, Tensor], Labels, NeuralStage], Tensor]


@dataclass
class Trainer:
    """What trains a network.

    network: with the random or pretrained weights to start from; left with the trained ones.
    folder: of the weights, the report, and the checkpoints on the way.
    """

    network: Network
    settings: NeuralStage
    seed: int
    folder: Path
    progress: Progress

    def __post_init__(self) -> None:
        self.accelerator = make_accelerator(self.settings.precision)
        self.network.to(self.accelerator.device)

    def fit(self, train: Sample, valid: Sample | None = None, first: Sample | None = None) -> None:
        """Train on labelled rows; write weights and a report.

        Args:
            valid: held-out rows, for `keep: best_on_held_out` and `monitor: held_out` only.
            first: rows to train on before, with a schedule of their own (`extra_rows: pretrain`).
        """
        settings, labels = self.settings, self.prepare(train)
        report = {"mean": self.mean.tolist(), "scale": self.scale.tolist(), "seed": self.seed}
        if first is not None:
            first_labels = self.labels_of(first)
            report["pretrain_history"], _ = self.train_epochs(first.encoded, first_labels, "checkpoint_pretrain.pt")
        watched: Watched = {}
        if valid is not None:
            watched["held_out"] = valid.encoded(0), self.labels_of(valid)
            if settings.monitor == "held_out":  # as many training rows, evenly spread, so that watching costs little
                rows = np.unique(np.linspace(0, len(train.y) - 1, len(valid.y)).astype(np.intp))
                watched["train"] = train.encoded(0).take(rows), labels.take(rows, torch.device("cpu"))
        history, state = self.train_epochs(train.encoded, labels, "checkpoint.pt", watched)
        if settings.monitor == "held_out":
            measures = {name: value for name, value in history[-1].items() if name.endswith("_mode")}
            n_steps = steps_per_epoch(train.encoded(0), settings) * settings.epochs
            measures["seconds_per_step"] = sum(epoch["seconds"] for epoch in history) / n_steps
            write_json(self.folder / MEASURES, measures)
        # weights of the hub may be views of transposed tensors, which safetensors does not take
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, self.folder / WEIGHTS)
        report["dropout"] = {path: rate for path, rate in rates(self.network).items() if rate > 0}
        report |= {"precision": self.accelerator.mixed_precision, "history": history}
        write_json(self.folder / TRAINING, report)

    def prepare(self, train: Sample) -> Labels:
        """Give the network the rates and layers of the settings, and audit its dropout; returns the labels."""
        self.mean, self.scale = target_scale(train.y)
        self.importance = target_weights(self.settings.loss, train.y)
        backbone = self.network.backbone
        set_rates(backbone, self.settings.backbone_dropout)
        prepare_layers(backbone, self.settings)
        if self.settings.backbone_dropout == 0:
            batches = train.encoded(0)
            batch = batches.batch(batches.sorted_plan(4)[0], self.accelerator.device)
            audit(backbone, {name: tensor for name, tensor in batch.items() if name != "columns"})
        return self.labels_of(train)

    def labels_of(self, sample: Sample) -> Labels:
        """Labels in standard deviations of the training rows, their weights times the importance of each target."""
        return as_labels(sample.y, sample.weights * self.importance, self.mean, self.scale)

    def train_epochs(
        self,
        encoded: Encoded,
        labels: Labels,
        checkpoint_name: str,
        watched: Watched | None = None,
        loss_of: LossOfBatch | None = None,
    ) -> tuple[History, dict[str, Tensor]]:
        """Train all epochs; the history by epoch and the weights to keep: the last, their average, or the best.

        Args:
            watched: rows whose loss joins the history; held-out ones choose the epoch with `keep: best_on_held_out`.
            loss_of: a batch; `label_loss` unless another is given.
        """
        network, settings, accelerator = self.network, self.settings, self.accelerator
        n_steps = steps_per_epoch(encoded(0), settings)
        total = n_steps * settings.epochs
        optimizer = make_optimizer(network, settings)
        rate = with_warmup(settings.schedule, settings.warmup, total, settings.cycles, settings.decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        optimizer = accelerator.prepare(optimizer)
        average = make_average(network, settings)
        parts = {"network": network, "optimizer": optimizer, "schedule": schedule, "average": average}
        checkpoint = Checkpoint(self.folder / checkpoint_name, {**parts, "scaler": accelerator.scaler})
        history: History = []
        history, best = checkpoint.load() or (history, None)
        for epoch in range(len(history), settings.epochs):
            network.train()
            losses, started = [], time.perf_counter()
            steps = encoded(epoch + 1).steps(labels, settings, self.seed, epoch, accelerator.device)
            for step, micro_batches in enumerate(steps, start=epoch * n_steps + 1):
                losses.append(self.take_step(micro_batches, optimizer, loss_of or label_loss))
                schedule.step()
                if average and settings.average == "ema":
                    average.update_parameters(network)
                self.progress(step, total)
            loss = float(torch.stack(losses).mean())
            if not np.isfinite(loss):
                raise DataError(f"the training loss is {loss} in epoch {epoch + 1}; lower the stage's learning_rate.")
            history.append({"train_loss": loss, "learning_rate": float(schedule.get_last_lr()[0])})
            if average and settings.average == "last_epochs" and epoch >= settings.epochs - settings.average_epochs:
                average.update_parameters(network)
            kept = average.module if average and average.n_averaged > 0 else network
            if watched:
                if settings.monitor == "held_out":
                    history[-1]["seconds"] = time.perf_counter() - started
                history[-1] |= self.watch(kept, watched)
                loss = history[-1]["held_out_evaluation_mode"]
                if settings.keep == "best_on_held_out" and (best is None or loss < best[0]):
                    best = loss, state_of(kept)
            checkpoint.save((history, best))
        return history, best[1] if best else state_of(average.module if average else network)

    def take_step(
        self, micro_batches: list[MicroBatch], optimizer: torch.optim.Optimizer, loss_of: LossOfBatch
    ) -> Tensor:
        """One step of the optimizer on the gradient of all its micro-batches; returns their loss."""
        total = torch.zeros((), device=self.accelerator.device)
        for batch, target, share in micro_batches:
            with self.accelerator.autocast():
                loss = loss_of(self.network, batch, target, self.settings) * share
            self.accelerator.backward(loss)
            total += loss.detach()
        self.accelerator.clip_grad_norm_(self.network.parameters(), self.settings.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        return total

    def watch(self, network: nn.Module, watched: Watched) -> dict[str, float]:
        """Loss of the watched rows as `<name>_<mode>`, with `monitor: held_out` with dropout on as well as off.

        Why both modes: where dropout sits inside a network, the variance of its activations differs between training
        and inference (Li et al., arXiv 1801.05134), so the two losses on the same rows come apart.
        Every random stream is left as it was found.
        """
        modes = {"evaluation_mode": False} | ({"training_mode": True} if self.settings.monitor == "held_out" else {})
        found = {}
        with torch.random.fork_rng():
            for name, (batches, labels) in watched.items():
                for mode, drops in modes.items():
                    torch.manual_seed(0)  # the same masks in every epoch
                    outputs = forward(network, batches, self.settings.batch_size, self.accelerator, drops)
                    found[f"{name}_{mode}"] = float(training_loss(self.settings.loss, outputs, labels))
        return found


def label_loss(network: Network, batch: dict[str, Tensor], target: Labels, settings: NeuralStage) -> Tensor:
    """Training loss of a batch; with R-Drop, of two passes with other masks and of what they disagree on.

    With R-Drop and a backbone that drops, the batch holds each row twice; where only the head drops, the backbone
    runs once and its features go twice through the head.
    """
    features, loss_of = network.features(batch), partial(training_loss, settings.loss, labels=target)
    if settings.r_drop == 0:
        return network.head.loss(features, loss_of)
    if settings.backbone_dropout == 0:
        features = torch.cat([features, features])
    one, other = network.head(features).chunk(2)
    penalty = r_drop_penalty(settings.loss, one, other, target)
    return (loss_of(one) + loss_of(other)) / 2 + settings.r_drop * penalty


def steps_per_epoch(batches: Batches, settings: NeuralStage) -> int:
    """Steps of the optimizer in one epoch, the same number on any device and in any epoch."""
    return len(batches.step_plan(settings, 0, 0, "cpu"))


def predict(
    network: Network, encoded: Encoded, n_augmentations: int, settings: NeuralStage, folder: Path, n_targets: int
) -> tuple[Floats, Floats | None]:
    """Predictions (n_rows, n_targets) in the targets' own units with the weights in `folder`, as the mean over
    augmentations, and with `mc_dropout` their standard deviation over its passes.

    Source of mc_dropout: Gal and Ghahramani, Dropout as a Bayesian Approximation, ICML 2016.
    """
    network.load_state_dict(load_file(folder / WEIGHTS))
    set_rates(network.backbone, settings.backbone_dropout)
    # On a CPU always in float32: a notebook's processor may have nothing else, and rows are alike in any batch.
    accelerator = make_accelerator(settings.precision if torch.cuda.is_available() else "float32")
    network.to(accelerator.device)
    training = read_json(folder / TRAINING)
    mean, scale = (np.array(training[name])[:n_targets] for name in ("mean", "scale"))
    set_seed(training["seed"])
    passes = [
        forward(network, encoded(i), settings.batch_size, accelerator, drops=settings.mc_dropout > 0)[:, :n_targets]
        for i in range(n_augmentations)
        for _ in range(max(settings.mc_dropout, 1))
    ]
    y_pred = torch.stack(passes).double().numpy()
    return y_pred.mean(axis=0) * scale + mean, y_pred.std(axis=0) * scale if settings.mc_dropout else None


def forward(
    network: nn.Module, batches: Batches, batch_size: int, accelerator: Accelerator, drops: bool = False
) -> Tensor:
    """Outputs (n_rows, n_outputs) in standardised units, in the order of the rows; with `drops`, dropout stays on."""
    network.train(drops)
    plan = batches.sorted_plan(batch_size)
    with torch.inference_mode(), accelerator.autocast():
        outputs = [network(batches.batch(rows, accelerator.device)).float().cpu() for rows in plan]
    return torch.cat(outputs)[np.argsort(np.concatenate(plan))]


def state_of(network: nn.Module) -> dict[str, Tensor]:
    """A copy of its weights on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


@contextmanager
def advice_on_memory(settings: NeuralStage) -> Iterator[None]:
    """Say what to do where memory runs out, by a DataError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not should_reduce_batch_size(error):
            raise
        device_type = "cuda" if torch.cuda.is_available() else "cpu"
        together = min(settings.batch_size, micro_batch_size(device_type, settings.precision))
        smaller = max(1, together // 2)
        raise DataError(
            f"the memory is too small for {together} rows together (batch_size is {settings.batch_size}). Set "
            f"batch_size: {smaller} and accumulate: {settings.batch_size * settings.accumulate // smaller} (the same "
            "step), or checkpoint_layers: true; finished folds are kept."
        ) from error


def make_accelerator(precision: str) -> Accelerator:
    """Device and precision of this process."""
    has_gpu = torch.cuda.is_available()
    # A T4 says that it has bf16, too, by slow emulation (pytorch issue 148322).
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if has_gpu else cpu_has_bf16()
    if precision == "auto":
        precision = ("bf16" if has_bf16 else "fp16") if has_gpu else "float32"
    require_precision(precision, has_gpu, has_bf16)
    AcceleratorState._reset_state(True)  # stages of one worker may differ in precision
    return Accelerator(mixed_precision="no" if precision == "float32" else precision)
