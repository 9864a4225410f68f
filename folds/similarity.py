"""How near held-out rows are to the rows they are predicted from, and how near test rows are to the training
rows.

A kind of folds imitates the competition where the two distributions agree, which their Wasserstein distance
measures. Source: Linnenbrink, Mila, Ludwig and Meyer, "kNNDM CV", Geoscientific Model Development 2024.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pandas as pd
from rdkit.DataStructs import BulkTanimotoSimilarity
from scipy.stats import wasserstein_distance

from competition.config import CompetitionConfig
from competition.types import Array, Integers
from folds.groups import fingerprint

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
        """Wasserstein distance of held-out rows to test rows, from 0 to 1: 0 where folds of a kind imitate
        the test.
        """
        return float(wasserstein_distance(self.held_out[kind], self.test))


def similarities(
    train: pd.DataFrame, test: pd.DataFrame, competition: CompetitionConfig, folds: dict[str, Integers]
) -> list[Similarity]:
    """Of molecules by the Tanimoto similarity of their Morgan fingerprints, those of several columns side by
    side; of text by the cosine of TF-IDF vectors of 2 to 4 characters, which serve every language.

    Args:
        train, test: rows of the prepared tables; of the training rows, `QUERIES` are looked at as held-out
        ones.
        folds: kind of folds -> (n_train,).
    """
    rows, n = pd.concat([train, test]), len(train)
    measures: dict[str, Callable[[int], Array]] = {}  # of a row of either table to every training row
    if competition.smiles:
        molecules = rows[competition.smiles].itertuples(index=False)
        prints = [reduce(operator.add, map(fingerprint, row)) for row in molecules]
        of_train = prints[:n]
        measures["Tanimoto similarity, Morgan radius 2"] = lambda i: np.array(
            BulkTanimotoSimilarity(prints[i], of_train)
        )
    if competition.text:
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(
            analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, max_features=50_000
        )
        vectors = vectorizer.fit_transform(rows[competition.text].agg(" ".join, axis=1))
        columns = vectors[:n].T.tocsr()
        measures["cosine of TF-IDF, 2 to 4 characters"] = lambda i: (vectors[i] @ columns).toarray()[0]
    asked, found = np.random.default_rng(0).permutation(n)[:QUERIES], []
    for measure, similar in measures.items():
        held_out: dict[str, list[float]] = {kind: [] for kind in folds}
        for i in asked:
            near = similar(i)
            for kind, fold in folds.items():
                if fold[i] >= 0:
                    trains = fold < fold[i] if kind == "time" else fold != fold[i]
                    held_out[kind].append(near[trains].max(initial=0.0))
        of_test = np.array([similar(i).max() for i in range(n, len(rows))])
        found.append(
            Similarity(measure, of_test, {kind: np.array(values) for kind, values in held_out.items()})
        )
    return found
