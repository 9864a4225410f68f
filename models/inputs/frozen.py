"""What a frozen encoder makes of a text, or message passing of a molecule: pooled features, computed in batches, once,
and kept in the cache on disk."""

import functools
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from models.inputs.cache import Array, Cache
from models.inputs.template import SEPARATOR, reads_atoms
from models.inputs.weights import digest_of_weights, reads_graphs
from models.settings import Encoder, Stage

SHARD = 500  # texts, or molecules, that a worker reads at a time: some seconds of work
BATCH = 32  # texts of similar length, or molecules, that go through the encoder together


def encoder_cache(config: Encoder, root: Path) -> Cache:
    """Cache of what `embedded` gives for each text, or `passed` for each molecule."""
    settings: dict[str, Any] = {"weights": digest_of_weights(config.weights)}
    if reads_graphs(config.weights):
        settings["chemprop"] = metadata.version("chemprop")
        compute, name = functools.partial(passed, config.weights), "message_passing"
        return Cache(root, name, settings, compute, per_shard=SHARD, gpu=True)
    settings |= config.model_dump(mode="json", include={"pooling", "max_length", "too_long"})
    settings |= {"atoms": reads_atoms(config), "transformers": metadata.version("transformers")}
    return Cache(root, "embedding", settings, functools.partial(embedded, config), per_shard=SHARD, gpu=True)


def text_encoders(config: Stage) -> list[Encoder]:
    """Those of the encoders of a stage that read texts; the others read molecules."""
    return [encoder for encoder in config.encoders if not reads_graphs(encoder.weights)]


def embedded(config: Encoder, texts: list[str]) -> Array:
    """Pooled features, numbers of tokens and of unknown ones, and whether it was cut, (n_texts, 1, width + 3)."""
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
    return np.hstack([np.concatenate(found)[np.argsort(by_length)], counts], dtype=np.float32)[:, None]


@functools.lru_cache(maxsize=1)
def _loaded(settings: str) -> tuple[Any, Any]:
    """The encoder of a worker, and its tokenizer."""
    import torch

    from models.inputs.encoders import pretrained

    encoder, tokenizer = pretrained(Encoder.model_validate_json(settings), rate=0.0)
    return encoder.eval().to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


def passed(weights: str, smiles: list[str]) -> Array:
    """The mean over the atoms of each molecule, as CheMeleon's authors make fingerprints, (n_molecules, 1, width)."""
    import torch

    from models.inputs.graphs import atoms_mean, collate, graph_of, read_message_passing

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network, found = read_message_passing(weights)[1].eval().to(device), list[Array]()
    for start in range(0, len(smiles), BATCH):
        batch = collate([graph_of(text) for text in smiles[start : start + BATCH]])
        with torch.inference_mode():
            of_molecule = atoms_mean(network, **{name: tensor.to(device) for name, tensor in batch.items()})
        found.append(of_molecule.cpu().numpy())
    return np.concatenate(found)[:, None]
