"""What a frozen encoder makes of a text: its pooled features, read in batches, once, and kept in the cache on disk."""

import functools
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from models.config import EmbeddingStage
from models.inputs.cache import Array, Cache
from models.inputs.template import SEPARATOR, reads_atoms
from models.inputs.weights import digest_of_weights

SHARD = 500  # texts that a worker reads at a time: some seconds of work
BATCH = 32  # texts of similar length that go through the encoder together


def encoder_cache(config: EmbeddingStage, root: Path) -> Cache:
    """Cache of what `embedded` gives for each text."""
    settings = config.model_dump(mode="json", include={"pooling", "max_length", "too_long"})
    settings |= {"weights": digest_of_weights(config.weights), "atoms": reads_atoms(config)}
    settings["transformers"] = metadata.version("transformers")
    return Cache(root, "embedding", settings, functools.partial(embedded, config), per_shard=SHARD, gpu=True)


def embedded(config: EmbeddingStage, texts: list[str]) -> list[tuple[Array, str]]:
    """Each text as (1, width + 3): pooled features, numbers of tokens and of unknown ones, whether it was cut."""
    import torch

    from models.inputs.encoders import pooled
    from models.inputs.tokens import encode, pad, separator_of

    encoder, tokenizer = _loaded(config.model_dump_json())
    separator = separator_of(tokenizer)
    encoded = [encode(tokenizer, [text.replace(SEPARATOR, separator)], config.too_long) for text in texts]
    counts = [[len(row), (row == tokenizer.unk_token_id).sum(), n_cut] for (row,), n_cut in encoded]
    by_length, found = np.argsort([length for length, *_ in counts], kind="stable"), list[Array]()
    for part in np.split(by_length, range(BATCH, len(texts), BATCH)):
        batch = pad([encoded[i][0][0] for i in part], tokenizer.pad_token_id)
        batch = {name: tensor.to(encoder.device) for name, tensor in batch.items()}
        with torch.inference_mode():
            of_text = pooled(encoder(**batch).last_hidden_state, batch["attention_mask"], config.pooling)
        found.append(of_text.cpu().numpy())
    rows = np.hstack([np.concatenate(found)[np.argsort(by_length)], counts], dtype=np.float32)
    return [(row[None], "ok") for row in rows]


@functools.lru_cache(maxsize=1)
def _loaded(settings: str) -> tuple[Any, Any]:
    """The encoder of a worker, and its tokenizer."""
    import torch

    from models.inputs.encoders import pretrained

    encoder, tokenizer = pretrained(EmbeddingStage.model_validate_json(settings), rate=0.0)
    return encoder.eval().to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer
