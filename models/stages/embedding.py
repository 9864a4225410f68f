"""Stage `embedding`: an estimator of scikit-learn on the pooled features of a frozen encoder.

The features go to the cache on disk, for all folds, seeds and test rows. A job's folder holds the fitted estimators,
the means of the features, and the digest of the encoder, which prediction asks for again.
"""

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from competition.errors import ConfigError
from competition.files import read_json, write_json
from competition.tables import Rows
from competition.types import Array
from models.config import EmbeddingStage
from models.inputs.blocks import fit_columns, read_columns
from models.inputs.encoders import check_vocabulary, cut_note
from models.inputs.frozen import encoder_cache
from models.inputs.template import SEPARATOR, read_template
from models.stage import Context, write_notes
from models.stages.per_target import Estimators

FILE = "embedding.json"


class Embedding(Estimators):
    """The stage; its features are those of the encoder, standardised, and the columns that join them."""

    def __init__(self, config: EmbeddingStage, context: Context) -> None:
        super().__init__(config, context)
        self.template = read_template(config, context)
        self.cache = encoder_cache(config, context.cache)

    def _pooled(self, rows: Rows) -> Array:
        """Pooled features (n_rows, width), and three columns of what was counted; see `models.inputs.frozen`."""
        return np.concatenate(self.cache.load(self.template.texts(rows.inputs, SEPARATOR))[0]).astype(np.float64)

    def _learn(self, train: Rows, folder: Path) -> None:
        pooled = self._pooled(train)
        n_tokens, n_unknown, n_cut = pooled[:, -3:].sum(axis=0).astype(int)
        check_vocabulary(n_unknown / n_tokens, self.config.weights, self.template.columns)
        if n_cut:
            write_notes(folder, [cut_note(n_cut, len(train), int(pooled[:, -3].max()), self.config.too_long)])
        mean, deviation = pooled.mean(axis=0).tolist(), pooled.std(axis=0)
        scale = np.where(deviation > 1e-9, deviation, 1.0).tolist()
        weights = self.cache.settings["weights"]
        write_json(folder / FILE, {"weights": weights, "mean": mean[:-3], "scale": scale[:-3]})
        fit_columns(train, self.config, self.context, folder)

    def _features(self, rows: Rows, folder: Path) -> Array:
        stored = read_json(folder / FILE)
        if self.cache.settings["weights"] != stored["weights"]:  # a run that predicts new rows plans no jobs anew
            raise ConfigError(
                f"the files of the weights {self.config.weights!r} are not those that {folder} was trained with. "
                "Put those back, or train again."
            )
        pooled = (self._pooled(rows)[:, :-3] - stored["mean"]) / stored["scale"]
        return np.hstack([pooled, read_columns(rows, self.config, self.context, folder)])

    def _pipeline(self, x: Any, estimator: Any) -> Pipeline:
        return Pipeline([("estimator", estimator)])
