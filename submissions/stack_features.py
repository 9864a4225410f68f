"""What a stack may see of a row besides its predictions (`submissions.stack_features`).

Nothing here is fitted, so nothing of a held-out fold can reach a stack through it: RDKit's descriptors of each molecule
column, the competition's own numbers, and the length of each text in characters and in words. Words (TF-IDF),
categories and fingerprints are left out: the first two would have to be fitted without each fold, and a thousand sparse
bits are more than trees of two splits or a ridge on a residual can use.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from competition.metrics import Array
from competition.tables import FEATURE, read_rows
from submissions.config import Config


def features_of(config: Config, table: Path, cache: Path) -> Array:
    """Features of the rows of a prepared table in its order, (n_rows, n_features); NaN where one is missing.

    No columns where `submissions.stack_features` is false. Descriptors come from the cache that the stages share.

    Raises:
        DataError: if the table or a part of the cache cannot be read.
    """
    competition = config.competition
    rows = read_rows(table, competition, labelled=False)
    parts: list[Array] = [np.empty((len(rows), 0))]
    if not config.submissions.stack_features:
        return parts[0]
    if competition.smiles:
        from models.inputs.features import molecule_features

        (descriptors,) = molecule_features(["descriptors"], n_bits=0, root=cache)
        parts += [np.concatenate(descriptors.load(list(rows.inputs[column]))[0]) for column in competition.smiles]
    own = [name for name in map(str, rows.inputs) if name in competition.numeric or name.startswith(FEATURE)]
    parts.append(rows.inputs[own].to_numpy(dtype=np.float64))
    for column in competition.text:
        texts = rows.inputs[column]
        parts.append(np.array([[len(text), len(text.split())] for text in texts], dtype=np.float64).reshape(-1, 2))
    return np.hstack(parts).astype(np.float64)
