"""Batches of encoded rows: which rows are batched together, and how they are copied to the device.

Stages import this module to name its types, so it imports torch in functions only.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from core.types import Array, Integers
from models.training.settings import TrainingSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Argument = TypeVar("Argument")
Result = TypeVar("Result")
RowIndices = NDArray[np.intp]
MicroBatches = list[RowIndices]
"""Positions of rows per micro-batch."""


def to_device(value: Any, device: "torch.device") -> Any:
    """Return a tensor, or a dictionary of tensors, on the device.

    A copy to a GPU is asynchronous, from pinned memory. Other values, such as the shapes of parts, are
    returned unchanged.
    """
    import torch

    if isinstance(value, dict):
        return {name: to_device(part, device) for name, part in value.items()}
    if not isinstance(value, torch.Tensor):
        return value
    if device.type == "cuda":
        value = value.pin_memory()
    return value.to(device, non_blocking=True)


@dataclass(frozen=True)
class LabelBatch:
    """Labels of rows and their weights, (n_rows, n_targets) each.

    Attributes:
        y: standardised numbers, or class indices.
        weights: 0 for missing labels.
        sides: 1 for a label that is a lower bound of the value, -1 for an upper bound, 0 for the others.
    """

    y: "Tensor"
    weights: "Tensor"
    sides: "Tensor"

    def take(self, positions: NDArray[np.intp], device: "torch.device") -> "LabelBatch":
        """Return rows at some positions, on the device."""
        tensors = (self.y, self.weights, self.sides)
        return LabelBatch(*(to_device(tensor[positions], device) for tensor in tensors))


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one forward pass, on the device.

    Attributes:
        inputs: arguments of the backbone by name, and `columns`.
        labels: labels of the rows.
        share: their share of the labels of the step, which weights their loss.
    """

    inputs: dict[str, Any]
    labels: LabelBatch
    share: float


def micro_batch_size(device_type: str, precision: str, pads: bool = True) -> int:
    """Return the maximum number of rows of a forward pass, in addition to the setting `batch_size`.

    Small micro-batches need little padding and cost a CPU nothing in float32; in bf16 each of them casts all
    weights. Without padding the limit only saves memory. A GPU needs many rows, so it has no limit. The
    gradients of the micro-batches of a step are added, so that only speed depends on their size (and slightly
    the loss in pre-training, a mean over tokens).
    """
    if device_type == "cuda":
        return sys.maxsize
    return 16 if precision == "bf16" or not pads else 8


@dataclass(frozen=True)
class Batches:
    """Encoded rows that can be batched.

    Attributes:
        items: encoded input per row.
        lengths: (n_rows,) number of tokens or atoms, by which rows are batched; all equal without padding.
        collate: maps items to the keyword arguments of the backbone, tensors on the CPU.
        pads: whether the backbone computes padding.
        columns: (n_rows, n_columns) numbers that are added before the head, or None.
        n_molecules: number of molecule columns; each goes through the backbone.
    """

    items: list[Any]
    lengths: Integers
    collate: Callable[[list[Any]], dict[str, Any]]
    pads: bool = True
    columns: NDArray[np.float32] | None = None
    n_molecules: int = 1

    def take(self, rows: RowIndices) -> "Batches":
        """Return rows at some positions."""
        columns = None if self.columns is None else self.columns[rows]
        return replace(self, items=[self.items[i] for i in rows], lengths=self.lengths[rows], columns=columns)

    def batch(self, rows: RowIndices, device: "torch.device") -> dict[str, Any]:
        """Return the inputs of rows at some positions, on the device."""
        import torch

        batch = self.collate([self.items[i] for i in rows])
        if self.columns is not None:
            batch["columns"] = torch.from_numpy(self.columns[rows])
        return to_device(batch, device)

    def step_plan(
        self, settings: TrainingSettings, seed: int, epoch: int, device_type: str
    ) -> list[MicroBatches]:
        """Return the micro-batches of each step of an epoch, with each row once.

        They depend on (seed, epoch). The rows of a step are drawn at random from all lengths: batches of
        rows with similar lengths have a biased gradient if the target depends on the length
        (docs/benchmarks.md). Only the rows of a micro-batch have similar lengths.
        """
        generator = np.random.default_rng([seed, epoch])
        order = generator.permutation(len(self.lengths))
        size = settings.batch_size
        if np.ptp(self.lengths) > 0:
            size = min(size, micro_batch_size(device_type, settings.precision, self.pads))
        per_step = settings.batch_size * settings.gradient_accumulation_steps
        steps = map(self._by_length, np.split(order, range(per_step, len(order), per_step)))
        return [np.array_split(step, -(-len(step) // size)) for step in steps]

    def sorted_plan(self, batch_size: int) -> MicroBatches:
        """Return the batches for prediction, sorted by length."""
        rows = self._by_length(np.arange(len(self.lengths)))
        return np.split(rows, range(batch_size, len(rows), batch_size))

    def _by_length(self, rows: RowIndices) -> RowIndices:
        return rows[np.argsort(self.lengths[rows], kind="stable")]

    def steps(
        self,
        labels: LabelBatch,
        settings: TrainingSettings,
        seed: int,
        epoch: int,
        device: "torch.device",
        first: int = 0,
    ) -> Iterator[list[MicroBatch]]:
        """Yield the micro-batches of each step of an epoch, from step `first` on.

        Weighted by their shares, the losses of the micro-batches have the gradient of one large batch.
        """
        doubled = settings.r_drop > 0 and settings.backbone_dropout > 0

        def load(step: MicroBatches) -> list[MicroBatch]:
            n_labels = [int((labels.weights[rows] > 0).sum()) for rows in step]
            micro_batches = []
            for rows, n in zip(step, n_labels, strict=True):
                inputs = self.batch(np.tile(rows, 1 + doubled), device)
                micro_batches.append(MicroBatch(inputs, labels.take(rows, device), n / max(sum(n_labels), 1)))
            return micro_batches

        yield from in_advance(load, self.step_plan(settings, seed, epoch, device.type)[first:], device)


def in_advance(
    function: Callable[[Argument], Result], arguments: Sequence[Argument], device: "torch.device"
) -> Iterator[Result]:
    """Yield the results of a function.

    On a GPU a thread computes the next one while the current one is used.
    """
    if device.type == "cpu":  # the thread would take the time it saves
        yield from map(function, arguments)
        return
    with ThreadPoolExecutor(1) as thread:
        running = deque[Future[Result]]()
        for argument in arguments:
            running.append(thread.submit(function, argument))
            if len(running) > 1:
                yield running.popleft().result()
        yield from (future.result() for future in running)


@dataclass(frozen=True)
class EncodedDataset:
    """Encoded rows with labels.

    Attributes:
        encoded: maps the number of an augmentation (0 is none) to the encoded rows. Epoch n of training uses
            augmentation n + 1, so that each epoch has other SMILES or conformers.
        y: (n_rows, n_targets), auxiliary targets last, NaN if missing.
        weights: weights of the labels, of the same shape.
        sides: which labels are bounds, of the same shape; see `LabelBatch`.
    """

    encoded: Callable[[int], Batches]
    y: Array
    weights: Array
    sides: Array


def join_columns(columns: list[Batches], once: bool) -> Batches:
    """Return batches of several columns as inputs of `PerColumn`.

    Rows are batched by the sum of their lengths.

    Args:
        once: whether equal molecules of a batch are encoded once, as in screens of few reagents. With dropout
            in the backbone they are not, since these rows would share a mask.
    """
    if len(columns) == 1:
        return columns[0]
    lengths = np.stack([column.lengths for column in columns], axis=1)
    lengths = np.ones(len(lengths), dtype=np.int64) if once else lengths.sum(axis=1)

    def collate(part: list[Any]) -> dict[str, Any]:
        import torch

        batch = {}
        for i, (column, items) in enumerate(zip(columns, zip(*part, strict=True), strict=True)):
            keys = [id(item) for item in items] if once else list(range(len(items)))
            distinct = dict(zip(keys, items, strict=True))
            row = torch.tensor([list(distinct).index(key) for key in keys])
            batch[f"column_{i}"] = {**column.collate(list(distinct.values())), "row": row}
        return batch

    items = list(zip(*(column.items for column in columns), strict=True))
    return replace(columns[0], items=items, lengths=lengths, collate=collate, n_molecules=len(columns))
