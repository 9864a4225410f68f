"""Pooled features of texts by a frozen encoder of transformers."""

import functools
from typing import Any

import numpy as np
import torch

from models.inputs.cache import Array
from models.inputs.encoder_settings import EncoderFeature
from models.inputs.texts import SEPARATOR
from models.inputs.tokenization import encode, pad, separator_of
from models.networks.encoders import pooled, pretrained

BATCH_SIZE = 32
"""Texts of similar length per forward pass."""


def embed(config: EncoderFeature, texts: list[str]) -> Array:
    """Return pooled features and three counts of each text, (n_texts, 1, n_layers * width + 3).

    The counts are the number of tokens, the number of unknown tokens, and 1 if the text was
    truncated, otherwise 0.
    """
    encoder, tokenizer = _load_encoder(config.model_dump_json())
    encoder.to("cuda" if torch.cuda.is_available() else "cpu")
    separator = separator_of(tokenizer)
    ids, is_cut = encode(tokenizer, [text.replace(SEPARATOR, separator) for text in texts])
    lengths = np.array(list(map(len, ids)))
    n_unknown = [(row == tokenizer.unk_token_id).sum() for row in ids]
    by_length = lengths.argsort(kind="stable")
    embeddings = list[Array]()
    for indices in np.split(by_length, range(BATCH_SIZE, len(texts), BATCH_SIZE)):
        batch = pad([ids[i] for i in indices], tokenizer.pad_token_id)
        batch = {name: tensor.to(encoder.device) for name, tensor in batch.items()}
        with torch.inference_mode():
            output = encoder(**batch, output_hidden_states=config.layers is not None)
            states = [output.hidden_states[i] for i in config.layers or ()] or [output.last_hidden_state]
            embedding = pooled(torch.cat(states, dim=-1), batch["attention_mask"], config.pooling)
        embeddings.append(embedding.cpu().numpy())
    encoder.to("cpu")  # the worker keeps it, and the memory of the card is for jobs
    in_order = np.concatenate(embeddings)[np.argsort(by_length)]
    return np.column_stack([in_order, lengths, n_unknown, is_cut]).astype(np.float32)[:, None]


@functools.lru_cache(maxsize=1)
def _load_encoder(settings: str) -> tuple[Any, Any]:
    """Return the encoder and the tokenizer of some settings (JSON). A worker keeps the latest ones."""
    encoder, tokenizer = pretrained(EncoderFeature.model_validate_json(settings), rate=0.0)
    return encoder.eval(), tokenizer
