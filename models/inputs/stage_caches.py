"""The caches that the jobs of a stage read. This module does not import torch, since the driver
process uses it.
"""

from collections.abc import Sequence

from competition.dataset import Dataset
from models.base_config import StageConfig
from models.feature_config import GpConfig
from models.inputs.cache import Cache
from models.inputs.conformers import conformer_cache
from models.inputs.count_fingerprints import fingerprint_cache
from models.inputs.features import molecule_features, stage_features
from models.inputs.frozen_encoders import encoder_cache, molecule_encoders, text_encoders
from models.inputs.text_template import SEPARATOR, read_template
from models.neural_config import ConformerConfig
from models.stage import Context


def shared_caches(
    config: StageConfig, context: Context, tables: Sequence[Dataset]
) -> list[tuple[Cache, list[str]]]:
    """Return the caches that the jobs of a stage read, each with the keys that it needs for the
    rows of `tables`.

    The keys are molecules or texts, sorted and unique. Caches are filled before the jobs start:
    parallel jobs would compute the same arrays several times.
    """
    molecule_caches = stage_features(config, context)
    molecule_caches += [encoder_cache(encoder, context.cache) for encoder in molecule_encoders(config)]
    if isinstance(config, GpConfig):
        descriptors = ["descriptors"] if "descriptors" in config.kernels else []
        molecule_caches += [fingerprint_cache(name, context.cache) for name in config.fingerprints]
        molecule_caches += molecule_features(descriptors, 0, context.cache)
    molecules = _molecules(context.smiles, tables)
    caches = [(cache, molecules) for cache in molecule_caches]
    if isinstance(config, ConformerConfig):
        conformers = conformer_cache(context.cache, **config.conformer_settings)
        caches.append((conformers, _molecules(config.columns or context.smiles, tables)))
    for encoder in text_encoders(config):
        template = read_template(encoder, context)
        texts = set[str]()
        for rows in tables:
            texts.update(template.texts(rows.inputs, SEPARATOR))
        caches.append((encoder_cache(encoder, context.cache), sorted(texts)))
    return caches


def _molecules(columns: list[str], tables: Sequence[Dataset]) -> list[str]:
    """Return the distinct SMILES of some columns, sorted."""
    molecules = set[str]()
    for rows in tables:
        for column in columns:
            molecules.update(rows.inputs[column])
    return sorted(molecules)
