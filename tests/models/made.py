"""Rows and contexts for the tests of stages without an encoder."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.tables import Rows
from competition.task import Task
from models.stage import Context


def rows(y: Any = None, weights: Any = None, **columns: Any) -> Rows:
    """Rows r0, r1, ... of these columns; `y` is one target, or (n_rows, n_targets)."""
    table = pd.DataFrame(columns)
    return Rows([f"r{i}" for i in range(len(table))], table, None if y is None else np.c_[y].astype(float), weights)


def context(cache: Path, targets: tuple[str, ...] = ("y",), **changes: Any) -> Context:
    roles: dict[str, Any] = {"smiles": [], "text": [], "numeric": [], "categorical": [], "seed": 3, **changes}
    return Context(**{"task": Task(list(targets)), **roles}, cache=cache)
