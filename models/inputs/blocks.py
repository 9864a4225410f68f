"""Feature blocks: what a row is for trees, for regressors, and for the head of a network.

A block is one function from rows to a matrix with a row for each of them. What a block learns, it learns from the
training rows alone, as JSON for the folder of the job.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from competition.errors import ConfigError, DataError
from competition.files import read_json, write_json
from competition.tables import Rows
from competition.types import Array
from models.inputs.features import stage_features
from models.inputs.frozen import encoder_cache, text_encoders
from models.inputs.template import SEPARATOR, read_template
from models.inputs.weights import digest_of_weights, reads_graphs
from models.settings import Stage
from models.stage import Context, write_notes

COLUMNS, ENCODERS = "columns.json", "encoders.json"
LEAST = 1e-25
"""Standard deviation that no unit makes: a pooled value of a dead neuron has it."""
FURTHEST = 5.0
"""Standard deviations from the mean at which a value is cut: one odd number must not outweigh all pooled features."""


def molecules(rows: Rows, config: Stage, context: Context) -> NDArray[np.float32]:
    """Features of each molecule column, (n_rows, n_features); NaN where one is not defined."""
    caches = stage_features(config, context)
    parts = [np.concatenate(cache.load(rows.inputs[column])) for column in context.smiles for cache in caches]
    return np.hstack([np.empty((len(rows), 0), dtype=np.float32), *parts])


def numbers(rows: Rows, context: Context) -> Array:
    """The competition's numbers and the features of the user's own, (n_rows, n_numeric); NaN where one is missing."""
    return rows.inputs[context.numeric].to_numpy(dtype=np.float64)


def learn_encoders(train: Rows, config: Stage, context: Context, folder: Path) -> None:
    """Write the digests of a stage's encoders, which prediction asks for again, and a note of texts that were cut."""
    notes = list[str]()
    for encoder in text_encoders(config):
        template = read_template(encoder, context)
        found = encoder_cache(encoder, context.cache).load(template.texts(train.inputs, SEPARATOR))
        counts = np.concatenate(found)[:, -3:].astype(np.int64)
        n_tokens, n_unknown, n_cut = counts.sum(axis=0)
        notes += template.notes(encoder, n_unknown / n_tokens, n_cut, len(train), counts[:, 0].max())
    if notes:
        write_notes(folder, notes)
    if config.encoders:
        write_json(folder / ENCODERS, [digest_of_weights(encoder.weights) for encoder in config.encoders])


def encoded(rows: Rows, config: Stage, context: Context, folder: Path) -> NDArray[np.float32]:
    """Pooled features of the encoders of texts, (n_rows, n_features); those of message passing are of `molecules`.

    Raises:
        ConfigError: the files of an encoder are not those of the training.
    """
    parts: list[NDArray[np.float32]] = [np.empty((len(rows), 0), dtype=np.float32)]
    for encoder, trained in zip(config.encoders, read_json(folder / ENCODERS) if config.encoders else (), strict=True):
        cache = encoder_cache(encoder, context.cache)
        if cache.settings["weights"] != trained:  # a run that predicts new rows plans no jobs anew
            raise ConfigError(
                f"the files of the weights {encoder.weights!r} are not those that {folder} was trained with. "
                "Put those back, or train again."
            )
        if not reads_graphs(encoder.weights):
            texts = read_template(encoder, context).texts(rows.inputs, SEPARATOR)
            parts.append(np.concatenate(cache.load(texts))[:, :-3])
    return np.hstack(parts)


def vectoriser(**settings: Any) -> TfidfVectorizer:
    """TF-IDF of words and word pairs, to fit."""
    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32, **settings)


def learn_words(train: Rows, most: int, context: Context) -> dict[str, dict[str, list[Any]]]:
    """For each text column the words and word pairs that two training rows share, at most the `most` frequent ones."""
    learned = {}
    for name in context.text if most else ():
        fitted = vectoriser(min_df=2, max_features=most)
        try:
            fitted.fit(train.inputs[name])
        except ValueError:
            raise DataError(
                f"the text column {name!r} has no word that two training rows of a fold share; "
                "leave it out of competition.text, or the stage out of stages."
            ) from None
        learned[name] = {"vocabulary": fitted.get_feature_names_out().tolist(), "idf": fitted.idf_.tolist()}
    return learned


def words(rows: Rows, learned: dict[str, dict[str, list[Any]]]) -> sparse.csr_matrix:
    """TF-IDF of each text column, (n_rows, n_words)."""
    parts = [sparse.csr_matrix((len(rows), 0), dtype=np.float32)]
    for name, of_column in learned.items():
        fitted = vectoriser(vocabulary=of_column["vocabulary"])
        fitted.idf_ = np.array(of_column["idf"], dtype=np.float32)
        parts.append(fitted.transform(rows.inputs[name]))
    return sparse.hstack(parts, format="csr")


def learn_categories(train: Rows, columns: list[str]) -> dict[str, list[str]]:
    """The values of each categorical column."""
    return {name: sorted(set(train.inputs[name])) for name in columns}


def codes(rows: Rows, learned: dict[str, list[str]]) -> NDArray[np.float32]:
    """The number of each category, (n_rows, n_categorical); -1 for one that no training row has."""
    found = [pd.Index(known).get_indexer(pd.Index(rows.inputs[name])) for name, known in learned.items()]
    return np.column_stack([np.empty((len(rows), 0)), *found]).astype(np.float32)


def fit_columns(train: Rows, config: Any, context: Context, folder: Path) -> None:
    """Learn and write the means, standard deviations and categories of `read_columns`."""
    values = _numbers_of(train, config, context)
    known = np.ma.masked_invalid(values)
    mean, scale = known.mean(axis=0).filled(0.0), known.std(axis=0).filled(0.0)  # 0 for a column without any number
    stored = {"mean": mean.tolist(), "scale": np.where(scale > LEAST + 1e-9 * np.abs(mean), scale, 1.0).tolist()}
    stored["gaps"] = np.isnan(values).any(axis=0).tolist()
    stored["categories"] = learn_categories(train, context.categorical if config.columns_before_head else [])
    write_json(folder / COLUMNS, stored)


def read_columns(rows: Rows, config: Any, context: Context, folder: Path) -> NDArray[np.float32]:
    """What joins a network before its head, or the features of an encoder, (n_rows, n_columns).

    Standardised numbers and features, the mean where one is missing; 1 where one is missing, for columns with gaps in
    training; one-hot categories, all zeros for an unseen one.
    """
    stored, values = read_json(folder / COLUMNS), _numbers_of(rows, config, context)
    standardised = np.clip((values - stored["mean"]) / stored["scale"], -FURTHEST, FURTHEST)
    parts = [np.nan_to_num(standardised), np.isnan(values)[:, np.array(stored["gaps"], dtype=bool)]]
    of_row = codes(rows, stored["categories"])
    parts += [of_row[:, [i]] == range(len(known)) for i, known in enumerate(stored["categories"].values())]
    return np.hstack(parts).astype(np.float32)


def _numbers_of(rows: Rows, config: Any, context: Context) -> Array:
    own = numbers(rows, context) if config.columns_before_head else np.empty((len(rows), 0))
    return np.hstack([own, molecules(rows, config, context)])
