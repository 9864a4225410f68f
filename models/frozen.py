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

from models.batches import sorted_plan
from models.cache import MoleculeCache
from models.config import EmbeddingStage
from models.encoders import position_limit, pretrained
from models.heads import pool
from models.template import SEPARATOR
from models.text import Tokens, pad
from models.weights import digest_of_weights

SHARD = 500
"""Texts per shard of the cache: some seconds of work, all that a kill can lose."""
TOGETHER = 32
"""Texts of like length that go through the encoder together."""


class FrozenEncoder:
    """The encoder of a stage's settings; it is loaded when a text comes that is not in the cache.

    digest: of its files.
    """

    def __init__(self, config: EmbeddingStage, cache: Path) -> None:
        self.config = config
        self.digest = digest_of_weights(config.weights)
        settings = config.model_dump(mode="json", include={"pooling", "max_length", "too_long"})
        settings |= {"weights": self.digest, "atoms": config.reads_atoms, "transformers": transformers.__version__}
        self.cache = MoleculeCache(cache, "embedding", settings, lambda text: self.embed([text])[0])

    def features(
        self, texts: list[str], progress: Callable[[int, int], None]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Pooled features (n_rows, width) of texts, and what was counted (n_rows, 3): see `embed`."""
        missing = self.cache.missing(texts)
        for start in range(0, len(missing), SHARD):
            part = missing[start : start + SHARD]
            self.cache.write_shard(part, self.embed(part))
            progress(start + len(part), len(missing))
        features, counts = self.cache.load(texts)
        return np.concatenate(features).astype(np.float64), np.array([json.loads(words) for words in counts])

    def embed(self, texts: list[str]) -> list[tuple[NDArray[np.float32], str]]:
        """Features (1, width) of each text, and as a JSON list its numbers of tokens, of unknown ones, and of cuts.

        Texts of like length go through the encoder together; the last digits of one depend on those beside it.
        """
        encoder, tokens, max_length = self.loaded
        encoded = [
            tokens.encode([text.replace(SEPARATOR, tokens.separator)], max_length, self.config.too_long)
            for text in texts
        ]
        items = [ids for (ids,), _ in encoded]
        counts = [[len(ids), int((ids == tokens.unknown_id).sum()), n_cut] for (ids,), n_cut in encoded]
        plan = sorted_plan(np.array([len(ids) for ids in items]), TOGETHER, equal_lengths=False)
        pooled: list[NDArray[np.float32]] = []
        for rows in plan:
            batch = pad([items[i] for i in rows], tokens.pad_id)
            batch = {name: tensor.to(encoder.device) for name, tensor in batch.items()}
            with torch.inference_mode():
                states = encoder(**batch).last_hidden_state
                pooled.append(pool(self.config.pooling, states, batch["attention_mask"], None).cpu().numpy())
        features = np.concatenate(pooled)[np.argsort(np.concatenate(plan))]
        return [(row[None], json.dumps(count)) for row, count in zip(features, counts, strict=True)]

    @functools.cached_property
    def loaded(self) -> tuple[Any, Tokens, int]:
        """Encoder, tokenizer, and the longest input in tokens."""
        encoder, tokens = pretrained(self.config, rate=0.0)
        encoder.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        return encoder, tokens, min(self.config.max_length, position_limit(encoder))
