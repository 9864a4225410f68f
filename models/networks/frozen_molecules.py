"""Features of molecules by frozen message passing of chemprop, such as CheMeleon."""

import numpy as np
import torch

from models.inputs.cache import Array
from models.inputs.encoder_settings import EncoderFeature
from models.inputs.weights import find_weights
from models.networks.message_passing import collate, graph_of, pool_atoms, read_message_passing

BATCH_SIZE = 32
"""Molecules per forward pass."""


def embed(config: EncoderFeature, smiles: list[str]) -> Array:
    """Return the mean of message passing over the atoms of each molecule, (n_molecules, 1, width).

    The vectors of several files are concatenated. The authors of CheMeleon compute its fingerprints in this
    way.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    embeddings = list[Array]()
    for path in find_weights(config.weights).values():
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
