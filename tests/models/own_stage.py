"""A stage as a user would add it: the mean label, or the share of each class, and a random number for each seed."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from competition.files import read_json, write_json
from competition.tables import Rows
from models.stage import Context


class Noisy:
    """The two methods of the contract."""

    class Settings(BaseModel, extra="forbid"):
        """What its block may set."""

        noise: float = 0.0

    def __init__(self, settings: Settings, context: Context) -> None:
        self.settings, self.seed, self.task = settings, context.seed, context.task

    def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
        truth = self.task.truth(train.y)
        noise = self.settings.noise * np.random.default_rng(self.seed).normal(size=truth.shape[1])
        scale = np.nanstd(truth, axis=0)
        write_json(folder / "mean.json", {"mean": (np.nanmean(truth, axis=0) + scale * noise).tolist()})

    def predict(self, rows: Rows, folder: Path) -> NDArray[np.float64]:
        return np.tile(read_json(folder / "mean.json")["mean"], (len(rows), 1))
