"""Rows as batches: what is encoded, which rows go together, and how they reach the device."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from competition.types import Array, Integers
from models.settings import NeuralStage
from models.training.losses import Labels

Rows = NDArray[np.intp]
Plan = list[Rows]
"""Positions of rows, micro-batch by micro-batch."""
MicroBatch = tuple[dict[str, Tensor], Labels, float]
LENGTHS_PER_BATCH = 4
"""Least number of lengths in a batch of rows that cannot be padded."""


def micro_batch_size(device_type: str, precision: str) -> int:
    """Most rows of a batch that go through the network together.

    Small micro-batches pad little and cost a CPU nothing in float32; in bf16 each casts all weights anew, and a GPU is
    idle without many rows. Their gradients add up to that of the whole step, so that only speed depends on it (nearly
    so in pre-training, whose loss is a mean over tokens, of which rows have unequal numbers).
    """
    if device_type == "cuda":
        return 32
    return 16 if precision == "bf16" else 8


@dataclass(frozen=True)
class Batches:
    """Encoded rows and how they become a batch.

    items: one encoded input per row.
    lengths: (n_rows,) tokens or atoms, by which rows of like size go together; all equal where nothing is padded.
    collate: items to the keyword arguments of the backbone, tensors on the CPU.
    equal_lengths: whether a batch may hold rows of one length only, for a backbone that does not mask padding.
    columns: (n_rows, n_columns) numbers that join before the head, as one more tensor of that name; None for none.
    """

    items: list[Any]
    lengths: Integers
    collate: Callable[[list[Any]], dict[str, Tensor]]
    equal_lengths: bool = False
    columns: NDArray[np.float32] | None = None

    def take(self, rows: Rows) -> "Batches":
        """Some rows."""
        columns = None if self.columns is None else self.columns[rows]
        return replace(self, items=[self.items[i] for i in rows], lengths=self.lengths[rows], columns=columns)

    def batch(self, rows: Rows, device: torch.device) -> dict[str, Tensor]:
        """The rows at some positions, on the device."""
        batch = self.collate([self.items[i] for i in rows])
        if self.columns is not None:
            batch["columns"] = torch.from_numpy(self.columns[rows])
        if device.type == "cuda":
            batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
        return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}

    def step_plan(self, settings: NeuralStage, seed: int, epoch: int, device_type: str) -> list[Plan]:
        """The micro-batches of each step of an epoch: a function of (seed, epoch), each row once.

        The rows of a step are drawn at random, whatever their length. Batches of rows of like length, as trainers make
        them, have a biased gradient wherever the target goes with the length (`benchmarks/one_setting.py`).
        Here only the micro-batches of a step are of like length. With `equal_lengths` a micro-batch has one length,
        and a step some random micro-batches.
        """
        generator = np.random.default_rng([seed, epoch])
        order, size = generator.permutation(len(self.lengths)), settings.batch_size
        if self.equal_lengths:
            plan = self._cut(order, max(1, size // LENGTHS_PER_BATCH))
            plan = [plan[i] for i in generator.permutation(len(plan))]
            per_step = min(LENGTHS_PER_BATCH, size) * settings.accumulate
            return [plan[i : i + per_step] for i in range(0, len(plan), per_step)]
        if np.ptp(self.lengths) > 0:
            size = min(size, micro_batch_size(device_type, settings.precision))
        per_step = settings.batch_size * settings.accumulate
        steps = map(self._by_length, np.split(order, range(per_step, len(order), per_step)))
        return [np.array_split(step, -(-len(step) // size)) for step in steps]

    def sorted_plan(self, batch_size: int) -> Plan:
        """The batches for prediction: by length."""
        return self._cut(np.arange(len(self.lengths)), batch_size)

    def _by_length(self, rows: Rows) -> Rows:
        return rows[np.argsort(self.lengths[rows], kind="stable")]

    def _cut(self, rows: Rows, size: int) -> Plan:
        """Rows by length, cut where a batch is full and, with `equal_lengths`, where the length changes."""
        rows = self._by_length(rows)
        changes = np.flatnonzero(np.diff(self.lengths[rows]) if self.equal_lengths else [])
        return [part[i : i + size] for part in np.split(rows, changes + 1) for i in range(0, len(part), size)]

    def steps(
        self, labels: Labels, settings: NeuralStage, seed: int, epoch: int, device: torch.device
    ) -> Iterator[list[MicroBatch]]:
        """The micro-batches of each step of an epoch, on the device.

        Each comes with its labels and its share of the step's labels, by which its loss counts: so a step in
        micro-batches has the gradient of one large batch. On a GPU a thread makes the next ones during a step.
        """
        doubled = settings.r_drop > 0 and settings.backbone_dropout > 0

        def load(step: Plan) -> list[MicroBatch]:
            known = [int((labels.weights[rows] > 0).sum()) for rows in step]  # where no device has to be waited for
            return [
                (self.batch(np.tile(rows, 1 + doubled), device), labels.take(rows, device), n / max(sum(known), 1))
                for rows, n in zip(step, known, strict=True)
            ]

        steps = self.step_plan(settings, seed, epoch, device.type)
        if device.type == "cpu":  # the thread would take the time it saves
            yield from map(load, steps)
            return
        with ThreadPoolExecutor(1) as thread:
            following = thread.submit(load, steps[0])
            for step in [*steps[1:], []]:
                ready, following = following.result(), thread.submit(load, step)
                yield ready


@dataclass(frozen=True)
class Sample:
    """Rows with labels.

    encoded: number of an augmentation (0 is none) to the encoded rows; an epoch of training takes the augmentation
        after its own number, so that other spellings or conformers of a molecule come by.
    y: (n_rows, n_targets), auxiliary targets last, NaN where missing.
    weights: of the labels, of the same shape.
    """

    encoded: Callable[[int], Batches]
    y: Array
    weights: Array
