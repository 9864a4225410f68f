"""Stage `sklearn`: any regressor of scikit-learn on the features of the trees, one per target.

All that is fitted (medians of missing numbers, ranks, ranges, words, categories, the regressor) is one pipeline.
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
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, QuantileTransformer, StandardScaler
from sklearn.utils import get_tags

from competition.tables import Rows
from models.config import SklearnStage
from models.inputs.matrix import fit_words, molecule_numbers, vectoriser
from models.stage import Context
from models.stages.estimators import build_regressor, fit_targets, predict_targets

QUANTILES = 200  # by which the ranks of a molecule's features are told


class Sklearn:
    """The stage; see `models.stage.FittedStage`."""

    def __init__(self, config: SklearnStage, context: Context) -> None:
        self.config = config
        self.context = context

    def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
        """Fit one pipeline per target on the training rows alone."""
        assert train.y is not None
        x = self._table(train)
        most = self.config.tfidf_features
        vocabularies = [fit_words(name, train.inputs[name], most).vocabulary_ for name in self.context.text]
        n_quantiles = min(QUANTILES, int((~np.isnan(train.y)).sum(axis=0).min()))

        def pipeline() -> Pipeline:
            return self._pipeline(list(x.columns), vocabularies, n_quantiles)

        fit_targets(pipeline, x, train.y, train.weights, folder, self.context.task.targets)

    def predict(self, rows: Rows, folder: Path) -> NDArray[np.float64]:
        """Predictions (n_rows, n_targets)."""
        return predict_targets(self._table(rows), folder)

    def _table(self, rows: Rows) -> pd.DataFrame:
        """Columns by their role and position: molecule_0, ..., number_0, ..., text_0, ..., category_0, ..."""
        context = self.context
        parts = [pd.DataFrame(molecule_numbers(rows, self.config, context)).add_prefix("molecule_")]
        for role, names in (("number", context.numeric), ("text", context.text), ("category", context.categorical)):
            part = rows.inputs[names].reset_index(drop=True)
            parts.append(part.set_axis([f"{role}_{i}" for i in range(len(names))], axis=1))
        return pd.concat(parts, axis=1)

    def _pipeline(self, columns: list[str], vocabularies: list[dict[str, int]], n_quantiles: int) -> Pipeline:
        roles = ("molecule_", "number_", "text_", "category_")
        molecules, numbers, texts, categories = ([c for c in columns if c.startswith(role)] for role in roles)
        regressor = build_regressor(self.config.regressor, self.config.parameters, self.context.seed)
        seed = self.context.seed % 2**31
        parts: list[tuple[str, Any, Any]] = [
            # Ranks: standardised, the few molecules that have a rare bit would be far from all others.
            (
                "molecules",
                make_pipeline(_filled(), QuantileTransformer(n_quantiles=n_quantiles, random_state=seed)),
                molecules,
            ),
            # Cut to the training range, since a number far outside would throw a linear model off.
            ("numbers", make_pipeline(_filled(), MinMaxScaler(clip=True), StandardScaler()), numbers),
            ("categories", OneHotEncoder(handle_unknown="ignore"), categories),
        ]
        parts += [
            (column, vectoriser(vocabulary=vocabulary), column)
            for column, vocabulary in zip(texts, vocabularies, strict=True)
        ]
        takes_sparse = bool(texts) and get_tags(regressor).input_tags.sparse
        features = ColumnTransformer(parts, sparse_threshold=float(takes_sparse))
        return Pipeline([("features", features), ("regressor", regressor)])


def _filled() -> SimpleImputer:
    return SimpleImputer(strategy="median", keep_empty_features=True)
