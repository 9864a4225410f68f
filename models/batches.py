"""Rows as batches: what is encoded, which rows go together, and how they reach the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.losses import Labels
from models.settings import NeuralStage

WINDOW_BATCHES = 20
"""Most batches whose rows are sorted by length together: enough for little padding, few enough to stay random."""


@dataclass(frozen=True)
class Batches:
    """Encoded rows and how they become a batch.

    items: one encoded input per row.
    lengths: (n_rows,) tokens or atoms, by which rows of like size are batched.
    collate: items to the keyword arguments of the backbone, tensors on the CPU.
    equal_lengths: whether a batch may hold rows of one length only, for a backbone that does not mask padding.
    """

    items: list[Any]
    lengths: NDArray[np.int64]
    collate: Callable[[list[Any]], dict[str, Tensor]]
    equal_lengths: bool = False

    def batch(self, positions: NDArray[np.intp], device: torch.device) -> dict[str, Tensor]:
        """The rows at `positions`, on the device."""
        batch = self.collate([self.items[i] for i in positions])
        if device.type == "cuda":
            batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
        return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


@dataclass(frozen=True)
class Sample:
    """Rows with labels.

    views: number of a view (0 is the plain one) -> the encoded rows; an epoch of training takes the view after its own
        number, so that other spellings or conformers of a molecule come by.
    y: (n_rows, n_targets + n_auxiliary), NaN where missing.
    weights: (n_rows,); None where all are 1.
    """

    views: Callable[[int], Batches]
    y: NDArray[np.float64]
    weights: NDArray[np.float64] | None = None


def batch_plan(
    lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int, equal_lengths: bool = False
) -> list[NDArray[np.intp]]:
    """Positions of each batch of an epoch: a function of (seed, epoch), each row once.

    Rows are shuffled, sorted by length inside windows of some batches, cut, and the batches shuffled:
    little padding, and a different composition each epoch. A small table has at least four windows; one that
    held it all would give the same batches every epoch. With `equal_lengths` the window is the whole table, and no
    batch holds two lengths.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    window = batch_size * max(1, min(WINDOW_BATCHES, len(lengths) // batch_size // 4))
    plan: list[NDArray[np.intp]] = []
    if equal_lengths:
        plan = _cut(order[np.argsort(lengths[order], kind="stable")], lengths, batch_size)
    else:
        for start in range(0, len(order), window):
            part = order[start : start + window]
            part = part[np.argsort(lengths[part], kind="stable")]
            plan += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    return [plan[i] for i in generator.permutation(len(plan))]


def sorted_plan(lengths: NDArray[np.int64], batch_size: int, equal_lengths: bool) -> list[NDArray[np.intp]]:
    """Positions of each batch for prediction: by length."""
    order = np.argsort(lengths, kind="stable")
    if equal_lengths:
        return _cut(order, lengths, batch_size)
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def _cut(order: NDArray[np.intp], lengths: NDArray[np.int64], batch_size: int) -> list[NDArray[np.intp]]:
    """Rows sorted by length, cut where the length changes and where a batch is full."""
    groups = np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1)
    return [group[i : i + batch_size] for group in groups for i in range(0, len(group), batch_size)]


def batch_groups(
    batches: Batches, labels: Labels, settings: NeuralStage, seed: int, epoch: int, device: torch.device
) -> Iterator[list[tuple[dict[str, Tensor], Labels, float]]]:
    """The batches of an epoch, on the device, as many at a time as one step takes.

    Each comes with its labels and its share of the step's labels, by which its loss counts: so a step on two small
    batches has the gradient of one large batch. On a GPU a thread makes the next ones while the device is at work.
    """
    plan = batch_plan(batches.lengths, settings.batch_size, seed, epoch, batches.equal_lengths)
    doubled = settings.r_drop > 0 and settings.backbone_dropout > 0

    def load(group: list[NDArray[np.intp]]) -> list[tuple[dict[str, Tensor], Labels, float]]:
        known = [int((labels.weights[rows] > 0).sum()) for rows in group]  # here, where no device has to be waited for
        return [
            (
                batches.batch(np.tile(rows, 2) if doubled else rows, device),
                labels.take(rows, device),
                n / max(sum(known), 1),
            )
            for rows, n in zip(group, known, strict=True)
        ]

    groups = [plan[i : i + settings.accumulate] for i in range(0, len(plan), settings.accumulate)]
    if device.type == "cpu":  # the thread would take the time it saves
        yield from map(load, groups)
        return
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(load, groups[0])
        for following in [*groups[1:], None]:
            ready = waiting.result()
            if following is not None:
                waiting = thread.submit(load, following)
            yield ready
