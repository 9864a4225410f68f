"""What a frozen encoder makes of a text: its pooled features, read in batches, once, and kept in the cache on disk."""

from __future__ import annotations

import functools
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from models.config import EmbeddingStage
from models.inputs.cache import Array, Cache
from models.inputs.template import SEPARATOR
from models.inputs.weights import digest_of_weights

SHARD = 500
"""Texts that a worker reads at a time: some seconds of work."""
BATCH = 32
"""Texts of similar length that go through the encoder together."""


def encoder_cache(config: EmbeddingStage, root: Path) -> Cache:
    """Cache of pooled features: arrays (1, width) by text.

    The status word of a text is a JSON list: its numbers of tokens and of unknown tokens, and whether it was cut.
    """
    settings = config.model_dump(mode="json", include={"pooling", "max_length", "too_long"})
    settings |= {"weights": digest_of_weights(config.weights), "atoms": config.reads_atoms}

    settings["transformers"] = metadata.version("transformers")

    def compute(texts: list[str]) -> list[tuple[Array, str]]:
        return embedded(texts, config)

    return Cache(root, "embedding", settings, compute, per_shard=SHARD, gpu=True)


def embedded(texts: list[str], config: EmbeddingStage) -> list[tuple[Array, str]]:
    """Features and status words of texts, as of `encoder_cache`."""
    import torch

    from models.inputs.tokens import pad

    encoder, tokens, max_length = _loaded(config.model_dump_json())
    encoded = [tokens.encode([t.replace(SEPARATOR, tokens.separator)], max_length, config.too_long) for t in texts]
    ids = [row for (row,), _ in encoded]
    pooled = np.empty((len(texts), encoder.config.hidden_size), dtype=np.float32)
    by_length = np.argsort([len(row) for row in ids], kind="stable")
    for part in np.split(by_length, range(BATCH, len(ids), BATCH)):
        batch = {name: tensor.to(encoder.device) for name, tensor in pad([ids[i] for i in part], tokens.pad_id).items()}
        with torch.inference_mode():
            states, mask = encoder(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)
            of_text = states[:, 0] if config.pooling == "cls" else (states * mask).sum(1) / mask.sum(1)
        pooled[part] = of_text.float().cpu().numpy()
    counts = [[len(row), int((row == tokens.unknown_id).sum()), n_cut] for (row,), n_cut in encoded]
    return [(row[None], json.dumps(count)) for row, count in zip(pooled, counts, strict=True)]


@functools.lru_cache(maxsize=1)
def _loaded(settings: str) -> tuple[Any, Any, int]:
    """The encoder of a worker, with its tokenizer and the longest input in tokens."""
    import torch

    from models.inputs.encoders import position_limit, pretrained

    config = EmbeddingStage.model_validate_json(settings)
    encoder, tokens = pretrained(config, rate=0.0)
    encoder.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    return encoder, tokens, min(config.max_length, position_limit(encoder))
