"""Rows and contexts for the tests of stages without an encoder."""

from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

from competition.dataset import Dataset
from competition.task import Task
from models import targets
from models.context import Context


def rows(y=None, weights=None, **columns):
    """Return rows r0, r1, ... of these columns; `y` is one target, or (n_rows, n_targets)."""
    table = pd.DataFrame(columns)
    ids = [f"r{i}" for i in range(len(table))]
    return Dataset(ids, table, None if y is None else np.c_[y].astype(float), weights)


def context(cache, **changes):
    columns: dict[str, Any] = {"smiles": [], "text": [], "numeric": [], "categorical": []}
    return Context(**{**columns, "task": Task(["y"]), "seed": 3, **changes}, cache=cache)


@dataclass
class Bound:
    """A stage with its context."""

    stage: Any
    context: Context

    def fit(self, train, folder):
        targets.fit(self.stage, train, folder, self.context)

    def predict(self, rows, folder):
        return targets.predict(self.stage, rows, folder, self.context)

    def predict_std(self, rows, folder):
        return targets.predict_std(self.stage, rows, folder, self.context)

    def importances(self, rows, folder):
        return self.stage.importances(rows, folder, self.context)

    def backbone(self, folder):
        return self.stage.backbone(folder, self.context)

    def initial_backbone(self, train, folder):
        return self.stage.initial_backbone(train, folder, self.context)

    def encode(self, rows, folder, augmentation=0, seed=0):
        return self.stage.encode(rows, folder, self.context, augmentation, seed)

    def prepare(self, train, folder):
        """Return the network and the encoded rows that the trainer of a neural stage gets."""
        from models.training import neural  # here, since most tests do without torch

        return neural.prepare(self.stage, train, folder, self.context)


def build_stage(config, stage_context):
    """Return a stage with its context."""
    return Bound(config, stage_context)


def fitted(config, stage_context, train, folder):
    """Return a stage that is fitted into a folder, which is created if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    stage = build_stage(config, stage_context)
    stage.fit(train, folder)
    return stage


def predictions_per_augmentation(stage, n, test, folder):
    """Return the predictions of a neural stage by each of the first `n` randomized SMILES or conformers."""
    predictions = []
    kind = type(stage.stage)
    encode = kind.encode
    for number in range(n):

        def encode_one(self, rows, folder, context, _, seed, number=number):
            return encode(self, rows, folder, context, number, seed)

        with mock.patch.object(kind, "encode", encode_one):
            predictions.append(stage.predict(test, folder))
    return predictions
