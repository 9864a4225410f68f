"""Stage `lightgbm`: gradient-boosted trees, one booster per target.

Features: fingerprints and descriptors of molecules, TF-IDF of text, the competition's own numbers and categories.
The number of trees comes from a split inside the training rows; the booster is then fitted again on all of them.
Source: Ke et al., LightGBM, NeurIPS 2017.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split

from competition.errors import DataError
from competition.files import read_json, write_atomically, write_json
from competition.tables import Rows
from models.config import LightgbmStage
from models.features import molecule_features
from models.stage import Context

FEW = 20  # rows, below which a bag could be empty
INNER_SHARE = 0.2  # of the training rows, held back for the number of trees


class Lightgbm:
    """The stage; see `models.stage.FittedStage`."""

    def __init__(self, config: LightgbmStage, context: Context) -> None:
        self.config = config
        self.context = context

    def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
        """Fit the vectorisers, categories and boosters on the training rows alone."""
        assert train.y is not None
        words = {name: _fit_words(name, train.inputs[name], self.config.tfidf_features) for name in self.context.text}
        write_json(folder / "words.json", words)
        categories = {name: sorted(set(train.inputs[name])) for name in self.context.categorical}
        write_json(folder / "categories.json", categories)
        features = self._features(train, folder)
        n_trees = []
        for t in range(train.y.shape[1]):
            known = np.flatnonzero(~np.isnan(train.y[:, t]))
            if len(known) < 2:
                raise DataError(
                    f"target {self.context.targets[t]!r} must have labels among the training rows of every fold; "
                    "use fewer folds or folds.kind stratified."
                )
            booster = self._boost(features[known], train.y[known, t])
            write_atomically(folder / f"target_{t}.txt", booster.model_to_string())
            n_trees.append(booster.num_trees())
            self.context.progress(t + 1, train.y.shape[1])
        write_json(folder / "training.json", {"n_trees": n_trees, "n_features": int(features.shape[1])})

    def predict(self, rows: Rows, folder: Path) -> NDArray[np.float64]:
        """Predictions (n_rows, n_targets)."""
        features = self._features(rows, folder)
        boosters = [
            lightgbm.Booster(model_str=(folder / f"target_{t}.txt").read_text())
            for t in range(len(self.context.targets))
        ]
        return np.column_stack([booster.predict(features, num_threads=1) for booster in boosters])

    def _boost(self, x: Any, y: NDArray[np.float64]) -> lightgbm.Booster:
        """A booster on all rows, with as many trees as did best on an inner split; targets are standardised."""
        inner, outer = train_test_split(
            np.arange(len(y)), test_size=INNER_SHARE, random_state=self.context.seed % 2**31
        )
        parameters = self._parameters(len(y))
        categorical = self._categorical_columns(x.shape[1])

        def dataset(rows: NDArray[np.intp], reference: lightgbm.Dataset | None = None) -> lightgbm.Dataset:
            return lightgbm.Dataset(
                x[rows], y[rows], reference=reference, categorical_feature=categorical, params=parameters,
                free_raw_data=False,
            )  # fmt: skip

        inner_set = dataset(inner)
        search = lightgbm.train(
            parameters,
            inner_set,
            self.config.max_trees,
            valid_sets=[dataset(outer, inner_set)],
            callbacks=[lightgbm.early_stopping(self.config.patience, verbose=False)],
        )
        return lightgbm.train(parameters, dataset(np.arange(len(y))), max(search.best_iteration, 1))

    def _parameters(self, n_rows: int) -> dict[str, Any]:
        return {
            "objective": "regression",
            "learning_rate": self.config.learning_rate,
            "num_leaves": self.config.num_leaves,
            "min_data_in_leaf": min(self.config.min_data_in_leaf, max(1, n_rows // 20)),
            "feature_fraction": self.config.feature_fraction,
            "bagging_fraction": self.config.bagging_fraction if n_rows >= FEW else 1.0,
            "bagging_freq": 1,
            "lambda_l2": self.config.lambda_l2,
            "seed": self.context.seed % 2**31,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
            "verbosity": -1,
        }

    def _features(self, rows: Rows, folder: Path) -> Any:
        """Matrix (n_rows, n_features): dense without text, sparse with it; categories last, as codes."""
        dense: list[NDArray[np.float32]] = []
        for column in self.context.smiles:
            for cache in molecule_features(list(self.config.features), self.config.n_bits, self.context.cache):
                dense.append(np.concatenate(cache.load(list(rows.inputs[column]))[0]))
        if self.context.numeric:
            dense.append(rows.inputs[self.context.numeric].to_numpy(dtype=np.float32))
        stored = read_json(folder / "words.json")
        words = [_vectoriser(**stored[name]).transform(rows.inputs[name]) for name in self.context.text]
        categories = read_json(folder / "categories.json")
        codes = []
        for name in self.context.categorical:
            code_of = {value: code for code, value in enumerate(categories[name])}
            # LightGBM takes a negative code as missing: a category that no training row has.
            codes.append(
                rows.inputs[name]
                .map(lambda value, code_of=code_of: code_of.get(value, -1))
                .to_numpy(np.float32)[:, None]
            )
        if not words:
            return np.hstack(dense + codes)
        return sparse.hstack([*map(sparse.csr_matrix, dense), *words, *map(sparse.csr_matrix, codes)], format="csr")

    def _categorical_columns(self, n_features: int) -> list[int]:
        return list(range(n_features - len(self.context.categorical), n_features))


def _fit_words(name: str, texts: pd.Series, most: int) -> dict[str, Any]:
    """Words and word pairs of the training rows with their inverse document frequencies, as JSON."""
    vectoriser = _vectoriser(most=most)
    try:
        vectoriser.fit(texts)
    except ValueError:
        raise DataError(
            f"text column {name!r} must have words that two training rows of a fold share; it has none. "
            "Leave it out of competition.text, or the stage out of stages."
        ) from None
    return {"vocabulary": {word: int(i) for word, i in vectoriser.vocabulary_.items()}, "idf": vectoriser.idf_.tolist()}


def _vectoriser(
    vocabulary: dict[str, int] | None = None, idf: list[float] | None = None, most: int | None = None
) -> TfidfVectorizer:
    """A TF-IDF vectoriser to fit, or one with what was fitted before."""
    vectoriser = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, min_df=2, dtype=np.float32, max_features=most, vocabulary=vocabulary
    )
    if idf is not None:
        vectoriser.idf_ = np.array(idf, dtype=np.float32)
    return vectoriser
