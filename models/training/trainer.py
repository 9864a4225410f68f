"""The training loop of all neural stages; read it from `Trainer.fit` down.

A stage provides a `Network` and `EncodedDataset`s. The loop does the scaling of targets, batches of similar
length, the optimizer, the schedule, precision and device (by accelerate), checkpoints, and the files for
prediction.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from core.errors import DataError
from core.files import write_json
from core.types import Array, ProblemType
from models.training.batches import Batches, EncodedDataset, MicroBatch
from models.training.checkpoint import Checkpoint
from models.training.labels import target_scale
from models.training.loss_log import LossLog, LossRecord
from models.training.losses import LabelBatch, load_loss
from models.training.network import Network, audit, rates, set_rates
from models.training.optimizer import make_optimizer, moving_average, recompute_layers
from models.training.phase import Phase, TrainingState
from models.training.prediction import (
    TRAINING,
    WEIGHTS,
    Encoded,
    as_predictions,
    copy_state,
    forward,
    make_accelerator,
    random_state_kept,
)
from models.training.schedules import with_warmup
from models.training.settings import NeuralStage
from models.training.tracking import start_tracker, tracker_arguments


@dataclass(frozen=True)
class EncodedHeldOut:
    """Held-out rows as a network reads them, and their score.

    Attributes:
        batches: returns the rows without augmentation; they are encoded when they are first scored.
        n_outputs: number of predicted columns, without auxiliary targets.
        score: maps predictions (n_rows, n_outputs) to the metric of the competition.
    """

    batches: Callable[[], Batches]
    n_outputs: int
    score: Callable[[Array], float]


@dataclass
class Trainer:
    """Trains a network.

    Attributes:
        network: network with random or pretrained weights; it is trained in place.
        settings: settings of the stage.
        seed: seed of the job.
        folder: folder of the weights, the report, losses.csv and the checkpoints.
        progress: called with the number of finished steps and of all steps.
        problem_type: what is learned. It is never ordinal: ordinal levels are learned as a regression.
        held_out: rows that are scored after each epoch, without an effect on training.
    """

    network: Network
    settings: NeuralStage
    seed: int
    folder: Path
    progress: Callable[[int, int], None]
    problem_type: ProblemType = "regression"
    held_out: EncodedHeldOut | None = None

    def __post_init__(self) -> None:
        self.loss = load_loss(self.settings.loss, self.problem_type, self.settings.label_smoothing)
        self.accelerator = make_accelerator(self.settings.precision, **tracker_arguments(self.folder))
        self.log = LossLog(self.folder, self._track)
        self.network.to(self.accelerator.device)

    def fit(self, train: EncodedDataset, pretrain_set: EncodedDataset | None = None) -> bool:
        """Train, write weights and a report, and return whether the network beats the mean of the labels.

        For classification this is not tested, and True is returned.

        Args:
            train: labelled rows.
            pretrain_set: rows to train on before, with a separate schedule (`extra_rows: pretrain`).
        """
        labels = self.prepare(train, pretrain_set)
        report: dict[str, Any] = {"mean": self.mean.tolist(), "scale": self.scale.tolist(), "seed": self.seed}
        if self.loss.is_classification:
            y = train.y if pretrain_set is None else np.vstack([train.y, pretrain_set.y])
            classes = [np.unique(column[~np.isnan(column)]).astype(int).tolist() for column in y.T]
            report["classes"] = [present or [0, 1] for present in classes]  # [0, 1]: a head without labels
        self.report = report
        start_tracker(self.accelerator, self.folder)
        try:
            if pretrain_set is not None:
                report["pretrain_history"], _ = self.train_epochs(
                    pretrain_set.encoded, self.make_labels(pretrain_set), "pretrain"
                )
            history, weights = self.train_epochs(train.encoded, labels, "train")
        finally:
            self.accelerator.end_training()
        # weights of the hub may be views of transposed tensors, which safetensors does not take
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, self.folder / WEIGHTS)
        report["dropout"] = {path: rate for path, rate in rates(self.network).items() if rate > 0}
        report |= {"precision": self.accelerator.mixed_precision, "history": history}
        write_json(self.folder / TRAINING, report)
        return self.loss.is_classification or self.beats_mean_predictor(train, labels)

    def beats_mean_predictor(self, train: EncodedDataset, labels: LabelBatch) -> bool:
        """Return whether the loss of some training rows is below the loss of the mean label.

        Auxiliary targets do not count.
        """
        batches, some_labels = evenly_spaced_rows(train, labels, 256)
        is_target = torch.arange(train.y.shape[1]) < train.n_targets
        some_labels = replace(some_labels, weights=some_labels.weights * is_target)
        outputs = forward(self.network, batches, self.settings.batch_size, self.accelerator)
        error = self.loss.mean_error(outputs, some_labels)
        error_of_mean = self.loss.mean_error(torch.zeros_like(outputs), some_labels)
        return bool(error < error_of_mean)

    def prepare(self, train: EncodedDataset, pretrain_set: EncodedDataset | None = None) -> LabelBatch:
        """Set up scaling, dropout rates and gradient checkpointing; return the scaled labels of the rows.

        With `backbone_dropout: 0` the backbone must give the same outputs in training and evaluation mode.
        """
        self.mean, self.scale = target_scale(train.y, self.loss.is_classification)
        if pretrain_set is not None:
            mean, scale = target_scale(pretrain_set.y, self.loss.is_classification)
            is_unlabelled = np.isnan(train.y).all(axis=0)  # auxiliary targets that only extra rows have
            self.mean = np.where(is_unlabelled, mean, self.mean)
            self.scale = np.where(is_unlabelled, scale, self.scale)
        backbone = self.network.backbone
        set_rates(backbone, self.settings.backbone_dropout)
        if self.settings.gradient_checkpointing:
            recompute_layers(backbone)
        if self.settings.backbone_dropout == 0:
            batches = replace(train.encoded(0), columns=None)  # the backbone does not get the numeric columns
            audit(backbone, batches.batch(batches.sorted_plan(4)[0], self.accelerator.device))
        return self.make_labels(train)

    def make_labels(self, dataset: EncodedDataset) -> LabelBatch:
        """Return standardised labels, or class indices, and their weights."""
        weights = dataset.weights * ~np.isnan(dataset.y)
        scaled = np.nan_to_num((dataset.y - self.mean) / self.scale)
        sides = None if dataset.sides is None else torch.tensor(dataset.sides, dtype=torch.float32)
        return LabelBatch(
            torch.tensor(scaled, dtype=torch.float32), torch.tensor(weights, dtype=torch.float32), sides
        )

    def train_epochs(
        self, encoded: Encoded, labels: LabelBatch, name: str
    ) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
        """Train all epochs of a phase, from its checkpoint if there is one.

        Returns:
            The history, one record per epoch, and the weights to keep: the last ones, or their moving average.
        """
        phase = self._start_phase(encoded, labels, name)
        phase.checkpoint.load()
        while len(phase.state.history) < self.settings.epochs:
            self._train_one_epoch(phase)
            self._end_epoch(phase)
        if name == "pretrain":
            phase.checkpoint.save()  # a job that is killed in the next phase does not repeat the end of this one
        return phase.state.history, copy_state(phase.averaged)

    def _start_phase(self, encoded: Encoded, labels: LabelBatch, name: str) -> Phase:
        """Return a phase with its optimizer, schedule, moving average and checkpoint."""
        network, settings = self.network, self.settings
        n_steps = steps_per_epoch(encoded(0), settings)
        n_total = n_steps * settings.epochs
        optimizer = make_optimizer(network, settings)
        lr_factor = with_warmup(settings.schedule, settings.warmup, n_total, settings.cycles, settings.decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_factor)
        self.accelerator.free_memory()  # else it also unscales and clips for the previous optimizer
        optimizer = self.accelerator.prepare(optimizer)
        average = None
        if settings.weight_averaging == "ema":
            average = AveragedModel(network, multi_avg_fn=partial(moving_average, decay=settings.ema_decay))
        state = TrainingState()
        parts = {
            "network": network,
            "optimizer": optimizer,
            "schedule": schedule,
            "average": average,
            "scaler": self.accelerator.scaler,
            "state": state,
            "losses": self.log,
        }
        path = self.folder / f"checkpoint_{name}_{self.seed}.pt"
        return Phase(
            name=name,
            network=network,
            encoded=encoded,
            labels=labels,
            n_steps=n_steps,
            first_step=self.log.last_step,
            optimizer=optimizer,
            schedule=schedule,
            average=average,
            state=state,
            checkpoint=Checkpoint(path, parts),
        )

    def _train_one_epoch(self, phase: Phase) -> None:
        """Train the steps of the current epoch that are not done yet."""
        state = phase.state
        epoch = len(state.history)
        n_total = phase.n_steps * self.settings.epochs
        device = self.accelerator.device
        self.network.train()
        batches = phase.encoded(epoch + 1)
        for micro_batches in batches.steps(
            phase.labels, self.settings, self.seed, epoch, device, first=state.step
        ):
            state.loss_sum = state.loss_sum + self.take_step(micro_batches, phase.optimizer)
            state.step += 1
            phase.schedule.step()
            if phase.average:
                phase.average.update_parameters(self.network)
            self.progress(epoch * phase.n_steps + state.step, n_total)
            if self.log.due() and state.step < phase.n_steps:  # at the end of the epoch there is a row anyway
                total = float(state.loss_sum)
                self._log_loss(phase, (total - state.logged_sum) / (state.step - state.logged_step))
                state.logged_step = state.step
                state.logged_sum = total
            if phase.checkpoint.due():
                phase.checkpoint.save()

    def _end_epoch(self, phase: Phase) -> None:
        """Add the epoch to the history, and its loss and score to losses.csv."""
        state = phase.state
        record = {"train_loss": float(state.loss_sum) / state.step, "learning_rate": phase.learning_rate}
        self._log_loss(phase, record["train_loss"], self._held_out_score(phase.averaged))
        state.end_epoch(record)

    def _held_out_score(self, network: nn.Module) -> float | None:
        """Return the score of the held-out rows, without augmentation; None without rows, or if there is no score.

        No error ends the job: the rows are predicted once more after training, and scored when the job has ended.
        """
        if self.held_out is None:
            return None
        with random_state_kept():
            try:
                batches = self.held_out.batches()
                outputs = forward(network, batches, self.settings.batch_size, self.accelerator)
                y_pred = as_predictions([outputs], self.report, self.held_out.n_outputs, self.loss.link)
                score = float(self.held_out.score(y_pred))
            except Exception:
                return None
        return score if np.isfinite(score) else None

    def _log_loss(self, phase: Phase, loss: float, held_out_score: float | None = None) -> None:
        """Add a row to losses.csv.

        Raises:
            DataError: if the loss is not finite.
        """
        epoch = len(phase.state.history)
        if not np.isfinite(loss):
            raise DataError(
                f"the training loss is {loss} in epoch {epoch + 1}; lower the stage's learning_rate."
            )
        step = phase.first_step + epoch * phase.n_steps + phase.state.step
        self.log.write(
            phase=phase.name,
            epoch=epoch + 1,
            step=step,
            loss=loss,
            learning_rate=phase.learning_rate,
            held_out_score=held_out_score,
        )

    def _track(self, record: LossRecord) -> None:
        """Send a row of losses.csv to the tracker of `--tracker`."""
        values = asdict(record)
        phase, step = values.pop("phase"), values.pop("step")
        numbers = {f"{phase}/{name}": value for name, value in values.items() if value is not None}
        self.accelerator.log(numbers, step=step)

    def take_step(self, micro_batches: list[MicroBatch], optimizer: torch.optim.Optimizer) -> Tensor:
        """Make one step of the optimizer with the gradients of all its micro-batches; return their loss."""
        total = torch.zeros((), device=self.accelerator.device)
        for micro_batch in micro_batches:
            with self.accelerator.autocast():
                loss = self.training_loss(micro_batch.inputs, micro_batch.labels) * micro_batch.share
            self.accelerator.backward(loss)
            total += loss.detach()
        self.accelerator.clip_grad_norm_(self.network.parameters(), self.settings.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        return total

    def training_loss(self, batch: dict[str, Tensor], labels: LabelBatch) -> Tensor:
        """Return the training loss of a batch; with R-Drop the loss of two passes and their penalty.

        With R-Drop and dropout in the backbone, the batch has each row twice. With dropout only in the head, the
        backbone runs once and the head twice.
        """
        features = self.network.features(batch)
        head = self.network.head
        error = partial(self.loss.mean_error, labels=labels)
        if self.settings.r_drop == 0:
            return head.loss(features, error)
        if self.settings.backbone_dropout == 0:
            features = torch.cat([features, features])
        one, other = head(features).chunk(2)
        return (error(one) + error(other)) / 2 + self.settings.r_drop * self.loss.mean_penalty(
            one, other, labels
        )


def evenly_spaced_rows(dataset: EncodedDataset, labels: LabelBatch, n: int) -> tuple[Batches, LabelBatch]:
    """Return at most n evenly spaced rows, of those with a label of a target, and their labels."""
    labelled = np.flatnonzero(~np.isnan(dataset.y[:, : dataset.n_targets]).all(axis=1))
    rows = labelled[np.unique(np.linspace(0, len(labelled) - 1, n).astype(np.intp))]
    return dataset.encoded(0).take(rows), labels.take(rows, torch.device("cpu"))


def steps_per_epoch(batches: Batches, settings: NeuralStage) -> int:
    """Return the number of optimizer steps per epoch, which is the same on all devices."""
    return len(batches.step_plan(settings, 0, 0, "cpu"))
