"""How near held-out rows are to the rows they are predicted from, and how near test rows are to the training rows.

A kind of folds imitates the competition where the two distributions agree, which their Wasserstein distance measures.
Source: Linnenbrink, Mila, Ludwig and Meyer, "kNNDM CV", Geoscientific Model Development 2024.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import wasserstein_distance
from tqdm import tqdm

from folds.groups import fingerprint

Array = NDArray[np.float64]
QUERIES = 2_000
"""Most rows of a table whose nearest training row is looked for."""
CHUNK = 200


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


def molecule_similarity(
    train: pd.DataFrame, test: pd.DataFrame, smiles: list[str], folds: dict[str, NDArray[np.int64]], seed: int
) -> Similarity:
    """Tanimoto similarity of Morgan fingerprints; those of several molecule columns are put side by side.

    Args:
        train, test: prepared tables.
        smiles: molecule columns.
        folds: kind of folds -> (n_train,).
        seed: of the sample of held-out rows.
    """

    def prints(table: pd.DataFrame) -> sparse.csr_array:
        columns = []
        for name in smiles:
            codes, distinct = pd.factorize(table[name])
            bits = sparse.csr_array(np.array([list(fingerprint(text)) for text in distinct], dtype=np.float32))
            columns.append(bits[codes])
        return sparse.hstack(columns, format="csr")

    return _nearest("Tanimoto similarity, Morgan radius 2", prints(train), prints(test), folds, seed, tanimoto=True)


def text_similarity(
    train: pd.DataFrame, test: pd.DataFrame, text: list[str], folds: dict[str, NDArray[np.int64]], seed: int
) -> Similarity:
    """Cosine of TF-IDF vectors of 2 to 4 characters, which serve every language; the arguments are those above."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    joined = pd.concat([table[text].agg(" ".join, axis=1) for table in (train, test)])
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, max_features=50_000)
    vectors = sparse.csr_array(vectorizer.fit_transform(joined))
    train_vectors, test_vectors = vectors[: len(train)], vectors[len(train) :]
    return _nearest("cosine of TF-IDF, 2 to 4 characters", train_vectors, test_vectors, folds, seed, tanimoto=False)


def _nearest(
    measure: str,
    train: sparse.csr_array,
    test: sparse.csr_array,
    folds: dict[str, NDArray[np.int64]],
    seed: int,
    tanimoto: bool,
) -> Similarity:
    """The similarity of test rows and of a sample of training rows to their nearest training row."""
    n_bits = train.sum(axis=1)

    def similar(queries: sparse.csr_array) -> Array:
        shared = (queries @ train.T).toarray()
        return shared / (queries.sum(axis=1)[:, None] + n_bits - shared) if tanimoto else shared

    sample = np.sort(np.random.default_rng(seed).permutation(train.shape[0])[:QUERIES])
    held_out: dict[str, list[Array]] = {kind: [] for kind in folds}
    for start in tqdm(range(0, len(sample), CHUNK), desc="held-out rows", leave=False, disable=None):
        rows = sample[start : start + CHUNK]
        found = similar(train[rows])
        for kind, fold in folds.items():
            own = fold[rows, None]
            trains = fold < own if kind == "time" else fold != own
            held_out[kind].append(np.where(trains, found, 0.0).max(axis=1)[fold[rows] >= 0])
    of_test = [similar(test[i : i + CHUNK]).max(axis=1) for i in range(0, test.shape[0], CHUNK)]
    return Similarity(measure, np.concatenate(of_test), {kind: np.concatenate(v) for kind, v in held_out.items()})
