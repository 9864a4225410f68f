"""Stage `sklearn`: any regressor of scikit-learn on the features of the trees, one per target.

All that is fitted (medians of missing numbers, ranges, words, categories, the regressor) is one scikit-learn pipeline.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.utils import get_tags

from competition.tables import Rows
from models.config import SklearnStage
from models.estimators import build_regressor, fit_targets, predict_targets
from models.inputs import fit_words, numbers_of, vectoriser
from models.stage import Context


class Sklearn:
    """The stage; see `models.stage.FittedStage`."""

    def __init__(self, config: SklearnStage, context: Context) -> None:
        self.config = config
        self.context = context

    def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
        """Fit one pipeline per target on the training rows alone."""
        assert train.y is not None
        x = self._table(train)
        words = [fit_words(n, train.inputs[n], self.config.tfidf_features).vocabulary_ for n in self.context.text]
        vocabularies = [{word: int(i) for word, i in vocabulary.items()} for vocabulary in words]
        fit_targets(
            lambda: self._pipeline(x.shape[1], vocabularies), x, train.y, train.weights, folder, self.context.targets
        )

    def predict(self, rows: Rows, folder: Path) -> NDArray[np.float64]:
        """Predictions (n_rows, n_targets)."""
        return predict_targets(self._table(rows), folder)

    def _table(self, rows: Rows) -> pd.DataFrame:
        """One row each: numbers, then text, then categories, named by their positions."""
        table = pd.concat(
            [
                pd.DataFrame(numbers_of(rows, self.config, self.context)),
                rows.inputs[[*self.context.text, *self.context.categorical]].reset_index(drop=True),
            ],
            axis=1,
        )
        return table.set_axis([str(i) for i in range(table.shape[1])], axis=1)

    def _pipeline(self, n_columns: int, vocabularies: list[dict[str, int]]) -> Pipeline:
        columns = [str(i) for i in range(n_columns)]
        n_numbers = n_columns - len(self.context.text) - len(self.context.categorical)
        numbers, others = columns[:n_numbers], columns[n_numbers:]
        texts, categories = others[: len(self.context.text)], others[len(self.context.text) :]
        # A descriptor far outside the training range would throw a linear model off: it is cut to that range.
        scaled = make_pipeline(
            SimpleImputer(strategy="median", keep_empty_features=True), MinMaxScaler(clip=True), StandardScaler()
        )
        regressor = build_regressor(self.config.regressor, self.config.parameters, self.context.seed)
        takes_sparse = bool(texts) and get_tags(regressor).input_tags.sparse
        parts: list[tuple[str, Any, Any]] = [
            ("numbers", scaled, numbers),
            ("categories", OneHotEncoder(handle_unknown="ignore"), categories),
        ]
        parts += [
            (f"words_{column}", vectoriser(vocabulary=vocabulary), column)
            for column, vocabulary in zip(texts, vocabularies, strict=True)
        ]
        features = ColumnTransformer(parts, sparse_threshold=float(takes_sparse))
        return Pipeline([("features", features), ("regressor", regressor)])
