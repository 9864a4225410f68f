"""A regressor of scikit-learn on the pooled features of a frozen encoder, which reads each distinct text once.

The features go to the cache on disk, for all folds, seeds and test rows. A job's folder holds the fitted regressor,
the means of the columns, and embedding.json with the digest of the encoder, which prediction asks for again.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from competition.errors import ConfigError
from competition.files import read_json, write_json
from competition.tables import Rows
from models.config import EmbeddingStage
from models.inputs.encoders import check_vocabulary, cut_note
from models.inputs.frozen import encoder_cache, read_texts, template_of
from models.inputs.tabular import fit_columns, read_columns
from models.notes import write_notes
from models.stage import Context
from models.stages.estimators import build_regressor, fit_targets, predict_targets

FILE = "embedding.json"


class Embedding:
    """The stage; see `models.stage.FittedStage` for the contract."""

    def __init__(self, config: EmbeddingStage, context: Context) -> None:
        self.config = config
        self.context = context
        self.cache = encoder_cache(config, context.cache)

    def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
        """Fit a regressor per target on the training rows."""
        assert train.y is not None
        x, counts = self.features(train)
        n_tokens, n_unknown, n_cut = counts.sum(axis=0)
        check_vocabulary(n_unknown / n_tokens, self.config.weights, template_of(self.config, self.context).columns)
        if n_cut:
            write_notes(folder, [cut_note(n_cut, len(train), counts[:, 0].max(), self.config.too_long)])
        mean, scale = x.mean(axis=0), x.std(axis=0)
        stored = {"weights": self.cache.settings["weights"], "mean": mean.tolist()}
        write_json(folder / FILE, {**stored, "scale": np.where(scale > 1e-9, scale, 1.0).tolist()})
        fit_columns(train, self.config, self.context, folder)
        fit_targets(
            self._pipeline, self._table(x, train, folder), train.y, train.weights, folder, self.context.task.targets
        )

    def predict(self, rows: Rows, folder: Path) -> NDArray[np.float64]:
        """Predictions (n_rows, n_targets).

        Raises:
            ConfigError: if the weights are not those of the training.
        """
        if self.cache.settings["weights"] != read_json(folder / FILE)["weights"]:
            raise ConfigError(
                f"weights {self.config.weights!r} must be the files that {folder} was trained with, and they have "
                "changed; put those back, or train again."
            )
        return predict_targets(self._table(self.features(rows)[0], rows, folder), folder)

    def features(self, rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Pooled features (n_rows, width), and what was counted (n_rows, 3); see `models.inputs.frozen`."""
        features, counts = self.cache.load(read_texts(rows, self.config, self.context))
        return np.concatenate(features).astype(np.float64), np.array([json.loads(words) for words in counts])

    def _table(self, features: NDArray[np.float64], rows: Rows, folder: Path) -> NDArray[np.float64]:
        """Features in units of their spread around the training rows' mean, and the columns that join them."""
        stored = read_json(folder / FILE)
        pooled = (features - np.array(stored["mean"])) / np.array(stored["scale"])
        return np.hstack([pooled, read_columns(rows, self.config, self.context, folder)])

    def _pipeline(self) -> Pipeline:
        regressor = build_regressor(self.config.regressor, self.config.parameters, self.context.seed)
        return Pipeline([("regressor", regressor)])
