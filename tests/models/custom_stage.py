"""A stage of a user. It predicts the mean label, or the share of each class, plus noise by the seed."""

import numpy as np

from core.files import read_json, write_json
from models.api import Stage


class Noisy(Stage):
    """A stage with one setting."""

    noise: float = 0.0

    def fit(self, train, folder, context):
        truth = context.task.one_hot(train.y)
        noise = self.noise * np.random.default_rng(context.seed).normal(size=truth.shape[1])
        scale = np.nanstd(truth, axis=0)
        write_json(folder / "mean.json", {"mean": (np.nanmean(truth, axis=0) + scale * noise).tolist()})

    def predict(self, rows, folder, context):
        return np.tile(read_json(folder / "mean.json")["mean"], (len(rows), 1))
