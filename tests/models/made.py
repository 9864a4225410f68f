"""Rows and contexts for the tests of stages without an encoder."""

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

from competition.tables import Rows
from competition.task import Task
from models.registry import build_stage
from models.stage import Context


def rows(y: Any = None, weights: Any = None, **columns: Any) -> Rows:
    """Rows r0, r1, ... of these columns; `y` is one target, or (n_rows, n_targets)."""
    table = pd.DataFrame(columns)
    return Rows([f"r{i}" for i in range(len(table))], table, None if y is None else np.c_[y].astype(float), weights)


def context(cache: Path, **changes: Any) -> Context:
    roles: dict[str, Any] = {"smiles": [], "text": [], "numeric": [], "categorical": [], "task": Task(["y"]), "seed": 3}
    return Context(**{**roles, **changes}, cache=cache)


def fitted(config: Any, told: Context, train: Rows, folder: Path, valid: Rows | None = None) -> Any:
    """A stage that is fitted into a folder, which is made where it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    stage = build_stage(config, told)
    stage.fit(train, valid, folder)
    return stage


def predictions_of_forms(stage: Any, n: int, test: Rows, folder: Path) -> list[Any]:
    """What a neural stage predicts by each of its first spellings or conformers alone."""
    found, encode = [], stage.encode
    for number in range(n):
        with mock.patch.object(stage, "encode", lambda rows, folder, _, seed, n=number: encode(rows, folder, n, seed)):
            found.append(stage.predict(test, folder))
    return found
