"""Stage `sklearn`: an estimator with the interface of scikit-learn, one per target.

It has the same features as the tree stages. Their preprocessing (median imputation, quantile transform, scaling,
TF-IDF, one-hot encoding) is fitted once for all targets. Nothing is pickled: estimators of scikit-learn are saved
by skops, whose files have only trusted types and numbers. For an estimator of another package the training rows
are saved, and the estimator is fitted again when it predicts, which is fast for in-context learners such as
TabPFN. Source: Pedregosa et al., scikit-learn, JMLR 2011.
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
from core.files import sha256_of
from core.types import Array
from models.context import Context
from models.estimators import build_estimator, from_bytes
from models.feature_config import SklearnConfig
from models.inputs import feature_blocks
from models.stages.per_target import PerTarget, TargetData

FEATURES = "features.skops"
QUANTILES = 200
"""Number of quantiles of the rank transform of molecule features."""
MAX_FITTED = 32
"""Number of fitted estimators of other packages that a process keeps."""
_FITTED: dict[Any, Any] = {}


class Sklearn(PerTarget):
    """Stage `sklearn`; `models.stage.Stage` documents its methods."""

    library_errors = (ValueError, TypeError)

    def __init__(self, config: SklearnConfig, context: Context) -> None:
        super().__init__(config, context)
        self.model_name = config.estimator_name(context.task.problem_type)

    def _fit_features(self, train: Dataset, folder: Path) -> None:
        feature_blocks.fit_encoders(train, self.config, self.context, folder)
        tfidf_of_column = feature_blocks.fit_tfidf(train, self.config.tfidf_features, self.context, folder)
        x = self._table(train, folder)
        imputer = SimpleImputer(strategy="median", keep_empty_features=True)
        quantiles = QuantileTransformer(n_quantiles=min(QUANTILES, len(train)), random_state=self.seed)
        parts = [
            # Ranks, since standardised rare bits would move their few molecules far from all others.
            ("molecule", make_pipeline(imputer, quantiles)),
            ("encoder", StandardScaler()),
            # Clipped to the training range, since a linear model extrapolates.
            ("number", make_pipeline(imputer, MinMaxScaler(clip=True), StandardScaler())),
            ("category", OneHotEncoder(handle_unknown="ignore")),
        ]
        columns = [(block, part, list(x.filter(regex=f"^{block} "))) for block, part in parts]
        texts = []
        for name, tfidf in tfidf_of_column.items():
            vectorizer = feature_blocks.build_vectorizer(vocabulary=tfidf["vocabulary"])
            texts.append((name, vectorizer, f"text {name}"))
        takes_sparse = (
            bool(texts)
            and not self.config.is_from_other_package
            and get_tags(self._build(self.seed)).input_tags.sparse
        )
        features = ColumnTransformer([*columns, *texts], sparse_threshold=float(takes_sparse)).fit(x)
        skops.io.dump(features, folder / FEATURES)

    def _build_features(self, rows: Dataset, folder: Path) -> Any:
        return from_bytes((folder / FEATURES).read_bytes()).transform(self._table(rows, folder))

    def _table(self, rows: Dataset, folder: Path) -> pd.DataFrame:
        """Return all columns; their names begin with their block."""
        pooled = feature_blocks.encoder_block(rows, self.config, self.context, folder).astype(np.float64)
        pooled[np.abs(pooled) < 1e-9] = (
            0.0  # else scaling makes a feature from a dead dimension (1e-33 in minilm)
        )
        parts = {
            "molecule": pd.DataFrame(feature_blocks.molecule_block(rows, self.config, self.context, folder)),
            "encoder": pd.DataFrame(pooled),
            "number": pd.DataFrame(feature_blocks.numeric_block(rows, self.context)),
            "text": rows.inputs[self.context.text].reset_index(drop=True),
            "category": rows.inputs[self.context.categorical].reset_index(drop=True),
        }
        return pd.concat([part.add_prefix(f"{block} ") for block, part in parts.items()], axis=1)

    def _fit_target_model(self, sample: TargetData, target: int, path: Path) -> dict[str, Any]:
        weights: dict[str, Any] = {} if sample.weights is None else {"sample_weight": sample.weights}
        if self.config.is_from_other_package:
            # The arrays are named like the arguments of `_fitted`.
            np.savez_compressed(path.with_suffix(".npz"), seed=self.seed, x=sample.x, y=sample.y, **weights)
            self._refit(path.with_suffix(".npz"))  # raises the estimator's errors now, and caches the fit
        else:
            skops.io.dump(self._fitted(self.seed, sample.x, sample.y, **weights), path.with_suffix(".skops"))
        return {}

    def _predict_target_model(self, x: Any, path: Path) -> Array:
        if self.config.is_from_other_package:
            estimator = self._refit(path.with_suffix(".npz"))
        else:
            estimator = from_bytes(path.with_suffix(".skops").read_bytes())
        return np.asarray(
            (estimator.predict_proba if self.context.task.has_probabilities else estimator.predict)(x)
        )

    def _build(self, seed: int) -> Any:
        return build_estimator(
            self.model_name, self.config.parameters, seed, self.context.task.has_probabilities
        )

    def _fitted(self, seed: int, x: Any, y: Array, **weights: Array) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # max_iter is a setting
            warnings.simplefilter("ignore", FutureWarning)  # the version is pinned
            return self._build(int(seed)).fit(x, y, **weights)

    def _refit(self, rows: Path) -> Any:
        """Return the estimator, fitted on the rows of a file, once per process."""
        key = sha256_of(rows), self.model_name, repr(self.config.parameters)
        if key not in _FITTED:
            if len(_FITTED) >= MAX_FITTED:
                _FITTED.clear()
            with np.load(rows) as arrays:
                _FITTED[key] = self._fitted(**arrays)
        return _FITTED[key]
