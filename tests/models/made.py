"""Rows and contexts for the tests of stages without an encoder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

from competition.dataset import Dataset
from competition.task import Task
from models import targets
from models.context import Context


def rows(y: Any = None, weights: Any = None, **columns: Any) -> Dataset:
    """Return rows r0, r1, ... of these columns; `y` is one target, or (n_rows, n_targets)."""
    table = pd.DataFrame(columns)
    ids = [f"r{i}" for i in range(len(table))]
    return Dataset(ids, table, None if y is None else np.c_[y].astype(float), weights)


def context(cache: Path, **changes: Any) -> Context:
    columns: dict[str, Any] = {"smiles": [], "text": [], "numeric": [], "categorical": []}
    return Context(**{**columns, "task": Task(["y"]), "seed": 3, **changes}, cache=cache)


@dataclass
class Bound:
    """A stage with its context."""

    stage: Any
    context: Context

    def fit(self, train: Dataset, folder: Path) -> None:
        targets.fit(self.stage, train, folder, self.context)

    def predict(self, rows: Dataset, folder: Path) -> Any:
        return targets.predict(self.stage, rows, folder, self.context)

    def predict_std(self, rows: Dataset, folder: Path) -> Any:
        return targets.predict_std(self.stage, rows, folder, self.context)

    def backbone(self, folder: Path) -> Any:
        return self.stage.backbone(folder, self.context)

    def initial_backbone(self, train: Dataset, folder: Path) -> Any:
        return self.stage.initial_backbone(train, folder, self.context)

    def encode(self, rows: Dataset, folder: Path, augmentation: int = 0, seed: int = 0) -> Any:
        return self.stage.encode(rows, folder, self.context, augmentation, seed)

    def prepare(self, train: Dataset, folder: Path) -> Any:
        """Return the network and the encoded rows that the trainer of a neural stage gets."""
        from models.training import neural  # here, since most tests do without torch

        return neural.prepare(self.stage, train, folder, self.context)


def build_stage(config: Any, stage_context: Context) -> Bound:
    """Return a stage with its context."""
    return Bound(config, stage_context)


def fitted(config: Any, stage_context: Context, train: Dataset, folder: Path) -> Any:
    """Return a stage that is fitted into a folder, which is created if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    stage = build_stage(config, stage_context)
    stage.fit(train, folder)
    return stage


def predictions_per_augmentation(stage: Any, n: int, test: Dataset, folder: Path) -> list[Any]:
    """Return the predictions of a neural stage by each of the first `n` randomized SMILES or conformers."""
    predictions = []
    kind = type(stage.stage)
    encode = kind.encode
    for number in range(n):

        def encode_one(
            self: Any, rows: Dataset, folder: Path, context: Context, _: int, seed: int, number: int = number
        ) -> Any:
            return encode(self, rows, folder, context, number, seed)

        with mock.patch.object(kind, "encode", encode_one):
            predictions.append(stage.predict(test, folder))
    return predictions
