"""The training loop of all neural stages; read it from `Trainer.fit` down.

A stage provides a `Network` and `EncodedDataset`s. The loop does the scaling of targets, batches of similar
length, the optimizer, the schedule, precision and device (by accelerate), checkpoints, and the files for
prediction.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from competition.errors import DataError
from competition.files import write_json
from competition.types import ProblemType
from models.neural_config import NeuralConfig
from models.training.batches import Batches, EncodedDataset, MicroBatch, micro_batch_size
from models.training.checkpoint import Checkpoint
from models.training.dropout import audit, rates, set_rates
from models.training.hardware import is_out_of_memory
from models.training.heads import Network
from models.training.labels import target_scale
from models.training.loss_log import LossLog, LossRecord
from models.training.losses import LabelBatch, load_loss
from models.training.optimizer import make_optimizer, moving_average, recompute_layers
from models.training.phase import Phase, TrainingState
from models.training.prediction import TRAINING, WEIGHTS, Encoded, copy_state, forward, make_accelerator
from models.training.schedules import with_warmup
from models.training.tracking import start_tracker, tracker_arguments

MEASURES = "measures.json"
"""File with measurements of a job, name -> number."""
HELD_OUT_LOSS = "held_out_evaluation_mode"


@dataclass(frozen=True)
class Monitored:
    """Rows with a loss per epoch in the history, with dropout on or off."""

    batches: Batches
    labels: LabelBatch
    with_dropout: bool = False


@dataclass
class Trainer:
    """Trains a network.

    Attributes:
        network: network with random or pretrained weights; it is trained in place.
        settings: settings of the stage.
        seed: seed of the job.
        folder: folder of the weights, the report, losses.csv and the checkpoints.
        progress: called with the number of finished steps and of all steps.
        problem_type: what is learned. It is never ordinal: ordinal levels are learned as a regression, or as
            multilabel with `ordinal: cumulative`.
    """

    network: Network
    settings: NeuralConfig
    seed: int
    folder: Path
    progress: Callable[[int, int], None]
    problem_type: ProblemType = "regression"

    def __post_init__(self) -> None:
        self.loss = load_loss(self.settings.loss, self.problem_type, self.settings.label_smoothing)
        self.accelerator = make_accelerator(self.settings.precision, **tracker_arguments(self.folder))
        self.log = LossLog(self.folder, self._track)
        self.network.to(self.accelerator.device)

    def fit(
        self,
        train: EncodedDataset,
        valid: EncodedDataset | None = None,
        pretrain_set: EncodedDataset | None = None,
    ) -> bool:
        """Train, write weights and a report, and return whether the network beats the mean of the labels.

        For classification this is not tested, and True is returned.

        Args:
            train: labelled rows.
            valid: held-out rows, only for `select_epoch: best_on_held_out` and `monitor: held_out`.
            pretrain_set: rows to train on before, with a separate schedule (`extra_rows: pretrain`).
        """
        labels = self.prepare(train, pretrain_set)
        report = {"mean": self.mean.tolist(), "scale": self.scale.tolist(), "seed": self.seed}
        if self.loss.is_classification:
            y = train.y if pretrain_set is None else np.vstack([train.y, pretrain_set.y])
            classes = [np.unique(column[~np.isnan(column)]).astype(int).tolist() for column in y.T]
            report["classes"] = [present or [0, 1] for present in classes]  # [0, 1]: a head without labels
        start_tracker(self.accelerator, self.folder)
        try:
            if pretrain_set is not None:
                report["pretrain_history"], _ = self.train_epochs(
                    pretrain_set.encoded, self.make_labels(pretrain_set), "pretrain"
                )
            monitored = self._monitored_rows(train, labels, valid)
            history, weights = self.train_epochs(train.encoded, labels, "train", monitored)
        finally:
            self.accelerator.end_training()
        if self.settings.monitor == "held_out":
            self._write_measures(history, list(monitored), steps_per_epoch(train.encoded(0), self.settings))
        # weights of the hub may be views of transposed tensors, which safetensors does not take
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, self.folder / WEIGHTS)
        report["dropout"] = {path: rate for path, rate in rates(self.network).items() if rate > 0}
        report |= {"precision": self.accelerator.mixed_precision, "history": history}
        write_json(self.folder / TRAINING, report)
        return self.loss.is_classification or self.beats_mean_predictor(train, labels)

    def _monitored_rows(
        self, train: EncodedDataset, labels: LabelBatch, valid: EncodedDataset | None
    ) -> dict[str, Monitored]:
        """Return the held-out rows; with `monitor: held_out` also as many training rows, and each with dropout."""
        if valid is None:
            return {}
        held_out = Monitored(valid.encoded(0), self.make_labels(valid))  # 0: without augmentation
        monitored = {HELD_OUT_LOSS: held_out}
        if self.settings.monitor == "held_out":
            some_train = Monitored(*evenly_spaced_rows(train, labels, len(valid.y)))
            monitored["held_out_training_mode"] = replace(held_out, with_dropout=True)
            monitored["train_evaluation_mode"] = some_train
            monitored["train_training_mode"] = replace(some_train, with_dropout=True)
        return monitored

    def _write_measures(self, history: list[dict[str, float]], names: list[str], n_steps: int) -> None:
        measures = {name: history[-1][name] for name in names}
        seconds = sum(epoch["seconds"] for epoch in history)
        measures["seconds_per_step"] = seconds / (n_steps * self.settings.epochs)
        write_json(self.folder / MEASURES, measures)

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
        self, encoded: Encoded, labels: LabelBatch, name: str, monitored: dict[str, Monitored] | None = None
    ) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
        """Train all epochs of a phase, from its checkpoint if there is one.

        Returns:
            The history, one record per epoch, and the weights to keep: the last ones, their moving average, or
            the weights of the best epoch on the monitored held-out rows.
        """
        phase = self._start_phase(encoded, labels, name)
        phase.checkpoint.load()
        while len(phase.state.history) < self.settings.epochs:
            self._train_one_epoch(phase)
            self._end_epoch(phase, monitored or {})
        if name == "pretrain":
            phase.checkpoint.save()  # a job that is killed in the next phase does not repeat the end of this one
        state = phase.state
        return state.history, state.best[1] if state.best else copy_state(phase.averaged)

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
        started = time.perf_counter() - state.seconds
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
            state.seconds = time.perf_counter() - started
            self.progress(epoch * phase.n_steps + state.step, n_total)
            if self.log.due() and state.step < phase.n_steps:  # at the end of the epoch there is a row anyway
                total = float(state.loss_sum)
                self._log_loss(phase, (total - state.logged_sum) / (state.step - state.logged_step))
                state.logged_step = state.step
                state.logged_sum = total
            if phase.checkpoint.due():
                phase.checkpoint.save()

    def _end_epoch(self, phase: Phase, monitored: dict[str, Monitored]) -> None:
        """Add the epoch to the history, with the losses of the monitored rows, and keep it if it is the best."""
        state = phase.state
        record = {"train_loss": float(state.loss_sum) / state.step, "learning_rate": phase.learning_rate}
        self._log_loss(phase, record["train_loss"])
        if monitored:
            if self.settings.monitor == "held_out":
                record["seconds"] = state.seconds
            network = phase.averaged
            record |= self.evaluate_monitored(network, monitored)
            is_best = state.best is None or record[HELD_OUT_LOSS] < state.best[0]
            if self.settings.select_epoch == "best_on_held_out" and is_best:
                state.best = record[HELD_OUT_LOSS], copy_state(network)
        state.end_epoch(record)

    def _log_loss(self, phase: Phase, loss: float) -> None:
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
            phase=phase.name, epoch=epoch + 1, step=step, loss=loss, learning_rate=phase.learning_rate
        )

    def _track(self, record: LossRecord) -> None:
        """Send a row of losses.csv to the tracker of `--tracker`."""
        values = asdict(record)
        phase, step = values.pop("phase"), values.pop("step")
        self.accelerator.log({f"{phase}/{name}": value for name, value in values.items()}, step=step)

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

    def evaluate_monitored(self, network: nn.Module, monitored: dict[str, Monitored]) -> dict[str, float]:
        """Return the losses of the monitored rows, without a change of the random state.

        Both modes are monitored since dropout inside a network changes the variance of its activations between
        training and inference (Li et al., arXiv 1801.05134), so that the two losses differ.
        """
        losses = {}
        with torch.random.fork_rng():
            for name, rows in monitored.items():
                torch.manual_seed(0)  # the same masks in every epoch
                outputs = forward(
                    network, rows.batches, self.settings.batch_size, self.accelerator, rows.with_dropout
                )
                losses[name] = float(self.loss.mean_error(outputs, rows.labels))
        return losses


def evenly_spaced_rows(dataset: EncodedDataset, labels: LabelBatch, n: int) -> tuple[Batches, LabelBatch]:
    """Return at most n evenly spaced rows, of those with a label of a target, and their labels."""
    labelled = np.flatnonzero(~np.isnan(dataset.y[:, : dataset.n_targets]).all(axis=1))
    rows = labelled[np.unique(np.linspace(0, len(labelled) - 1, n).astype(np.intp))]
    return dataset.encoded(0).take(rows), labels.take(rows, torch.device("cpu"))


def steps_per_epoch(batches: Batches, settings: NeuralConfig) -> int:
    """Return the number of optimizer steps per epoch, which is the same on all devices."""
    return len(batches.step_plan(settings, 0, 0, "cpu"))


def halve_batch_size(settings: NeuralConfig, error: RuntimeError) -> NeuralConfig:
    """Return settings with at most half as many rows per forward pass, after running out of memory.

    Raises:
        RuntimeError: the error, if it has another cause.
        DataError: if a single row is too large.
    """
    if not is_out_of_memory(str(error)):
        raise error
    device_type = "cuda" if torch.cuda.is_available() else "cpu"
    rows_per_pass = min(settings.batch_size, micro_batch_size(device_type, settings.precision))
    if rows_per_pass == 1:
        raise DataError(
            "the memory is too small for a single row. Set gradient_checkpointing: true, or shorten the inputs; "
            "finished folds are kept."
        ) from error
    n_rows = settings.batch_size * settings.gradient_accumulation_steps
    batch_size = max(n for n in range(1, rows_per_pass // 2 + 1) if n_rows % n == 0)
    return settings.model_copy(
        update={"batch_size": batch_size, "gradient_accumulation_steps": n_rows // batch_size}
    )
