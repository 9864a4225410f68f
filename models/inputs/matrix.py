"""What a stage without a neural encoder sees of a row: numbers, words and categories.

Molecules become numbers (`models/inputs/features.py`), text becomes TF-IDF of words and word pairs. What is fitted, is
fitted on the training rows and stored as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from competition.errors import DataError
from competition.files import read_json, write_json
from competition.tables import Rows
from models.config import FeatureStage
from models.inputs.features import stage_features
from models.stage import Context


@dataclass(frozen=True)
class Inputs:
    """Encoded rows.

    numbers: (n_rows, n_numbers) features of molecules and the competition's own; NaN: missing.
    words: (n_rows, n_words) TF-IDF; no columns without text.
    codes: (n_rows, n_categorical) integers; -1: a category that no training row has.
    """

    numbers: NDArray[np.float32]
    words: sparse.csr_matrix
    codes: NDArray[np.int64]

    def take(self, rows: NDArray[np.intp]) -> Inputs:
        """Rows at positions, in that order."""
        return Inputs(self.numbers[rows], self.words[rows], self.codes[rows])


def fit_inputs(train: Rows, config: FeatureStage, context: Context, folder: Path) -> Inputs:
    """The training rows, encoded; words and categories are written to `folder`.

    Raises:
        DataError: if no two training rows share a word of a text column.
    """
    words = {}
    for name in context.text:
        fitted = fit_words(name, train.inputs[name], config.tfidf_features)
        words[name] = {"vocabulary": fitted.vocabulary_, "idf": fitted.idf_.tolist()}
    write_json(folder / "words.json", words)
    categories = {name: sorted(set(train.inputs[name])) for name in context.categorical}
    write_json(folder / "categories.json", categories)
    return read_inputs(train, config, context, folder)


def read_inputs(rows: Rows, config: FeatureStage, context: Context, folder: Path) -> Inputs:
    """Rows, encoded by the words and categories in `folder`."""
    stored = read_json(folder / "words.json")
    words = [_stored_vectoriser(**stored[name]).transform(rows.inputs[name]) for name in context.text]
    categories = read_json(folder / "categories.json")
    codes = np.empty((len(rows), len(context.categorical)), dtype=np.int64)
    for i, name in enumerate(context.categorical):
        code_of = {value: code for code, value in enumerate(categories[name])}
        codes[:, i] = [code_of.get(value, -1) for value in rows.inputs[name]]
    empty = sparse.csr_matrix((len(rows), 0), dtype=np.float32)
    own = rows.inputs[context.numeric].to_numpy(dtype=np.float32)
    numbers = np.hstack([molecule_numbers(rows, config, context), own])
    return Inputs(numbers, sparse.hstack([empty, *words], format="csr"), codes)


def molecule_numbers(rows: Rows, config: FeatureStage, context: Context) -> NDArray[np.float32]:
    """Features of each molecule column, (n_rows, n_numbers); NaN where one is not defined."""
    parts: list[NDArray[np.float32]] = [np.empty((len(rows), 0), dtype=np.float32)]
    for column in context.smiles:
        for cache in stage_features(config, context.cache):
            parts.append(np.concatenate(cache.load(rows.inputs[column])[0]))
    return np.hstack(parts)


def vectoriser(**settings: Any) -> TfidfVectorizer:
    """TF-IDF of words and word pairs, to fit."""
    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32, **settings)


def fit_words(name: str, texts: pd.Series, most: int) -> TfidfVectorizer:
    """Words and word pairs that two training rows share, at most `most`, the frequent ones first.

    Raises:
        DataError: if there are none.
    """
    fitted = vectoriser(min_df=2, max_features=most)
    try:
        fitted.fit(texts)
    except ValueError:
        raise DataError(
            f"text column {name!r} must have words that two training rows of a fold share; it has none. "
            "Leave it out of competition.text, or the stage out of stages."
        ) from None
    fitted.vocabulary_ = {word: int(i) for word, i in fitted.vocabulary_.items()}  # as JSON has them
    return fitted


def _stored_vectoriser(vocabulary: dict[str, int], idf: list[float]) -> TfidfVectorizer:
    stored = vectoriser(vocabulary=vocabulary)
    stored.idf_ = np.array(idf, dtype=np.float32)
    return stored
