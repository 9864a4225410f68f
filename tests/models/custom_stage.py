"""A user-defined stage. It predicts the mean label, or the share of each class, plus noise by the seed."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from competition.dataset import Dataset
from core.files import read_json, write_json
from models.context import Context


class Noisy:
    """A class with the two methods of a stage."""

    class Settings(BaseModel, extra="forbid"):
        """Settings of the YAML under `settings`."""

        noise: float = 0.0

    def __init__(self, settings: Settings, context: Context) -> None:
        self.settings = settings
        self.seed = context.seed
        self.task = context.task

    def fit(self, train: Dataset, folder: Path) -> None:
        truth = self.task.one_hot(train.y)
        noise = self.settings.noise * np.random.default_rng(self.seed).normal(size=truth.shape[1])
        scale = np.nanstd(truth, axis=0)
        write_json(folder / "mean.json", {"mean": (np.nanmean(truth, axis=0) + scale * noise).tolist()})

    def predict(self, rows: Dataset, folder: Path) -> NDArray[np.float64]:
        return np.tile(read_json(folder / "mean.json")["mean"], (len(rows), 1))
