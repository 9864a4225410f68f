"""Stage `embedding`: an estimator of scikit-learn on the pooled features of a frozen encoder.

The features go to the cache on disk, for all folds, seeds and test rows. A job's folder holds the fitted estimators,
the means of the features, and the digest of the encoder, which prediction asks for again.
"""

from pathlib import Path

import numpy as np

from competition.files import read_json, write_json
from competition.tables import Rows
from competition.types import Array
from models.inputs.blocks import encoded, fit_columns, learn_encoders, read_columns
from models.stages.per_target import Estimators

FILE = "embedding.json"


class Embedding(Estimators):
    """The stage; its features are those of the encoder, standardised, and the columns that join them."""

    def _learn(self, train: Rows, folder: Path) -> None:
        learn_encoders(train, self.config, self.context, folder)
        pooled = encoded(train, self.config, self.context, folder).astype(np.float64)
        mean, deviation = pooled.mean(axis=0).tolist(), pooled.std(axis=0)
        write_json(folder / FILE, {"mean": mean, "scale": np.where(deviation > 1e-9, deviation, 1.0).tolist()})
        fit_columns(train, self.config, self.context, folder)

    def _features(self, rows: Rows, folder: Path) -> Array:
        stored = read_json(folder / FILE)
        pooled = (encoded(rows, self.config, self.context, folder) - stored["mean"]) / stored["scale"]
        return np.hstack([pooled, read_columns(rows, self.config, self.context, folder)])
