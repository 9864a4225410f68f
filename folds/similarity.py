"""How near held-out rows are to the rows they are predicted from, and how near test rows are to the training rows.

A kind of folds imitates the competition where the two distributions agree, which their Wasserstein distance measures.
Source: Linnenbrink, Mila, Ludwig and Meyer, "kNNDM CV", Geoscientific Model Development 2024.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rdkit.DataStructs import BulkTanimotoSimilarity
from scipy.stats import wasserstein_distance

from competition.config import CompetitionConfig
from folds.groups import fingerprint

Array = NDArray[np.float64]
QUERIES = 2_000
"""Most rows of a table whose nearest training row is looked for."""


@dataclass(frozen=True)
class Similarity:
    """Similarities to the nearest training row, from 0 to 1.

    measure: what they are, in words.
    test: (n_queries,), of test rows to all training rows.
    held_out: kind of folds -> (n_queries,), of training rows to those of other folds.
    """

    measure: str
    test: Array
    held_out: dict[str, Array]

    def distance(self, kind: str) -> float:
        """Wasserstein distance of held-out rows to test rows, from 0 to 1: 0 where folds of a kind imitate the test."""
        return float(wasserstein_distance(self.held_out[kind], self.test))


def similarities(
    train: pd.DataFrame, test: pd.DataFrame, competition: CompetitionConfig, folds: dict[str, NDArray[np.int64]]
) -> list[Similarity]:
    """Of molecules by the Tanimoto similarity of their Morgan fingerprints, those of several columns side by side; of
    text by the cosine of TF-IDF vectors of 2 to 4 characters, which serve every language.

    Args:
        train, test: rows of the prepared tables; of the training rows, `QUERIES` are looked at as held-out ones.
        folds: kind of folds -> (n_train,).
    """
    found = []
    if competition.smiles:
        columns = (table[competition.smiles].itertuples(index=False) for table in (train, test))
        prints, asked = ([reduce(operator.add, map(fingerprint, row)) for row in table] for table in columns)
        tanimoto = _nearest(prints, asked, lambda query: np.array(BulkTanimotoSimilarity(query, prints)), folds)
        found.append(Similarity("Tanimoto similarity, Morgan radius 2", *tanimoto))
    if competition.text:
        from sklearn.feature_extraction.text import TfidfVectorizer

        text = pd.concat([train, test])[competition.text].agg(" ".join, axis=1)
        vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, max_features=50_000)
        vectors = vectorizer.fit_transform(text)
        rows, of_train = list(vectors), vectors[: len(train)].T.tocsr()
        cosine = _nearest(rows[: len(train)], rows[len(train) :], lambda row: (row @ of_train).toarray()[0], folds)
        found.append(Similarity("cosine of TF-IDF, 2 to 4 characters", *cosine))
    return found


def _nearest(
    train: list[Any], test: list[Any], similar: Callable[[Any], Array], folds: dict[str, NDArray[np.int64]]
) -> tuple[Array, dict[str, Array]]:
    """The similarity of test rows and of a sample of training rows to their nearest training row, of other folds."""
    held_out: dict[str, list[float]] = {kind: [] for kind in folds}
    for i in np.random.default_rng(0).permutation(len(train))[:QUERIES]:
        found = similar(train[i])
        for kind, fold in folds.items():
            if fold[i] >= 0:
                trains = fold < fold[i] if kind == "time" else fold != fold[i]
                held_out[kind].append(found[trains].max(initial=0.0))
    return np.array([similar(query).max() for query in test]), {k: np.array(v) for k, v in held_out.items()}
