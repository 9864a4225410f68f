"""The one training loop of the neural stages: read it from `fit` down, and change it.

A stage gives a `Network` and `Sample`s; the loop owns target scaling, length-bucketed batches, the optimizer, the
schedule, precision and device (by accelerate), checkpoints, and what is written for prediction.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
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
from torch.optim.swa_utils import AveragedModel

from competition.errors import DataError
from competition.files import read_json, write_json
from competition.types import Array, ProblemType
from models.settings import NeuralStage
from models.training.batches import Batches, MicroBatch, Sample, micro_batch_size
from models.training.checkpoint import Checkpoint
from models.training.dropout import audit, rates, set_rates
from models.training.heads import Network
from models.training.labels import target_scale
from models.training.losses import Labels, load_loss
from models.training.machine import cpu_has_bf16, require_precision
from models.training.optimizer import make_optimizer, moving_average, recompute_layers
from models.training.schedules import with_warmup

WEIGHTS, TRAINING = "weights.safetensors", "training.json"
MEASURES = "measures.json"
"""Flat numbers that a job found out about itself, by name."""
Watched = dict[str, tuple[Batches, Labels, bool]]
"""Rows whose loss joins the history under a name, and whether dropout is on."""
HELD_OUT = "held_out_evaluation_mode"
Encoded = Callable[[int], Batches]
"""Rows by augmentation; see `Sample`."""
Progress = Callable[[int, int], None]


@dataclass
class Trainer:
    """What trains a network.

    network: with the random or pretrained weights to start from; left with the trained ones.
    folder: of the weights, the report, and the checkpoints on the way.
    problem_type: what is learned, never ordinal.
    """

    network: Network
    settings: NeuralStage
    seed: int
    folder: Path
    progress: Progress
    problem_type: ProblemType = "regression"

    def __post_init__(self) -> None:
        self.loss = load_loss(self.settings.loss, self.problem_type, self.settings.label_smoothing)
        self.accelerator = make_accelerator(self.settings.precision)
        self.network.to(self.accelerator.device)

    def fit(self, train: Sample, valid: Sample | None = None, first: Sample | None = None) -> bool:
        """Train on labelled rows; write weights and a report. Gives whether training rows are predicted better than by
        the mean of their labels; of classes nobody asks.

        Args:
            valid: held-out rows, for `keep: best_on_held_out` and `monitor: held_out` only.
            first: rows to train on before, with a schedule of their own (`extra_rows: pretrain`).
        """
        monitors, labels = self.settings.monitor == "held_out", self.prepare(train)
        report = {"mean": self.mean.tolist(), "scale": self.scale.tolist(), "seed": self.seed}
        if self.loss.link is not None:
            y = train.y if first is None else np.vstack([train.y, first.y])
            report["classes"] = [np.unique(column[~np.isnan(column)]).astype(int).tolist() for column in y.T]
        if first is not None:
            first_labels = self.labels_of(first)
            report["pretrain_history"], _ = self.train_epochs(first.encoded, first_labels, "_pretrain")
        watched: Watched = {}
        if valid is not None:
            held_out = valid.encoded(0), self.labels_of(valid)
            watched[HELD_OUT] = (*held_out, False)
            if monitors:  # as many training rows, so that watching costs little
                some = evenly(train, labels, len(valid.y))
                watched["held_out_training_mode"] = (*held_out, True)
                watched |= {"train_evaluation_mode": (*some, False), "train_training_mode": (*some, True)}
        history, state = self.train_epochs(train.encoded, labels, "", watched)
        if monitors:
            measures = {name: history[-1][name] for name in watched}
            n_steps = steps_per_epoch(train.encoded(0), self.settings) * self.settings.epochs
            measures["seconds_per_step"] = sum(epoch["seconds"] for epoch in history) / n_steps
            write_json(self.folder / MEASURES, measures)
        # weights of the hub may be views of transposed tensors, which safetensors does not take
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, self.folder / WEIGHTS)
        report["dropout"] = {path: rate for path, rate in rates(self.network).items() if rate > 0}
        report |= {"precision": self.accelerator.mixed_precision, "history": history}
        write_json(self.folder / TRAINING, report)
        return self.loss.link is not None or self.has_learned(train, labels)

    def has_learned(self, train: Sample, labels: Labels) -> bool:
        """Whether the loss of some training rows is below that of the mean of all."""
        batches, some = evenly(train, labels, 256)
        outputs = forward(self.network, batches, self.settings.batch_size, self.accelerator)
        return bool(self.loss.mean_error(outputs, some) < self.loss.mean_error(torch.zeros_like(outputs), some))

    def prepare(self, train: Sample) -> Labels:
        """Give the network the rates and layers of the settings, and audit its dropout; returns the labels."""
        self.mean, self.scale = target_scale(train.y, self.loss.link is not None)
        backbone = self.network.backbone
        set_rates(backbone, self.settings.backbone_dropout)
        if self.settings.checkpoint_layers:
            recompute_layers(backbone)
        if self.settings.backbone_dropout == 0:
            batches = replace(train.encoded(0), columns=None)
            audit(backbone, batches.batch(batches.sorted_plan(4)[0], self.accelerator.device))
        return self.labels_of(train)

    def labels_of(self, sample: Sample) -> Labels:
        """Labels in standard deviations of the training rows, or numbers of classes, and their weights."""
        weights = sample.weights * ~np.isnan(sample.y)
        scaled = np.nan_to_num((sample.y - self.mean) / self.scale)
        return Labels(torch.tensor(scaled, dtype=torch.float32), torch.tensor(weights, dtype=torch.float32))

    def train_epochs(
        self, encoded: Encoded, labels: Labels, part: str, watched: Watched | None = None
    ) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
        """Train all epochs; losses and the rate of each, and the weights to keep: the last, their average, or the best
        by the watched held-out rows.
        """
        network, settings, accelerator = self.network, self.settings, self.accelerator
        n_steps = steps_per_epoch(encoded(0), settings)
        total = n_steps * settings.epochs
        optimizer = make_optimizer(network, settings)
        rate = with_warmup(settings.schedule, settings.warmup, total, settings.cycles, settings.decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        accelerator.free_memory()  # else it unscales and clips for the optimizer of earlier epochs, too
        optimizer = accelerator.prepare(optimizer)
        moved = partial(moving_average, decay=settings.ema_decay)
        average = AveragedModel(network, avg_fn=moved) if settings.average == "ema" else None
        kept = average.module if average else network
        parts = {"network": network, "optimizer": optimizer, "schedule": schedule, "average": average}
        parts["scaler"] = accelerator.scaler
        checkpoint = Checkpoint(self.folder / f"checkpoint{part}_{self.seed}.pt", parts)
        history, best = checkpoint.load() or (list[dict[str, float]](), None)
        for epoch in range(len(history), settings.epochs):
            network.train()
            losses, started = [], time.perf_counter()
            steps = encoded(epoch + 1).steps(labels, settings, self.seed, epoch, accelerator.device)
            for step, micro_batches in enumerate(steps, start=epoch * n_steps + 1):
                losses.append(self.take_step(micro_batches, optimizer))
                schedule.step()
                if average:
                    average.update_parameters(network)
                self.progress(step, total)
            loss = float(torch.stack(losses).mean())
            if not np.isfinite(loss):
                raise DataError(f"the training loss is {loss} in epoch {epoch + 1}; lower the stage's learning_rate.")
            history.append({"train_loss": loss, "learning_rate": float(schedule.get_last_lr()[0])})
            if watched:
                if settings.monitor == "held_out":
                    history[-1]["seconds"] = time.perf_counter() - started
                history[-1] |= self.watch(kept, watched)
                loss = history[-1][HELD_OUT]
                if settings.keep == "best_on_held_out" and (best is None or loss < best[0]):
                    best = loss, state_of(kept)
            checkpoint.save((history, best))
        return history, best[1] if best else state_of(kept)

    def take_step(self, micro_batches: list[MicroBatch], optimizer: torch.optim.Optimizer) -> Tensor:
        """One step of the optimizer on the gradient of all its micro-batches; returns their loss."""
        total = torch.zeros((), device=self.accelerator.device)
        for batch, labels, share in micro_batches:
            with self.accelerator.autocast():
                loss = self.loss_of(batch, labels) * share
            self.accelerator.backward(loss)
            total += loss.detach()
        self.accelerator.clip_grad_norm_(self.network.parameters(), self.settings.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        return total

    def loss_of(self, batch: dict[str, Tensor], labels: Labels) -> Tensor:
        """Training loss of a batch; with R-Drop, of two passes with other masks and of what they disagree on.

        With R-Drop and a backbone that drops, the batch holds each row twice; where only the head drops, the backbone
        runs once and its features go twice through the head.
        """
        features, head = self.network.features(batch), self.network.head
        error = partial(self.loss.mean_error, labels=labels)
        if self.settings.r_drop == 0:
            return head.loss(features, error)
        if self.settings.backbone_dropout == 0:
            features = torch.cat([features, features])
        one, other = head(features).chunk(2)
        return (error(one) + error(other)) / 2 + self.settings.r_drop * self.loss.mean_penalty(one, other, labels)

    def watch(self, network: nn.Module, watched: Watched) -> dict[str, float]:
        """Loss of the watched rows; every random stream is left as it was found.

        Why both modes: where dropout sits inside a network, the variance of its activations differs between training
        and inference (Li et al., arXiv 1801.05134), so the two losses on the same rows come apart.
        """
        found = {}
        with torch.random.fork_rng():
            for name, (batches, labels, drops) in watched.items():
                torch.manual_seed(0)  # the same masks in every epoch
                outputs = forward(network, batches, self.settings.batch_size, self.accelerator, drops)
                found[name] = float(self.loss.mean_error(outputs, labels))
        return found


def evenly(sample: Sample, labels: Labels, n: int) -> tuple[Batches, Labels]:
    """At most n rows of a sample and of its labels, evenly spread."""
    rows = np.unique(np.linspace(0, len(sample.y) - 1, n).astype(np.intp))
    return sample.encoded(0).take(rows), labels.take(rows, "cpu")


def steps_per_epoch(batches: Batches, settings: NeuralStage) -> int:
    """Steps of the optimizer in one epoch, the same number on any device and in any epoch."""
    return len(batches.step_plan(settings, 0, 0, "cpu"))


def predict(
    network: Network, encoded: Encoded, n_augmentations: int, settings: NeuralStage, folder: Path, n_outputs: int,
    link: Callable[..., Tensor] | None = None,
) -> Array:  # fmt: skip
    """Predictions (n_rows, n_outputs) in the targets' own units, or probabilities of classes, with the weights in
    `folder`, as the mean over augmentations and the passes of `mc_dropout`. A class that no training row had has the
    probability 0.

    Source of mc_dropout: Gal and Ghahramani, Dropout as a Bayesian Approximation, ICML 2016.
    """
    network.load_state_dict(load_file(folder / WEIGHTS))
    set_rates(network.backbone, settings.backbone_dropout)
    # On a CPU always in float32: a notebook's processor may have nothing else, and rows are alike in any batch. A
    # notebook's GPU may have no bf16.
    on_gpu = "auto" if settings.precision == "bf16" else settings.precision
    accelerator = make_accelerator(on_gpu if torch.cuda.is_available() else "float32")
    network.to(accelerator.device)
    training = read_json(folder / TRAINING)
    mean, scale = (np.array(training[name])[:n_outputs] for name in ("mean", "scale"))
    set_seed(training["seed"])
    passes = [
        forward(network, encoded(i), settings.batch_size, accelerator, drops=settings.mc_dropout > 0)
        for i in range(n_augmentations)
        for _ in range(max(settings.mc_dropout, 1))
    ]
    outputs = torch.stack(passes).double()
    y_pred = (outputs if link is None else link(outputs, training["classes"]))[..., :n_outputs].numpy()
    return y_pred.mean(axis=0) * scale + mean


def forward(
    network: nn.Module, batches: Batches, batch_size: int, accelerator: Accelerator, drops: bool = False
) -> Tensor:
    """Outputs (n_rows, n_outputs), standardised numbers or logits, in the order of the rows; with `drops`, dropout
    stays on.
    """
    network.train(drops)
    plan = batches.sorted_plan(batch_size)
    with torch.inference_mode(), accelerator.autocast():
        outputs = [network(batches.batch(rows, accelerator.device)).float().cpu() for rows in plan]
    return torch.cat(outputs)[np.argsort(np.concatenate(plan))]


def state_of(network: nn.Module) -> dict[str, Tensor]:
    """A copy of its weights on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def smaller(settings: NeuralStage, error: RuntimeError) -> NeuralStage:
    """Settings of the same step with at most half as many rows together, after memory ran out; else raises the error.

    A DataError where one row alone is too large.
    """
    if not should_reduce_batch_size(error):
        raise error
    device_type = "cuda" if torch.cuda.is_available() else "cpu"
    together = min(settings.batch_size, micro_batch_size(device_type, settings.precision))
    if together == 1:
        raise DataError(
            "the memory is too small for a single row. Set checkpoint_layers: true, or shorten the inputs; finished "
            "folds are kept."
        ) from error
    n_rows = settings.batch_size * settings.accumulate
    batch_size = max(n for n in range(1, together // 2 + 1) if n_rows % n == 0)
    return settings.model_copy(update={"batch_size": batch_size, "accumulate": n_rows // batch_size})


def make_accelerator(precision: str) -> Accelerator:
    """Device and precision of this process."""
    has_gpu = torch.cuda.is_available()
    # A T4 says that it has bf16, too, by slow emulation (pytorch issue 148322).
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if has_gpu else cpu_has_bf16()
    if precision == "auto":
        precision = ("bf16" if has_bf16 else "fp16") if has_gpu else "float32"
    require_precision(precision, has_gpu, has_bf16)
    AcceleratorState._reset_state(True)  # stages of one worker may differ in precision
    mixed = "no" if precision == "float32" else precision
    return Accelerator(cpu=not has_gpu, mixed_precision=mixed)  # a Mac's GPU is left alone: all workers would share it
