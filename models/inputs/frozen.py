"""What a frozen encoder makes of a text: its pooled features, read once and kept in the cache on disk."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from models.config import EmbeddingStage
from models.inputs.cache import MoleculeCache
from models.inputs.encoders import position_limit, pretrained
from models.inputs.template import SEPARATOR
from models.inputs.tokens import Tokens, pad
from models.inputs.weights import digest_of_weights
from models.training.heads import pool

SHARD = 500
"""Texts per shard of the cache: some seconds of work, all that a kill can lose."""


class FrozenEncoder:
    """The encoder of a stage's settings; it is loaded when a text comes that is not in the cache.

    digest: of its files.
    """

    def __init__(self, config: EmbeddingStage, cache: Path) -> None:
        self.config = config
        self.digest = digest_of_weights(config.weights)
        settings = config.model_dump(mode="json", include={"pooling", "max_length", "too_long"})
        settings |= {"weights": self.digest, "atoms": config.reads_atoms, "transformers": transformers.__version__}
        self.cache = MoleculeCache(cache, "embedding", settings, self.embed)

    def features(
        self, texts: list[str], progress: Callable[[int, int], None]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Pooled features (n_rows, width) of texts, and what was counted (n_rows, 3): see `embed`."""
        missing = self.cache.missing(texts)
        for start in range(0, len(missing), SHARD):
            self.cache.compute_shard(missing[start : start + SHARD])
            progress(min(start + SHARD, len(missing)), len(missing))
        features, counts = self.cache.load(texts)
        return np.concatenate(features).astype(np.float64), np.array([json.loads(words) for words in counts])

    def embed(self, text: str) -> tuple[NDArray[np.float32], str]:
        """Features (1, width) of one text, and as a JSON list its numbers of tokens, of unknown ones, and of cuts.

        One text at a time: with others in a batch, its last digits would depend on them.
        """
        encoder, tokens, max_length = self.loaded
        (ids,), n_cut = tokens.encode([text.replace(SEPARATOR, tokens.separator)], max_length, self.config.too_long)
        batch = {name: tensor.to(encoder.device) for name, tensor in pad([ids], tokens.pad_id).items()}
        with torch.inference_mode():
            states = encoder(**batch).last_hidden_state
            pooled = pool(self.config.pooling, states, batch["attention_mask"], None)
        return pooled.cpu().numpy(), json.dumps([len(ids), int((ids == tokens.unknown_id).sum()), n_cut])

    @functools.cached_property
    def loaded(self) -> tuple[Any, Tokens, int]:
        """Encoder, tokenizer, and the longest input in tokens."""
        encoder, tokens = pretrained(self.config, rate=0.0)
        encoder.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        return encoder, tokens, min(self.config.max_length, position_limit(encoder))
