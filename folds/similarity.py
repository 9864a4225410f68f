"""How near held-out rows are to the rows they are predicted from, and how near test rows are to the training rows.

A fold scheme imitates the competition where the two distributions agree, which their Wasserstein distance measures.
Source: Linnenbrink, Mila, Ludwig and Meyer, "kNNDM CV", Geoscientific Model Development 2024.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rdkit.DataStructs import BulkTanimotoSimilarity
from tqdm import tqdm

from folds.units import fingerprint

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
        from scipy.stats import wasserstein_distance

        return float(wasserstein_distance(self.held_out[kind], self.test))


def molecule_similarity(
    train: pd.DataFrame, test: pd.DataFrame, smiles: list[str], folds: dict[str, NDArray[np.int64]], seed: int
) -> Similarity:
    """Tanimoto similarity of Morgan fingerprints; those of several molecule columns are put side by side.

    Args:
        train, test: prepared tables.
        smiles: molecule columns.
        folds: kind -> (n_train,).
        seed: of the sample.
    """
    prints = {text: fingerprint(text) for name in smiles for text in {*train[name], *test[name]}}

    def encoded(table: pd.DataFrame) -> list[Any]:
        first, *others = ([prints[text] for text in table[name]] for name in smiles)
        for other in others:
            first = [a + b for a, b in zip(first, other, strict=True)]
        return first

    references = encoded(train)
    return _similarity(
        "Tanimoto similarity, Morgan radius 2",
        references,
        encoded(test),
        lambda bits: np.array(BulkTanimotoSimilarity(bits, references)),
        folds,
        seed,
    )


def text_similarity(
    train: pd.DataFrame, test: pd.DataFrame, text: list[str], folds: dict[str, NDArray[np.int64]], seed: int
) -> Similarity:
    """Cosine of TF-IDF vectors of 2 to 4 characters, which serve every language; the arguments are those above."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    joined = [table[text].agg(" ".join, axis=1) for table in (train, test)]
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, max_features=50_000)
    vectors = vectorizer.fit(pd.concat(joined)).transform(pd.concat(joined)).tocsr()
    references = vectors[: len(train)]
    return _similarity(
        "cosine of TF-IDF, 2 to 4 characters",
        references,
        vectors[len(train) :],
        lambda vector: (references @ vector.T).toarray().ravel(),
        folds,
        seed,
    )


def _similarity(
    measure: str,
    train: Any,
    test: Any,
    similar: Callable[[Any], Array],
    folds: dict[str, NDArray[np.int64]],
    seed: int,
) -> Similarity:
    """The nearest training row of test rows and of a sample of training rows; `similar` compares a row to them all."""
    held_out: dict[str, list[float]] = {kind: [] for kind in folds}
    n_train = len(next(iter(folds.values())))
    sample = np.sort(np.random.default_rng(seed).permutation(n_train)[:QUERIES])
    for i in tqdm(sample, desc="held-out rows", leave=False, disable=None):
        found = similar(train[i])
        for kind, of_row in folds.items():
            if of_row[i] >= 0:
                trains = of_row < of_row[i] if kind == "time" else of_row != of_row[i]
                held_out[kind].append(float(found[trains].max()))
    to_test = [float(similar(row).max()) for row in tqdm(test, desc="test rows", leave=False, disable=None)]
    return Similarity(measure, np.array(to_test), {kind: np.array(values) for kind, values in held_out.items()})
