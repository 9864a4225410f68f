"""Feature blocks: the inputs of trees and of regressors, and of the head of a network (`models/training/neural.py`).

A block is a function from rows to a matrix with one row for each of them. Whatever a block fits, it
fits on the training rows only, and writes it as JSON into the folder of the job.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.dataset import Dataset
from core.errors import ConfigError, DataError
from core.files import read_json, write_json
from core.types import Array
from models.context import CheckTables, Context, molecule_columns
from models.inputs.base_models import require_pooling
from models.inputs.cache import Cache, distinct_values
from models.inputs.encoder_settings import EncoderFeature
from models.inputs.fingerprints import molecule_features
from models.inputs.frozen_encoders import N_COUNTS, encoder_cache
from models.inputs.texts import SEPARATOR, count_tokens, read_template
from models.inputs.weights import digest_of_weights, reads_molecules
from models.stage import Stage, write_notes

ENCODERS = "encoders.json"
REDUCTIONS = "encoders.npz"
N_RANGES = {"word": (1, 2), "char_wb": (1, 3)}
"""Analyzer of scikit-learn -> smallest and largest n of its n-grams. Those of characters, within words, read
misspellings, emojis and scripts without blanks.
"""
NGrams = tuple[str, dict[str, Any]]
"""Text column, and settings of a vectorizer of scikit-learn, with the vocabulary."""
MAX_UNKNOWN = 0.05
"""Share of unknown tokens that a text in the language of an encoder may have, such as emojis."""
MAX_FLOAT32 = float(np.finfo(np.float32).max)
DEAD = 1e-9
"""Pooled features of texts below this are 0: scaling would make a feature from a dead dimension (1e-33 in minilm)."""


def stage_features(config: Stage, context: Context) -> list[Cache]:
    """Return the caches of the molecule features that a stage reads, without frozen encoders."""
    return molecule_features(config.molecule_feature_names, config.count_bits, context.cache)


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
            template = read_template(encoder, context)
            texts = set[str]()
            for rows in tables:
                texts.update(template.texts(rows.inputs, SEPARATOR))
            keys = sorted(texts)
        caches.append((encoder_cache(encoder, context.cache), keys))
    return caches


def check_encoders(stage: Stage, tables: CheckTables) -> Iterator[str]:
    """Check how the encoders of a stage read text and molecules; yield warnings of texts that they do not read."""
    competition = tables.competition
    for encoder in stage.encoders:
        if reads_molecules(encoder.weights):
            molecule_columns(encoder.columns, competition.smiles, stage.kind)
    for settings in stage.text_settings:
        read_template(settings, competition)
        require_pooling(settings)
        counts = [count_tokens(settings, competition, table) for table in (tables.train, tables.test)]
        n_cut, n_tokens, n_unknown = np.sum(counts, axis=0)
        if n_cut:
            yield f"WARNING: {n_cut} texts have more than {settings.max_length} tokens (max_length) and will be cut"
        if n_unknown > MAX_UNKNOWN * n_tokens:
            yield f"WARNING: {n_unknown / n_tokens:.0%} of the tokens are unknown to {settings.weights}"


def molecule_blocks(
    rows: Dataset, config: Stage, context: Context, folder: Path
) -> list[NDArray[np.float32]]:
    """Return the features of all molecule columns, each (n_rows, n_features); NaN for an undefined feature.

    For each column these are its fingerprints and descriptors, and its features of frozen encoders. The first
    block is empty, so that they can be concatenated without molecule columns.

    Args:
        folder: folder that `fit_encoders` wrote to.
    """
    blocks: list[NDArray[np.float32]] = [np.empty((len(rows), 0), dtype=np.float32)]
    for column in context.smiles:
        smiles = rows.inputs[column]
        blocks += [np.concatenate(cache.load(smiles)) for cache in stage_features(config, context)]
        for index, encoder in enumerate(config.encoders):
            if reads_molecules(encoder.weights) and column in (encoder.columns or context.smiles):
                blocks.append(_encoded(encoder, smiles, context, folder, f"{index} {column}"))
    return blocks


def numeric_block(rows: Dataset, context: Context) -> Array:
    """Return the numeric columns and the user-defined features, (n_rows, n_numeric); NaN for a missing number.

    They are clipped to the numbers that float32 can represent.
    """
    return np.clip(rows.inputs[context.numeric].to_numpy(dtype=np.float64), -MAX_FLOAT32, MAX_FLOAT32)


def column_blocks(
    rows: Dataset, config: Stage, context: Context, folder: Path, use_tabular: bool = True
) -> dict[str, Any]:
    """Return the features of molecules and texts, numbers and categories that `models/inputs/scaling.py` scales.

    Args:
        folder: folder that `fit_encoders` wrote to.
        use_tabular: whether the numeric and categorical columns are read.
    """
    if not use_tabular:
        context = replace(context, numeric=[], categorical=[])
    return {
        "molecules": np.hstack(molecule_blocks(rows, config, context, folder)),
        "encoders": encoder_block(rows, config, context, folder).astype(np.float64),
        "numbers": numeric_block(rows, context),
        "categories": rows.inputs[context.categorical],
    }


def fit_encoders(train: Dataset, config: Stage, context: Context, folder: Path) -> None:
    """Write what the features of a stage's frozen encoders need: digests, means and principal components.

    Prediction verifies the digests. Notes name truncated texts, and molecules that an encoder cannot read.

    Raises:
        ConfigError: most tokens are unknown to an encoder.
    """
    notes = list[str]()
    arrays = dict[str, Any]()
    for index, encoder in enumerate(config.encoders):
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
        template = read_template(encoder, context)
        pooled = np.concatenate(cache.load(template.texts(train.inputs, SEPARATOR)))
        n_tokens, n_unknown, is_cut = pooled[:, -N_COUNTS:].astype(np.int64).T
        unknown_share = n_unknown.sum() / n_tokens.sum()
        notes += template.notes(encoder.weights, unknown_share, is_cut.sum(), len(train), n_tokens.max())
        arrays |= _fit_reduction(pooled[:, :-N_COUNTS], encoder, f"{index} text")
    if notes:
        write_notes(folder, notes)
    if config.encoders:
        np.savez(folder / REDUCTIONS, **arrays)
        write_json(folder / ENCODERS, [digest_of_weights(encoder.weights) for encoder in config.encoders])


def encoder_block(rows: Dataset, config: Stage, context: Context, folder: Path) -> NDArray[np.float32]:
    """Return the pooled features of the frozen text encoders, (n_rows, n_features).

    The features of frozen encoders of molecules are in `molecule_blocks`.

    Raises:
        ConfigError: the files of an encoder have changed since training.
    """
    blocks: list[NDArray[np.float32]] = [np.empty((len(rows), 0), dtype=np.float32)]
    trained_digests = read_json(folder / ENCODERS) if config.encoders else ()
    for index, (encoder, trained_digest) in enumerate(zip(config.encoders, trained_digests, strict=True)):
        cache = encoder_cache(encoder, context.cache)
        # A run that predicts new rows does not plan its jobs again, so their keys cannot detect a change.
        if cache.settings["weights"] != trained_digest:
            raise ConfigError(
                f"the files of the weights {encoder.weights!r} are not those that {folder} was trained with. "
                "Restore them, or train again."
            )
        if not reads_molecules(encoder.weights):
            texts = read_template(encoder, context).texts(rows.inputs, SEPARATOR)
            values = _encoded(encoder, texts, context, folder, f"{index} text")
            blocks.append(np.where(np.abs(values) < DEAD, np.float32(0), values))
    return np.hstack(blocks)


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
        n_components = min(encoder.pca, *readable.shape)
        pca = PCA(n_components, svd_solver="covariance_eigh").fit(readable.astype(np.float64))
        arrays[f"components {name}"] = pca.components_
    return arrays


def _encoded(
    encoder: EncoderFeature, inputs: Iterable[str], context: Context, folder: Path, name: str
) -> NDArray[np.float32]:
    """Return the features of texts or molecules, projected on the principal components of `name` if there are some.

    Rows that the encoder cannot read have the mean features of the training rows.
    """
    values = np.concatenate(encoder_cache(encoder, context.cache).load(inputs))
    with np.load(folder / REDUCTIONS) as arrays:
        mean = arrays[f"mean {name}"]
        values = values[:, : len(mean)]  # without the counts of texts
        values = np.where(np.isnan(values), mean, values).astype(np.float32)
        if f"components {name}" in arrays:
            return ((values - mean) @ arrays[f"components {name}"].T).astype(np.float32)
    return values


def fit_ngrams(train: Dataset, max_features: int, context: Context, folder: Path) -> list[NGrams]:
    """Return the n-grams of each text column that features are made of, by column and analyzer.

    A note names the columns without n-grams, which are not used.

    Args:
        train: training rows. An n-gram counts if at least two of them contain it.
        max_features: maximum number of n-grams per column and analyzer, the most frequent first; 0: no
            column is used.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    fitted: list[NGrams] = []
    for name, analyzer in product(context.text if max_features else (), N_RANGES):
        settings: Any = {"analyzer": analyzer, "ngram_range": N_RANGES[analyzer]}
        vectorizer = CountVectorizer(**settings, min_df=2, max_features=max_features)
        try:
            counts = vectorizer.fit_transform(train.inputs[name])
        except ValueError:  # no n-gram is in two rows
            continue
        if (counts.max(axis=0) != counts.min(axis=0)).nnz:  # not if all rows have https alone
            fitted.append((name, {**settings, "vocabulary": vectorizer.get_feature_names_out().tolist()}))
    unused = {*context.text} - {name for name, _ in fitted}
    if max_features and unused:
        where = "in one training row or in all of them"
        write_notes(folder, [f"no features of {', '.join(sorted(unused))}: each n-gram is {where}"])
    return fitted


def ngram_counts(rows: Dataset, fitted: list[NGrams]) -> Any:
    """Return the counts of the n-grams of `fit_ngrams` in the texts of rows, (n_rows, n_ngrams), a sparse matrix."""
    from scipy import sparse
    from sklearn.feature_extraction.text import CountVectorizer

    blocks = [sparse.csr_matrix((len(rows), 0), dtype=np.float32)]
    for name, settings in fitted:
        blocks.append(CountVectorizer(**settings, dtype=np.float32).transform(rows.inputs[name]))
    return sparse.hstack(blocks, format="csr")


def fit_categories(train: Dataset, columns: list[str]) -> dict[str, list[str]]:
    """Return the sorted categories of each categorical column."""
    return {name: sorted(set(train.inputs[name])) for name in columns}


def category_block(rows: Dataset, categories: dict[str, list[str]]) -> NDArray[np.float32]:
    """Return the index of each category, (n_rows, n_categorical); -1 for a category without training rows."""
    blocks: list[Any] = [np.empty((len(rows), 0))]
    for name, values in categories.items():
        blocks.append(pd.Index(values).get_indexer(pd.Index(rows.inputs[name])))
    return np.column_stack(blocks).astype(np.float32)
