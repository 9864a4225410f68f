"""Stage `sklearn`: any estimator of scikit-learn's form on the features of the trees, one per target.

What makes its features (medians of missing numbers, ranks, ranges, words, categories) is fitted once for all targets.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, QuantileTransformer, StandardScaler
from sklearn.utils import get_tags

from competition.files import write_atomically
from competition.tables import Rows
from models.inputs import blocks
from models.stages.estimator_files import as_bytes, from_bytes
from models.stages.per_target import Estimators

FEATURES = "features.skops"
QUANTILES = 200  # by which the ranks of a molecule's features are told


class Sklearn(Estimators):
    """The stage."""

    def _learn(self, train: Rows, folder: Path) -> None:
        blocks.learn_encoders(train, self.config, self.context, folder)
        words = blocks.learn_words(train, self.config.tfidf_features, self.context)
        x = self._table(train, folder)
        filled = SimpleImputer(strategy="median", keep_empty_features=True)
        quantiles = QuantileTransformer(n_quantiles=min(QUANTILES, len(train)), random_state=self.seed)
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
            (name, blocks.vectoriser(vocabulary=known["vocabulary"]), f"text {name}") for name, known in words.items()
        ]
        estimator = self._named.build()
        takes_sparse = bool(texts) and "." not in self.named and get_tags(estimator).input_tags.sparse
        features = ColumnTransformer([*columns, *texts], sparse_threshold=float(takes_sparse)).fit(x)
        write_atomically(folder / FEATURES, as_bytes(features))

    def _features(self, rows: Rows, folder: Path) -> Any:
        return from_bytes((folder / FEATURES).read_bytes()).transform(self._table(rows, folder))

    def _table(self, rows: Rows, folder: Path) -> pd.DataFrame:
        """Each column named by its block and its number or name."""
        parts = {
            "molecule": pd.DataFrame(blocks.molecules(rows, self.config, self.context)),
            "encoder": pd.DataFrame(blocks.encoded(rows, self.config, self.context, folder)),
            "number": pd.DataFrame(blocks.numbers(rows, self.context)),
            "text": rows.inputs[self.context.text].reset_index(drop=True),
            "category": rows.inputs[self.context.categorical].reset_index(drop=True),
        }
        return pd.concat([part.add_prefix(f"{block} ") for block, part in parts.items()], axis=1)
