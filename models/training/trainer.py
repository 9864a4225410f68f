"""The training loop of all neural stages; read it from `Trainer.fit` down.

A stage provides a `Network` and `EncodedDataset`s. The loop does the scaling of targets, batches of similar
length, the optimizer, the schedule, precision and device (by accelerate), checkpoints, and the files for
prediction.
"""

import os
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from core.errors import DataError
from core.files import is_of_system, remove_damaged, require_room, sync, write_json
from models.context import Context
from models.job_folder import TRAINING, WEIGHTS, write_notes
from models.targets import target_scale
from models.training.batches import EncodedDataset, LabelBatch, MicroBatch, in_advance
from models.training.loss_log import LossLog, start_tracker, track, tracker_arguments
from models.training.losses import load_loss
from models.training.network import (
    Encoded,
    Network,
    as_predictions,
    audit,
    forward,
    halve_frozen,
    make_accelerator,
    rates,
    require_no_batch_norm,
    set_rates,
)
from models.training.optimizer import make_optimizer, recompute_layers
from models.training.schedules import with_warmup
from models.training.settings import TrainingSettings

SECONDS_BETWEEN_CHECKPOINTS = 30.0
"""Least time between two checkpoints."""
WRITES_BETWEEN = 20
"""The same as a multiple of the time that the last write took, so that at most 5 % of the time is spent on
writing.
"""
N_SCORES = 10
"""Approximate number of epochs after which held-out rows are scored, of at least twice as many."""
CLIP_NORM = 1.0
"""Maximum norm of the gradient."""


@dataclass
class Trainer:
    """Trains a network.

    Attributes:
        network: network with random or pretrained weights; it is trained in place.
        settings: settings of the stage.
        folder: folder of the weights, the report, losses.csv and the checkpoints.
        context: what is learned, the seed, and the score of held-out rows.
        held_out: encoded held-out rows, which are scored after some epochs, without an effect on training;
            None if `context` has no score.
    """

    network: Network
    settings: TrainingSettings
    folder: Path
    context: Context
    held_out: Encoded | None = None

    def __post_init__(self) -> None:
        problem_type = self.context.task.problem_type
        self.loss = load_loss(self.settings.loss, problem_type)
        self.accelerator = make_accelerator(self.settings.precision, **tracker_arguments(self.folder))
        self.log = LossLog(self.folder, partial(track, self.accelerator))
        self.network.to(self.accelerator.device)

    def fit(self, train: EncodedDataset) -> bool:
        """Train on labelled rows, write weights and a report, and return whether the network beats a constant
        prediction.
        """
        labels = self.prepare(train)
        start_tracker(self.accelerator, self.folder)
        try:
            self.train_epochs(train.encoded, labels)
        finally:
            self.accelerator.end_training()
        # Weights of the hub may be views of transposed tensors, which safetensors does not take, or of each
        # other.
        as_saved = partial(torch.clone, memory_format=torch.contiguous_format)
        weights = {name: as_saved(tensor.cpu()) for name, tensor in self.network.state_dict().items()}
        save_file(weights, self.folder / WEIGHTS)
        self.report["dropout"] = {path: rate for path, rate in rates(self.network).items() if rate > 0}
        write_json(self.folder / TRAINING, self.report)
        return self.beats_constant(train, labels)

    def prepare(self, train: EncodedDataset) -> LabelBatch:
        """Set up the scale of the labels, the report and the backbone; return the scaled labels."""
        self.fit_scale(train)
        self.prepare_backbone(train)
        return self.make_labels(train)

    def fit_scale(self, train: EncodedDataset) -> None:
        """Set mean and scale of the labels, and begin the report with them."""
        self.mean, self.scale = target_scale(train.y, self.loss.is_classification)
        self.report: dict[str, Any] = {
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
            "seed": self.context.seed,
            "precision": self.accelerator.mixed_precision,
        }
        if self.loss.is_classification:
            classes = [np.unique(column[~np.isnan(column)]).astype(int).tolist() for column in train.y.T]
            self.report["classes"] = [
                present or [0, 1] for present in classes
            ]  # [0, 1]: a head without labels

    def prepare_backbone(self, train: EncodedDataset) -> None:
        """Set dropout rates, gradient checkpointing and the precision of frozen layers.

        With `backbone_dropout: 0` the backbone must give the same outputs in training and evaluation mode.
        """
        backbone = self.network.backbone
        require_no_batch_norm(backbone)
        set_rates(backbone, self.settings.backbone_dropout)
        if self.settings.gradient_checkpointing:
            recompute_layers(backbone)
        if self.settings.backbone_dropout == 0:
            batches = replace(train.encoded(0), columns=None)  # the backbone does not get the numeric columns
            audit(backbone, batches.batch(batches.sorted_plan(4)[0], self.accelerator.device))
        if self.accelerator.device.type == "cuda" and self.accelerator.mixed_precision == "bf16":
            halve_frozen(backbone)

    def make_labels(self, dataset: EncodedDataset) -> LabelBatch:
        """Return standardised labels, or class indices, and their weights."""
        weights = dataset.weights * ~np.isnan(dataset.y)
        scaled = np.nan_to_num((dataset.y - self.mean) / self.scale)
        arrays = (scaled, weights, dataset.sides)
        return LabelBatch(*(torch.tensor(array, dtype=torch.float32) for array in arrays))

    def train_epochs(self, encoded: Encoded, labels: LabelBatch) -> None:
        """Train all epochs under one schedule, from a checkpoint if there is one."""
        settings = self.settings
        seed = self.context.seed
        device = self.accelerator.device
        # As many in each epoch and on all devices.
        n_steps = len(encoded(0).step_plan(settings, 0, 0, "cpu"))
        optimizer = make_optimizer(self.network, settings)
        n_total = n_steps * settings.epochs
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, with_warmup(settings, n_total))
        if settings.warmup > max(1, n_total / 2):
            note = f"the warm-up of {settings.warmup:g} steps is cut to half of the {n_total} steps"
            write_notes(self.folder, [note])
        optimizer = self.accelerator.prepare(optimizer)
        parts = {"network": self.network, "optimizer": optimizer, "schedule": schedule}
        parts |= {"scaler": self.accelerator.scaler, "losses": self.log}
        checkpoint = Checkpoint(self.folder / f"checkpoint_{seed}.pt", parts)
        no_loss = torch.zeros((), dtype=torch.float64)
        first_epoch, first_step, loss_sum = checkpoint.load() or (0, 0, no_loss)
        epochs = range(first_epoch, settings.epochs)
        score_every = max(1, settings.epochs // N_SCORES)
        rows_of_epochs = in_advance(encoded, [epoch + 1 for epoch in epochs], device)
        for epoch, rows in zip(epochs, rows_of_epochs, strict=True):
            self.network.train()
            steps = rows.steps(labels, settings, seed, epoch, device, first_step)
            for n_done, micro_batches in enumerate(steps, start=first_step + 1):
                loss_sum = loss_sum + self.take_step(micro_batches, optimizer)
                schedule.step()
                total_done = epoch * n_steps + n_done
                self.context.progress(total_done, n_total)
                is_last = n_done == n_steps
                is_scored = is_last and (settings.epochs - epoch - 1) % score_every == 0
                if is_last or self.log.due():
                    self.require_steps()
                    factor = schedule.get_last_lr()[0] / schedule.base_lrs[0]
                    self.log.write(
                        epoch=epoch + 1,
                        step=total_done,
                        loss=float(loss_sum) / n_done,
                        learning_rate=self.settings.learning_rate * factor,
                        held_out_score=self._held_out_score() if is_scored else None,
                    )
                if checkpoint.due() and loss_sum.isfinite():  # else the weights may be NaN
                    checkpoint.save(epoch, n_done, loss_sum)
            first_step = 0
            loss_sum = no_loss

    def take_step(self, micro_batches: list[MicroBatch], optimizer: torch.optim.Optimizer) -> Tensor:
        """Make one step of the optimizer with the gradients of all its micro-batches; return their loss."""
        total = torch.zeros((), device=self.accelerator.device)
        for micro_batch in micro_batches:
            with self.accelerator.autocast():
                loss = self.training_loss(micro_batch.inputs, micro_batch.labels) * micro_batch.share
            self.accelerator.backward(loss)
            total += loss.detach()
        self.accelerator.clip_grad_norm_(self.network.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()
        if self.accelerator.scaler is not None:  # which has left out a step without a finite loss
            total = torch.where(total.isfinite(), total, 0)
        return total

    def require_steps(self) -> None:
        """Raise a DataError if fp16 has overflowed in so many steps that the network has not learned."""
        scaler = self.accelerator.scaler
        if scaler is not None and scaler.get_scale() < 1:  # it halves at each overflow
            raise DataError("the network overflows in fp16; set precision: float32 in the stage.")

    def training_loss(self, batch: dict[str, Tensor], labels: LabelBatch) -> Tensor:
        """Return the training loss of a batch; with R-Drop the loss of two passes and their penalty.

        With R-Drop and dropout in the backbone, the batch has each row twice. With dropout only in the
        head, the backbone runs once and the head twice.
        """
        features = self.network.features(batch)
        head = self.network.head
        error = partial(self.loss.mean_error, labels=labels)
        if self.settings.r_drop == 0:
            return head.loss(features, error)
        if self.settings.backbone_dropout == 0:
            features = torch.cat([features, features])
        one, other = head(features).chunk(2)
        mean_loss = (error(one) + error(other)) / 2
        return mean_loss + self.settings.r_drop * self.loss.mean_penalty(one, other, labels)

    def beats_constant(self, train: EncodedDataset, labels: LabelBatch) -> bool:
        """Return whether the network has a lower loss than a constant prediction on some training rows.

        Auxiliary targets do not count.
        """
        n_targets = len(self.context.task.targets)
        labelled = np.flatnonzero(~np.isnan(train.y[:, :n_targets]).all(axis=1))
        rows = labelled[np.unique(np.linspace(0, len(labelled) - 1, 256).astype(np.intp))]
        some_labels = labels.take(rows, torch.device("cpu"))
        some_labels.weights[:, n_targets:] = 0
        outputs = forward(
            self.network, train.encoded(0).take(rows), self.settings.batch_size, self.accelerator
        )
        error = self.loss.mean_error(outputs, some_labels)
        constant = self.loss.of_constant(labels, outputs.shape[1]).expand_as(outputs)
        return bool(error < self.loss.mean_error(constant, some_labels))

    def _held_out_score(self) -> float | None:
        """Return the score of the held-out rows, without augmentation; None without rows or without a score.

        No error ends the job: the rows are predicted once more after training, and scored when the job has
        ended.
        """
        if self.held_out is None or self.context.held_out is None:
            return None
        with torch.random.fork_rng():  # a user's metric may draw; no other generator trains a network
            try:
                outputs = forward(self.network, self.held_out(0), self.settings.batch_size, self.accelerator)
                y_pred = as_predictions([outputs], self.report, self.context.task)
                score = float(self.context.held_out.score(y_pred))
            except Exception:
                return None
        return score if np.isfinite(score) else None


class Checkpoint:
    """A file next to a job's outputs, deleted before the job is published.

    Args:
        parts: objects with state_dict and load_state_dict by name; None for those that a run does not have.
    """

    def __init__(self, path: Path, parts: dict[str, Any]) -> None:
        self.path = path
        self.parts = {name: part for name, part in parts.items() if part is not None}
        self.next_write = time.monotonic() + SECONDS_BETWEEN_CHECKPOINTS

    def load(self) -> tuple[int, int, torch.Tensor] | None:
        """Restore all parts and the random generators from the file that an earlier process left.

        Returns:
            The arguments of `save`; None without a readable file.
        """
        if not self.path.exists():
            return None
        try:
            with ZipFile(self.path) as file:
                if file.testzip() is not None:  # a checksum, which torch.load does not compare
                    raise BadZipFile
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # of any kind, by the bytes that are wrong
            if is_of_system(error):
                raise
            remove_damaged(self.path, "the job starts again")
            return None
        for name in self.parts.keys() & state["parts"].keys():  # a GPU may have a scaler where a CPU had none
            self.parts[name].load_state_dict(state["parts"][name])
        torch.set_rng_state(state["generator"])
        torch.cuda.set_rng_state_all(state["gpu_generators"])
        return state["position"]

    def due(self) -> bool:
        """Whether the last write was long enough ago."""
        return time.monotonic() >= self.next_write

    def save(self, epoch: int, n_done: int, loss_sum: torch.Tensor) -> None:
        """Write the state of all parts and of the random generators.

        Args:
            epoch: number of the current epoch, from 0.
            n_done: steps of this epoch that are done.
            loss_sum: sum of their losses.
        """
        started = time.monotonic()
        state = {
            "position": (epoch, n_done, loss_sum),
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "generator": torch.get_rng_state(),
            "gpu_generators": torch.cuda.get_rng_state_all(),
        }
        temporary = self.path.with_suffix(".tmp")
        try:
            torch.save(state, temporary)
            sync(temporary)
            os.replace(temporary, self.path)
        except Exception:
            try:
                require_room(self.path.parent)
            finally:
                temporary.unlink(missing_ok=True)  # it would keep a full disk full
            raise
        finished = time.monotonic()
        self.next_write = finished + max(SECONDS_BETWEEN_CHECKPOINTS, WRITES_BETWEEN * (finished - started))
