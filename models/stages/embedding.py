"""Stage `embedding`: a regressor of scikit-learn on the pooled features of a frozen encoder.

The features go to the cache on disk, for all folds, seeds and test rows. A job's folder holds the fitted regressors,
the means of the features, and the digest of the encoder, which prediction asks for again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from competition.errors import ConfigError
from competition.files import read_json, write_json
from competition.tables import Rows
from models.config import EmbeddingStage
from models.inputs.blocks import fit_columns, read_columns
from models.inputs.encoders import check_vocabulary, cut_note
from models.inputs.frozen import encoder_cache
from models.inputs.template import SEPARATOR, read_template
from models.notes import write_notes
from models.regressors import build_regressor
from models.stage import Context
from models.stages.estimators import Regressors

FILE = "embedding.json"


class Embedding(Regressors):
    """The stage; its features are those of the encoder, standardised, and the columns that join them."""

    def __init__(self, config: EmbeddingStage, context: Context) -> None:
        super().__init__(config, context)
        self.template = read_template(config, context)
        self.cache = encoder_cache(config, context.cache)

    def pooled(self, rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pooled features (n_rows, width), and what was counted (n_rows, 3); see `models.inputs.frozen`."""
        found = np.concatenate(self.cache.load(self.template.texts(rows.inputs, SEPARATOR))[0]).astype(np.float64)
        return found[:, :-3], found[:, -3:]

    def _learn(self, train: Rows, folder: Path) -> None:
        x, counts = self.pooled(train)
        n_tokens, n_unknown, n_cut = counts.sum(axis=0).astype(int)
        check_vocabulary(n_unknown / n_tokens, self.config.weights, self.template.columns)
        if n_cut:
            write_notes(folder, [cut_note(n_cut, len(train), int(counts[:, 0].max()), self.config.too_long)])
        mean, scale = x.mean(axis=0), np.where(x.std(axis=0) > 1e-9, x.std(axis=0), 1.0)
        weights = self.cache.settings["weights"]
        write_json(folder / FILE, {"weights": weights, "mean": mean.tolist(), "scale": scale.tolist()})
        fit_columns(train, self.config, self.context, folder)

    def _features(self, rows: Rows, folder: Path) -> NDArray[np.float64]:
        stored = read_json(folder / FILE)
        if self.cache.settings["weights"] != stored["weights"]:
            raise ConfigError(
                f"the files of the weights {self.config.weights!r} are not those that {folder} was trained with. "
                "Put those back, or train again."
            )
        pooled = (self.pooled(rows)[0] - stored["mean"]) / stored["scale"]
        return np.hstack([pooled, read_columns(rows, self.config, self.context, folder)])

    def _pipeline(self, x: Any) -> Pipeline:
        return Pipeline([("regressor", build_regressor(self.config.regressor, self.config.parameters, self.seed))])
