"""A regressor of scikit-learn on the pooled features of a frozen encoder, which reads each distinct text once.

The features go to the cache on disk, for all folds, seeds and test rows. A job's folder holds the fitted regressor,
the means of the columns, and embedding.json with the digest of the encoder, which prediction asks for again.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from competition.errors import ConfigError
from competition.files import read_json, write_json
from competition.tables import Rows
from models.cache import MoleculeCache
from models.config import EmbeddingStage
from models.encoders import check_vocabulary, cut_note, position_limit, pretrained
from models.estimators import build_regressor, fit_targets, predict_targets
from models.heads import pool
from models.notes import write_notes
from models.stage import Context
from models.tabular import fit_columns, read_columns
from models.template import SEPARATOR, read_template
from models.text import Tokens, pad
from models.weights import digest_of_weights

FILE = "embedding.json"
SHARD = 500
"""Texts per shard of the cache: some seconds of work, all that a kill can lose."""


class Embedding:
    """The stage; see `models.stage.FittedStage` for the contract."""

    def __init__(self, config: EmbeddingStage, context: Context) -> None:
        self.config = config
        self.context = context
        self.template = read_template(
            config.template, config.columns, context.smiles, context.text, context.categorical, config.reads_atoms
        )

    def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
        """Fit a regressor per target on the training rows."""
        assert train.y is not None
        x, counts = self.features(train)
        n_tokens, n_unknown, n_cut = counts.sum(axis=0)
        check_vocabulary(n_unknown / n_tokens, self.config.weights, self.template.columns)
        if n_cut:
            write_notes(folder, [cut_note(n_cut, len(train), self.config.max_length, self.config.too_long)])
        mean, scale = x.mean(axis=0), x.std(axis=0)
        stored = {"weights": digest_of_weights(self.config.weights), "mean": mean.tolist()}
        write_json(folder / FILE, {**stored, "scale": np.where(scale > 1e-9, scale, 1.0).tolist()})
        fit_columns(train, self.config, self.context, folder)
        fit_targets(self._pipeline, self._table(train, folder), train.y, train.weights, folder, self.context.targets)

    def predict(self, rows: Rows, folder: Path) -> NDArray[np.float64]:
        """Predictions (n_rows, n_targets).

        Raises:
            ConfigError: if the weights are not those of the training.
        """
        if digest_of_weights(self.config.weights) != read_json(folder / FILE)["weights"]:
            raise ConfigError(
                f"weights {self.config.weights!r} must be the files that {folder} was trained with, and they have "
                "changed; put those back, or train again."
            )
        return predict_targets(self._table(rows, folder), folder)

    def features(self, rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Pooled features (n_rows, width), from the cache where they are there, and what `_embed` counted (n_rows, 3).

        What is missing in the cache is computed and goes there.
        """
        texts = self.template.texts(rows.inputs, SEPARATOR)
        cache = self._cache()
        missing = cache.missing(texts)
        for start in range(0, len(missing), SHARD):
            cache.compute_shard(missing[start : start + SHARD])
            self.context.progress(min(start + SHARD, len(missing)), len(missing))
        features, counts = cache.load(texts)
        return np.concatenate(features).astype(np.float64), np.array([json.loads(words) for words in counts])

    def _table(self, rows: Rows, folder: Path) -> NDArray[np.float64]:
        """Features in units of their spread around the training rows' mean, and the columns that join them."""
        stored = read_json(folder / FILE)
        pooled = (self.features(rows)[0] - np.array(stored["mean"])) / np.array(stored["scale"])
        return np.hstack([pooled, read_columns(rows, self.config, self.context, folder)])

    def _pipeline(self) -> Pipeline:
        regressor = build_regressor(self.config.regressor, self.config.parameters, self.context.seed)
        return Pipeline([("regressor", regressor)])

    def _cache(self) -> MoleculeCache:
        settings = self.config.model_dump(mode="json", include={"pooling", "max_length", "too_long"})
        settings |= {"weights": digest_of_weights(self.config.weights), "transformers": transformers.__version__}
        settings["reads_atoms"] = self.config.reads_atoms
        return MoleculeCache(self.context.cache, "embedding", settings, self._embed)

    def _embed(self, text: str) -> tuple[NDArray[np.float32], str]:
        """Features (1, width) of one text, and as a JSON list its numbers of tokens, of unknown ones, and of cuts.

        One text at a time: with others in a batch, its last digits would depend on them.
        """
        encoder, tokens, max_length = self._encoder
        (ids,), n_cut = tokens.encode([text.replace(SEPARATOR, tokens.separator)], max_length, self.config.too_long)
        batch = {name: tensor.to(encoder.device) for name, tensor in pad([ids], tokens.pad_id).items()}
        with torch.inference_mode():
            states = encoder(**batch).last_hidden_state
            pooled = pool(self.config.pooling, states, batch["attention_mask"], None)
        n_unknown = int((ids == tokens.unknown_id).sum())
        return pooled.cpu().numpy(), json.dumps([len(ids), n_unknown, n_cut])

    @functools.cached_property
    def _encoder(self) -> tuple[Any, Tokens, int]:
        encoder, tokens = pretrained(self.config, rate=0.0)
        encoder.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        return encoder, tokens, min(self.config.max_length, position_limit(encoder))
