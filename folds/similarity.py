"""Similarity of held-out rows and of test rows to the rows that they are predicted from.

Folds imitate the competition if the two distributions agree, which their Wasserstein distance measures.
Source: Linnenbrink, Mila, Ludwig and Meyer, "kNNDM CV", Geoscientific Model Development 2024.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pandas as pd
from rdkit.DataStructs import BulkTanimotoSimilarity

from competition.config import CompetitionConfig
from core.types import Array, Integers
from folds.groups import fingerprint
from folds.kinds import fold_kind
from folds.training_rows import trains_fold

MAX_TRAIN_ROWS = 20_000
"""Number of training rows among which callers let the nearest one be searched."""
MAX_QUERIES = 2_000
"""Number of rows of a table for which the nearest training row is searched."""


@dataclass(frozen=True)
class Similarity:
    """Similarities to the nearest training row, from 0 to 1.

    Attributes:
        measure: name of the similarity.
        test: (n_queries,) similarity of test rows to all training rows.
        held_out: kind of folds -> (n_queries,) similarity of training rows to the rows of other folds; no
            entry without a held-out row among those that are compared.
    """

    measure: str
    test: Array
    held_out: dict[str, Array]

    def distance(self, kind: str) -> float:
        """Return the Wasserstein distance of held-out rows to test rows, from 0 to 1."""
        from scipy.stats import wasserstein_distance

        return float(wasserstein_distance(self.held_out[kind], self.test))


def similarities(
    train: pd.DataFrame, test: pd.DataFrame, competition: CompetitionConfig, folds: dict[str, Integers]
) -> list[Similarity]:
    """Return the similarities by molecules, by texts, or both.

    The similarity of molecules is Tanimoto's of their Morgan fingerprints, concatenated over columns. The
    similarity of texts is the cosine of TF-IDF vectors of 2 to 4 characters, which work for every language.

    Args:
        train: prepared training rows; at most `MAX_QUERIES` are taken as held-out rows.
        test: prepared test rows.
        folds: kind of folds -> (n_train,).
    """
    n = len(train)
    n_rows = n + len(test)
    queries = np.random.default_rng(0).permutation(n)[:MAX_QUERIES]
    results = []
    for measure, similarity_to_train in _measures(train, test, competition).items():
        held_out: dict[str, list[float]] = {kind: [] for kind in folds}
        for i in queries:
            similarity = similarity_to_train(i)
            for kind, fold in folds.items():
                if fold[i] >= 0:
                    held_out[kind].append(_nearest(similarity, fold, fold[i], kind))
        results.append(
            Similarity(
                measure=measure,
                test=np.array([similarity_to_train(i).max() for i in range(n, n_rows)]),
                held_out={kind: np.array(values) for kind, values in held_out.items() if values},
            )
        )
    return results


def _nearest(similarity: Array, folds: Integers, fold: int, kind: str) -> float:
    """Return the largest similarity (n_train,) to the training rows of the model of a fold."""
    is_train_row = trains_fold(folds, fold, fold_kind(kind).is_ordered_in_time)
    return float(similarity[is_train_row].max(initial=0.0))


def _measures(
    train: pd.DataFrame, test: pd.DataFrame, competition: CompetitionConfig
) -> dict[str, Callable[[int], Array]]:
    """Return a function per measure, from the number of a row to its similarities to all training rows.

    Test rows have the numbers after the training rows. The similarities are (n_train,).
    """
    rows = pd.concat([train, test])
    n = len(train)
    measures: dict[str, Callable[[int], Array]] = {}
    if competition.smiles:
        molecules = rows[competition.smiles].itertuples(index=False)
        prints = [reduce(operator.add, map(fingerprint, row)) for row in molecules]
        train_prints = prints[:n]
        measures["Tanimoto similarity, Morgan radius 2"] = lambda i: np.array(
            BulkTanimotoSimilarity(prints[i], train_prints)
        )
    if competition.text:
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(
            analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, max_features=50_000
        )
        vectors = vectorizer.fit_transform(rows[competition.text].agg(" ".join, axis=1))
        columns = vectors[:n].T.tocsr()
        measures["cosine of TF-IDF, 2 to 4 characters"] = lambda i: (vectors[i] @ columns).toarray()[0]
    return measures
