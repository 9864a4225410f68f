"""A stage of a user. It predicts the mean label, or the share of each class, plus noise by the seed."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from competition.dataset import Dataset
from core.files import read_json, write_json
from models.api import Context, Stage


class Noisy(Stage):
    """A stage with one setting."""

    noise: float = 0.0

    def fit(self, train: Dataset, folder: Path, context: Context) -> None:
        truth = context.task.one_hot(train.y)
        noise = self.noise * np.random.default_rng(context.seed).normal(size=truth.shape[1])
        scale = np.nanstd(truth, axis=0)
        write_json(folder / "mean.json", {"mean": (np.nanmean(truth, axis=0) + scale * noise).tolist()})

    def predict(self, rows: Dataset, folder: Path, context: Context) -> NDArray[np.float64]:
        return np.tile(read_json(folder / "mean.json")["mean"], (len(rows), 1))
