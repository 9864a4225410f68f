"""N-grams of the text columns, of words and of characters, as features of trees and of regressors."""

import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from competition.dataset import Dataset
from core.words import WORD_OF_TWO
from models.context import Context
from models.job_folder import write_notes

N_RANGES = {"word": (1, 2), "char_wb": (1, 3)}
"""Analyzer of scikit-learn -> smallest and largest n of its n-grams. N-grams of characters, within words,
read misspellings, emojis and scripts without blanks.
"""
MAX_CHARACTERS = 20_000_000
"""Approximate number of characters of a column that n-grams are chosen by, which takes half a gigabyte."""
NGrams = tuple[str, dict[str, Any]]
"""Text column, and settings of a vectorizer of scikit-learn, with the vocabulary."""


def fit_ngrams(train: Dataset, max_features: int, context: Context, folder: Path) -> list[NGrams]:
    """Return the n-grams of each text column that features are made of, by column and analyzer.

    A note names the columns without n-grams, which are not used.

    Args:
        train: training rows. An n-gram counts if at least two of the rows that are read contain it; of a long table
            every k-th row is read.
        max_features: maximum number of n-grams per column and analyzer, the most frequent first; 0: no
            column is used.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    fitted: list[NGrams] = []
    for name, analyzer in product(context.text if max_features else (), N_RANGES):
        settings: Any = {"analyzer": analyzer, "ngram_range": N_RANGES[analyzer]}
        if analyzer == "word":
            settings["token_pattern"] = WORD_OF_TWO
        vectorizer = CountVectorizer(**settings, min_df=2, max_features=max_features)
        texts = train.inputs[name]
        step = max(1, math.ceil(texts.str.len().sum() / MAX_CHARACTERS))
        try:
            counts = vectorizer.fit_transform(texts[::step])
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
    """Return the counts of the n-grams of `fit_ngrams` in the texts of rows, (n_rows, n_ngrams), sparse."""
    from scipy import sparse
    from sklearn.feature_extraction.text import CountVectorizer

    blocks = [sparse.csr_matrix((len(rows), 0), dtype=np.float32)]
    for name, settings in fitted:
        blocks.append(CountVectorizer(**settings, dtype=np.float32).transform(rows.inputs[name]))
    return sparse.hstack(blocks, format="csr")
