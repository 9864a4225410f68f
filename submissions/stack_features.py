"""What a stack may see of a row besides its predictions (`submissions.stack_features`).

Nothing here is fitted, so nothing of a held-out fold can reach a stack through it. Words (TF-IDF), categories and
fingerprints are left out: the first two would have to be fitted without each fold, and a thousand sparse bits are more
than trees of two splits or a ridge on a residual can use.
"""

from pathlib import Path

import numpy as np

from competition.tables import FEATURE, read_rows
from competition.types import Array
from submissions.config import Config


def features_of(config: Config, table: Path, cache: Path) -> Array:
    """Features of the rows of a prepared table, (n_rows, n_features); no columns where `stack_features` is false.

    RDKit's descriptors of each molecule column, from the cache that the stages share; the competition's own numbers;
    and the length of each text in characters and in words. NaN where one is missing.
    """
    competition, inputs = config.competition, read_rows(table, config.competition, labelled=False).inputs
    parts: list[Array] = [np.empty((len(inputs), 0))]
    if config.submissions.stack_features:
        if competition.smiles:
            from models.inputs.features import molecule_features

            (descriptors,) = molecule_features(["descriptors"], n_bits=0, root=cache)
            parts += [np.concatenate(descriptors.load(inputs[column])) for column in competition.smiles]
        own = [name for name in map(str, inputs) if name in competition.numeric or name.startswith(FEATURE)]
        parts.append(inputs[own].to_numpy(dtype=np.float64))
        for column in competition.text:
            parts.append(np.array([[len(text), len(text.split())] for text in inputs[column]]).reshape(-1, 2))
    return np.hstack(parts).astype(np.float64)
