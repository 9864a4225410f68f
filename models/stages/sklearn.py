"""Stage `sklearn`: any estimator of scikit-learn's form on the features of the trees, one per target.

What makes its features (medians of missing numbers, ranks, ranges, words, categories) is fitted once for all
targets. Nothing is pickled: scikit-learn's own estimators are kept by skops, whose files hold trusted types
and numbers. Of one of another package the rows that it was fitted on are kept, and a process that predicts
fits it on them again: little work for one that learns in context. Source: Pedregosa et al., scikit-learn,
JMLR 2011.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, QuantileTransformer, StandardScaler
from sklearn.utils import get_tags

from competition.dataset import Dataset
from competition.files import sha256_of
from competition.types import Array
from models.estimators import build_estimator, from_bytes
from models.feature_config import SklearnConfig
from models.inputs import feature_blocks
from models.stage import Context
from models.stages.per_target import PerTarget, TargetData

FEATURES = "features.skops"
QUANTILES = 200  # by which the ranks of a molecule's features are told
MOST = 32
"""Estimators of other packages that a process keeps once they are fitted."""
_FITTED: dict[Any, Any] = {}


class Sklearn(PerTarget):
    """The stage."""

    refusals = (ValueError, TypeError)

    def __init__(self, config: SklearnConfig, context: Context) -> None:
        super().__init__(config, context)
        self.named = config.estimator_name(context.task.problem_type)

    def _learn(self, train: Dataset, folder: Path) -> None:
        feature_blocks.fit_encoders(train, self.config, self.context, folder)
        words = feature_blocks.fit_tfidf(train, self.config.tfidf_features, self.context)
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
        columns = [(block, part, list(x.filter(regex=f"^{block} "))) for block, part in parts]
        texts = [
            (name, feature_blocks.build_vectorizer(vocabulary=known["vocabulary"]), f"text {name}")
            for name, known in words.items()
        ]
        takes_sparse = (
            bool(texts) and "." not in self.named and get_tags(self._build(self.seed)).input_tags.sparse
        )
        features = ColumnTransformer([*columns, *texts], sparse_threshold=float(takes_sparse)).fit(x)
        skops.io.dump(features, folder / FEATURES)

    def _features(self, rows: Dataset, folder: Path) -> Any:
        return from_bytes((folder / FEATURES).read_bytes()).transform(self._table(rows, folder))

    def _table(self, rows: Dataset, folder: Path) -> pd.DataFrame:
        """Each column named by its block and its number or name."""
        pooled = feature_blocks.encoder_block(rows, self.config, self.context, folder).astype(np.float64)
        pooled[np.abs(pooled) < 1e-9] = (
            0.0  # what a dead dimension has, minilm's 1e-33, would be scaled to a feature
        )
        parts = {
            "molecule": pd.DataFrame(feature_blocks.molecule_block(rows, self.config, self.context)),
            "encoder": pd.DataFrame(pooled),
            "number": pd.DataFrame(feature_blocks.numeric_block(rows, self.context)),
            "text": rows.inputs[self.context.text].reset_index(drop=True),
            "category": rows.inputs[self.context.categorical].reset_index(drop=True),
        }
        return pd.concat([part.add_prefix(f"{block} ") for block, part in parts.items()], axis=1)

    def _fit_one(self, sample: TargetData, target: int, path: Path) -> dict[str, Any]:
        weighed: dict[str, Any] = {} if sample.weights is None else {"sample_weight": sample.weights}
        if "." in self.named:
            np.savez_compressed(path.with_suffix(".npz"), seed=self.seed, x=sample.x, y=sample.y, **weighed)
            self._fitted_again(path.with_suffix(".npz"))
        else:
            skops.io.dump(self._fitted(self.seed, sample.x, sample.y, **weighed), path.with_suffix(".skops"))
        return {}

    def _predict_one(self, x: Any, path: Path) -> Array:
        if "." in self.named:
            estimator = self._fitted_again(path.with_suffix(".npz"))
        else:
            estimator = from_bytes(path.with_suffix(".skops").read_bytes())
        return np.asarray(
            (estimator.predict_proba if self.context.task.has_probabilities else estimator.predict)(x)
        )

    def _build(self, seed: int) -> Any:
        return build_estimator(self.named, self.config.parameters, seed, self.context.task.has_probabilities)

    def _fitted(self, seed: int, x: Any, y: Array, **weighed: Array) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", ConvergenceWarning
            )  # max_iter is a setting, and stopping early is one
            warnings.simplefilter("ignore", FutureWarning)  # the version is pinned
            return self._build(int(seed)).fit(x, y, **weighed)

    def _fitted_again(self, rows: Path) -> Any:
        """The estimator, fitted on the rows of a file; once in a process."""
        key = sha256_of(rows), self.named, repr(self.config.parameters)
        if key not in _FITTED:
            if len(_FITTED) >= MOST:
                _FITTED.clear()
            with np.load(rows) as arrays:
                _FITTED[key] = self._fitted(**arrays)
        return _FITTED[key]
