"""Features of molecules and texts that stages read: fingerprints, descriptors, and frozen encoders.

Everything that they fit, they fit on the training rows only, and write it into the folder of the job.
"""

import math
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition.dataset import Dataset
from core.errors import ConfigError, DataError
from core.files import read_json, write_json
from core.modules import load
from core.types import Array
from models.context import CheckTables, Context, molecule_columns
from models.inputs.base_models import require_hidden_layers, require_pooling
from models.inputs.cache import Cache, distinct_values
from models.inputs.encoder_settings import EncoderFeature
from models.inputs.weights import digest_of_weights, reads_molecules
from models.job_folder import write_notes
from models.stage import FINGERPRINTS, Stage

TEXTS = "models.inputs.texts"
ENCODERS = "encoders.json"
REDUCTIONS = "encoders.npz"
MAX_UNKNOWN = 0.05
"""Share of unknown tokens that a text in the language of an encoder may have, such as emojis."""
MAX_CHECKED_ROWS = 2000
"""Maximum number of rows of a table whose texts are tokenized before training."""
MAX_ROWS_OF_PCA = 20_000
"""Maximum number of training rows that principal components are computed from."""
DEAD = 1e-9
"""Pooled features of texts below this are 0: scaling would make a feature from a dead dimension (1e-33 in minilm)."""
N_COUNTS = 3
"""Numbers after the features of a text: its tokens, its unknown tokens, and whether it was truncated."""
SHARD_SIZE = 500
"""Texts, or molecules, that a worker reads at a time: some seconds of work."""


def stage_features(stage: Stage, context: Context) -> list[Cache]:
    """Return the caches of the molecule features that a stage reads, without frozen encoders."""
    names = stage.molecule_feature_names
    if not names:
        return []
    caches: list[Cache] = load(FINGERPRINTS).molecule_features(names, stage.count_bits, context.cache)
    return caches


def encoder_cache(encoder: EncoderFeature, root: Path) -> Cache:
    """Return the cache of the features of an encoder, one array per text, or (1, width) per molecule."""
    kind = encoder.kind
    settings: dict[str, Any] = {"weights": digest_of_weights(encoder.weights)}
    settings |= {package: metadata.version(package) for package in kind.packages}
    name = kind.module.rpartition(".")[2]
    if not reads_molecules(encoder.weights):
        settings |= encoder.model_dump(mode="json", include={"pooling", "layers", "max_length"})
        settings["atoms"] = load(TEXTS).reads_atoms(encoder)
    return Cache(root, name, settings, encoder.embed, SHARD_SIZE, kind.uses_gpu, (kind.module,))


def feature_caches(
    stage: Stage, context: Context, tables: Sequence[Dataset]
) -> list[tuple[Cache, list[str]]]:
    """Return the caches of a stage's molecule features and frozen encoders, each with its keys as in `Stage.caches`."""
    molecules = distinct_values(context.smiles, tables)
    caches = [(cache, molecules) for cache in stage_features(stage, context)]
    for encoder in stage.encoders:
        if reads_molecules(encoder.weights):
            keys = distinct_values(encoder.columns or context.smiles, tables)
        else:
            templates = load(TEXTS).read_templates(encoder, context)
            texts = [_texts(template, rows) for template in templates for rows in tables]
            keys = sorted(set().union(*texts))
        caches.append((encoder_cache(encoder, context.cache), keys))
    return caches


def _texts(template: Any, rows: Dataset) -> list[str]:
    """Return a text of each row, as a text encoder reads it."""
    return list(template.texts(rows.inputs, load(TEXTS).SEPARATOR))


def check_encoders(stage: Stage, tables: CheckTables) -> Iterator[str]:
    """Check how the encoders of a stage read text and molecules; yield warnings of texts that they do not read."""
    for encoder in stage.encoders:
        if reads_molecules(encoder.weights):
            molecule_columns(encoder.columns, tables.context.smiles, stage.kind)
        elif encoder.layers:
            require_hidden_layers(encoder.weights, encoder.layers)
    for settings in stage.text_settings:
        texts = load(TEXTS)
        texts.read_templates(settings, tables.context)
        require_pooling(settings)
        counts = []
        for table in (tables.train, tables.test):
            step = max(1, math.ceil(len(table) / MAX_CHECKED_ROWS))
            counts.append(texts.count_tokens(settings, tables.context, table[::step]))
        n_texts, n_cut, n_tokens, n_unknown = np.sum(counts, axis=0)
        if n_cut:
            yield (
                f"WARNING: {n_cut} of {n_texts} tokenized texts have more than {texts.longest_input(settings)} tokens "
                "and will be cut"
            )
        if n_unknown > MAX_UNKNOWN * n_tokens:
            yield f"WARNING: {n_unknown / n_tokens:.0%} of the tokens are unknown to {settings.weights}"


def named_molecule_blocks(
    rows: Dataset, stage: Stage, context: Context, folder: Path
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield the features of all molecule columns, each (n_rows, n_features); NaN for an undefined feature.

    For each column these are its fingerprints and descriptors, and its features of frozen encoders; the name has
    the column and what they are.

    Args:
        folder: folder that `fit_encoders` wrote to.
    """
    for column in context.smiles:
        smiles = rows.inputs[column]
        for cache in stage_features(stage, context):
            yield f"{column}: {cache.name}", np.concatenate(cache.load(smiles))
        for index, encoder in enumerate(stage.encoders):
            if reads_molecules(encoder.weights) and column in (encoder.columns or context.smiles):
                values = np.concatenate(encoder_cache(encoder, context.cache).load(smiles))
                yield f"{column}: {encoder.weights}", _reduced(values, folder, f"{index} {column}")


def molecule_blocks(rows: Dataset, stage: Stage, context: Context, folder: Path) -> list[NDArray[np.float32]]:
    """Return those of `named_molecule_blocks`; the first one is empty, so that there is always one to concatenate."""
    blocks = [block for _, block in named_molecule_blocks(rows, stage, context, folder)]
    return [np.empty((len(rows), 0), dtype=np.float32), *blocks]


def feature_blocks(rows: Dataset, stage: Stage, context: Context, folder: Path) -> dict[str, Any]:
    """Return the features of molecules and those of text encoders, (n_rows, n_features) each.

    Args:
        folder: folder that `fit_encoders` wrote to.
    """
    return {
        "molecules": np.hstack(molecule_blocks(rows, stage, context, folder)),
        "encoders": encoder_block(rows, stage, context, folder).astype(np.float64),
    }


def fit_encoders(train: Dataset, stage: Stage, context: Context, folder: Path) -> None:
    """Write what the features of a stage's frozen encoders need: digests, means and principal components.

    Prediction verifies the digests. Notes name truncated texts, and molecules that an encoder cannot read.

    Raises:
        ConfigError: most tokens are unknown to an encoder.
    """
    notes = list[str]()
    arrays = dict[str, Any]()
    for index, encoder in enumerate(stage.encoders):
        cache = encoder_cache(encoder, context.cache)
        if reads_molecules(encoder.weights):
            for column in encoder.columns or context.smiles:
                values = np.concatenate(cache.load(train.inputs[column]))
                arrays |= _fit_reduction(values, encoder, f"{index} {column}")
                unread = train.inputs[column].to_numpy()[np.isnan(values).any(axis=1)]
                if len(unread):
                    notes.append(
                        f"{encoder.weights} cannot read {len(unread)} cells of {column}, such as {unread[0]}; "
                        "they get its mean features"
                    )
            continue
        pooled = _pooled_texts(encoder, train, context)
        counts = np.concatenate([values[:, -N_COUNTS:] for values in pooled.values()])
        n_tokens, n_unknown, is_cut = counts.astype(np.int64).T
        unknown_share = n_unknown.sum() / n_tokens.sum()
        template = load(TEXTS).read_template(encoder, context)
        notes += template.notes(encoder.weights, unknown_share, is_cut.sum(), len(counts), n_tokens.max())
        arrays |= _fit_reduction(_text_features(encoder, pooled, context.pairs), encoder, f"{index} text")
    if notes:
        write_notes(folder, notes)
    if stage.encoders:
        np.savez(folder / REDUCTIONS, **arrays)
        write_json(folder / ENCODERS, [digest_of_weights(encoder.weights) for encoder in stage.encoders])


def encoder_block(rows: Dataset, stage: Stage, context: Context, folder: Path) -> NDArray[np.float32]:
    """Return the pooled features of the frozen text encoders, (n_rows, n_features).

    The features of frozen encoders of molecules are in `molecule_blocks`.

    Raises:
        ConfigError: the files of an encoder have changed since training.
    """
    blocks: list[NDArray[np.float32]] = [np.empty((len(rows), 0), dtype=np.float32)]
    trained_digests = read_json(folder / ENCODERS) if stage.encoders else ()
    for index, (encoder, trained_digest) in enumerate(zip(stage.encoders, trained_digests, strict=True)):
        cache = encoder_cache(encoder, context.cache)
        # A run that predicts new rows does not plan its jobs again, so their keys cannot detect a change.
        if cache.settings["weights"] != trained_digest:
            raise ConfigError(
                f"the files of the weights {encoder.weights!r} are not those that {folder} was trained with. "
                "Restore them, or train again."
            )
        if not reads_molecules(encoder.weights):
            values = _text_features(encoder, _pooled_texts(encoder, rows, context), context.pairs)
            values = _reduced(values, folder, f"{index} text")
            blocks.append(np.where(np.abs(values) < DEAD, np.float32(0), values))
    return np.hstack(blocks)


def _pooled_texts(encoder: EncoderFeature, rows: Dataset, context: Context) -> dict[str, NDArray[np.float32]]:
    """Return the features and counts of the texts of rows by their columns, (n_rows, width + N_COUNTS) each."""
    cache = encoder_cache(encoder, context.cache)
    templates = load(TEXTS).read_templates(encoder, context)
    return {
        ", ".join(template.columns): np.concatenate(cache.load(_texts(template, rows)))
        for template in templates
    }


def _text_features(
    encoder: EncoderFeature, pooled: dict[str, NDArray[np.float32]], pairs: list[list[str]]
) -> NDArray[np.float32]:
    """Return the features of the texts of rows, or of the pairs of columns, (n_rows, n_features).

    Args:
        pooled: result of `_pooled_texts`.
        pairs: compared columns.
    """
    features = {columns: values[:, :-N_COUNTS] for columns, values in pooled.items()}
    if encoder.pairs is None:
        return np.hstack([*features.values()])
    compared = [compare_vectors(features[first], features[second]) for first, second in pairs]
    return np.hstack([block[:, -1:] if encoder.pairs == "cosine" else block for block in compared])


def compare_vectors(u: NDArray[np.float32], v: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return abs(u - v), u * v and the cosine of each row, (n_rows, 2 * width + 1); they do not depend on the order."""
    product = u * v
    cosine = product.sum(axis=1) / (np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1))
    return np.column_stack([np.abs(u - v), product, cosine])


def _fit_reduction(values: NDArray[np.float32], encoder: EncoderFeature, name: str) -> dict[str, Array]:
    """Return the means of an encoder's features on training rows and, with `pca`, the principal components.

    Raises:
        DataError: the encoder can read none of the training rows.
    """
    from sklearn.decomposition import PCA

    readable = values[np.isfinite(values).all(axis=1)]
    if not len(readable):
        raise DataError(
            f"the weights {encoder.weights} can read no training row; remove them from the stage."
        )
    arrays = {f"mean {name}": readable.mean(axis=0, dtype=np.float64)}
    if encoder.pca is not None:
        some = readable[:: math.ceil(len(readable) / MAX_ROWS_OF_PCA)].astype(np.float64)
        pca = PCA(min(encoder.pca, *some.shape), random_state=0).fit(some)
        arrays[f"components {name}"] = pca.components_
    return arrays


def _reduced(values: NDArray[np.float32], folder: Path, name: str) -> NDArray[np.float32]:
    """Return features of texts or molecules, projected on the principal components of `name` if there are some.

    Rows that the encoder cannot read have the mean features of the training rows.
    """
    with np.load(folder / REDUCTIONS) as arrays:
        mean = arrays[f"mean {name}"]
        values = np.where(np.isnan(values), mean, values).astype(np.float32)
        if f"components {name}" in arrays:
            return ((values - mean) @ arrays[f"components {name}"].T).astype(np.float32)
    return values
