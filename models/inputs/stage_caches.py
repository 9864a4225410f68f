"""The caches that the jobs of a stage read. This module does not import torch, since the driver
process uses it.
"""

from collections.abc import Sequence

from competition.dataset import Dataset
from models.context import Context
from models.inputs.cache import Cache
from models.inputs.feature_blocks import stage_features
from models.inputs.frozen_encoders import encoder_cache
from models.inputs.text_template import SEPARATOR, read_template
from models.inputs.weights import reads_molecules
from models.stage import Stage


def shared_caches(
    config: Stage, context: Context, tables: Sequence[Dataset]
) -> list[tuple[Cache, list[str]]]:
    """Return the caches that the jobs of a stage read, each with the keys that it needs for the
    rows of `tables`.

    The keys are molecules or texts, sorted and unique. Caches are filled before the jobs start:
    parallel jobs would compute the same arrays several times.
    """
    caches = [(cache, _molecules(columns, tables)) for cache, columns in config.caches(context)]
    molecules = _molecules(context.smiles, tables)
    caches += [(cache, molecules) for cache in stage_features(config, context)]
    for encoder in config.encoders:
        keys = molecules
        if not reads_molecules(encoder.weights):
            template = read_template(encoder, context)
            texts = set[str]()
            for rows in tables:
                texts.update(template.texts(rows.inputs, SEPARATOR))
            keys = sorted(texts)
        caches.append((encoder_cache(encoder, context.cache), keys))
    return caches


def _molecules(columns: list[str], tables: Sequence[Dataset]) -> list[str]:
    """Return the distinct SMILES of some columns, sorted."""
    molecules = set[str]()
    for rows in tables:
        for column in columns:
            molecules.update(rows.inputs[column])
    return sorted(molecules)
