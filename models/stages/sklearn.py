"""Stage `sklearn`: any estimator of scikit-learn's form on the features of the trees, one per target.

All that is fitted (medians of missing numbers, ranks, ranges, words, categories, the estimator) is one pipeline.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, QuantileTransformer, StandardScaler
from sklearn.utils import get_tags

from competition.tables import Rows
from models.inputs import blocks
from models.stages.per_target import Estimators

QUANTILES = 200  # by which the ranks of a molecule's features are told


class Sklearn(Estimators):
    """The stage; its features are a table, each column named by its block and its number or name."""

    def _learn(self, train: Rows, folder: Path) -> None:
        blocks.learn_encoders(train, self.config, self.context, folder)
        self.words = blocks.learn_words(train, self.config.tfidf_features, self.context)
        self.n_quantiles = min(QUANTILES, int((~np.isnan(train.y)).sum(axis=0).min()))

    def _features(self, rows: Rows, folder: Path) -> pd.DataFrame:
        parts = {
            "molecule": pd.DataFrame(blocks.molecules(rows, self.config, self.context)),
            "encoder": pd.DataFrame(blocks.encoded(rows, self.config, self.context, folder)),
            "number": pd.DataFrame(blocks.numbers(rows, self.context)),
            "text": rows.inputs[self.context.text].reset_index(drop=True),
            "category": rows.inputs[self.context.categorical].reset_index(drop=True),
        }
        return pd.concat([part.add_prefix(f"{block} ") for block, part in parts.items()], axis=1)

    def _pipeline(self, x: pd.DataFrame, estimator: Any) -> Pipeline:
        filled = SimpleImputer(strategy="median", keep_empty_features=True)
        quantiles = QuantileTransformer(n_quantiles=self.n_quantiles, random_state=self.seed)
        parts = [
            # Ranks: standardised, the few molecules that have a rare bit would be far from all others.
            ("molecule", make_pipeline(filled, quantiles)),
            ("encoder", StandardScaler()),
            # Cut to the training range, since a number far outside would throw a linear model off.
            ("number", make_pipeline(filled, MinMaxScaler(clip=True), StandardScaler())),
            ("category", OneHotEncoder(handle_unknown="ignore")),
        ]
        columns = [
            (block, part, [name for name in map(str, x) if name.startswith(f"{block} ")]) for block, part in parts
        ]
        texts = [
            (name, blocks.vectoriser(vocabulary=known["vocabulary"]), f"text {name}")
            for name, known in self.words.items()
        ]
        takes_sparse = bool(texts) and "." not in self.named and get_tags(estimator).input_tags.sparse
        features = ColumnTransformer([*columns, *texts], sparse_threshold=float(takes_sparse))
        return Pipeline([("features", features), ("estimator", estimator)])
