"""Stage `catboost`: gradient-boosted symmetric trees (`models/stages/trees.py` has what is not CatBoost's own).

Categories go in as they are. Text goes in as topics, a truncated SVD of TF-IDF: CatBoost takes no sparse columns beside
categories, and its own text features are made for classification.
Source: Prokhorenkova et al., CatBoost, NeurIPS 2018.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from catboost import CatBoostError, CatBoostRegressor, FeaturesData, Pool
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import TruncatedSVD

from competition.errors import DataError
from competition.files import write_atomically
from competition.tables import Rows
from models.config import CatboostStage
from models.inputs.matrix import Inputs, fit_inputs, read_inputs
from models.stage import Context
from models.stages import trees
from models.stages.trees import Sample

TOPICS = "topics.npy"
ONE_HOT = 16  # categories, up to which each is asked for by itself; CatBoost's means see only "above the median or not"


class Catboost:
    """The stage; see `models.stage.FittedStage` and `models.stages.trees.Library`."""

    ranges: dict[str, trees.Range] = {
        "depth": (4, 8),
        "l2_leaf_reg": (0.5, 50.0),
        "random_strength": (0.1, 10.0),
        "rsm": (0.05, 1.0),
        "subsample": (0.4, 1.0),
    }

    refusal = CatBoostError

    def __init__(self, config: CatboostStage, context: Context) -> None:
        self.config = config
        self.context = context

    def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
        """Fit words, topics, categories and boosters on the training rows alone."""
        x = fit_inputs(train, self.config, self.context, folder)
        if self.context.text:
            _fit_topics(x.words, self.config.topics, trees.seed_of(self.context), folder)
        trees.fit_trees(self, _with_topics(x, folder), train, folder)

    def predict(self, rows: Rows, folder: Path) -> NDArray[np.float64]:
        """Predictions (n_rows, n_targets)."""
        x = _features(_with_topics(read_inputs(rows, self.config, self.context, folder), folder))
        files = [_file(folder, t) for t in range(len(self.context.task.outputs))]
        boosters = [CatBoostRegressor().load_model(str(file)) for file in files]
        return trees.in_own_units([booster.predict(x, thread_count=1) for booster in boosters], folder)

    def count_trees(self, config: CatboostStage, sample: Sample, held_back: Sample) -> tuple[int, float]:
        """See `models.stages.trees.Library`."""
        if not _varies(sample.x):
            return 1, float(np.std(held_back.y))
        booster = self._booster(config, len(sample), config.max_trees)
        booster.fit(_pool(sample), eval_set=_pool(held_back), early_stopping_rounds=config.patience)
        return booster.get_best_iteration() + 1, float(booster.get_best_score()["validation"].popitem()[1])

    def grow(self, config: CatboostStage, sample: Sample, n_trees: int) -> CatBoostRegressor:
        """See `models.stages.trees.Library`.

        Raises:
            DataError: if all rows are equal, of which CatBoost makes no booster.
        """
        if not _varies(sample.x):
            raise DataError(
                f"a stage of kind catboost must have training rows that differ in some input; all {len(sample)} of a "
                "target are equal. Use kind lightgbm, or more rows."
            )
        return self._booster(config, len(sample), n_trees).fit(_pool(sample))

    def save(self, booster: CatBoostRegressor, folder: Path, target: int) -> None:
        """See `models.stages.trees.Library`."""
        metadata = booster.get_metadata()
        metadata["train_finish_time"] = metadata["model_guid"] = ""  # would differ between equal boosters
        booster.save_model(str(_file(folder, target)))

    def _booster(self, config: CatboostStage, n_rows: int, n_trees: int) -> CatBoostRegressor:
        bags: dict[str, Any] = {"bootstrap_type": "MVS", "subsample": config.subsample}
        parameters = {
            "loss_function": "MAE" if self.context.absolute_errors else "RMSE",
            "iterations": n_trees,
            "learning_rate": config.learning_rate,
            "depth": config.depth,
            "l2_leaf_reg": config.l2_leaf_reg,
            "random_strength": config.random_strength,
            "rsm": config.rsm,
            "one_hot_max_size": ONE_HOT,
            **(bags if n_rows >= trees.FEW else {"bootstrap_type": "No"}),
            "allow_const_label": True,
            "random_seed": trees.seed_of(self.context),
            "thread_count": 1,
            "allow_writing_files": False,
            "logging_level": "Silent",
        }
        return CatBoostRegressor(**{**parameters, **config.parameters})


def _file(folder: Path, target: int) -> Path:
    return folder / f"target_{target}.cbm"


def _fit_topics(words: sparse.csr_matrix, most: int, seed: int, folder: Path) -> None:
    """Write the directions of a truncated SVD, (n_topics, n_words). Source: Deerwester et al., LSA, JASIS 1990."""
    svd = TruncatedSVD(min(most, *words.shape), random_state=seed).fit(words)
    buffer = io.BytesIO()
    np.save(buffer, svd.components_.astype(np.float32))
    write_atomically(folder / TOPICS, buffer.getvalue())


def _with_topics(x: Inputs, folder: Path) -> Inputs:
    """The same rows with topics among the numbers and no words."""
    if not x.words.shape[1]:
        return x
    topics = x.words @ np.load(folder / TOPICS).T
    return replace(x, numbers=np.hstack([x.numbers, topics]), words=x.words[:, :0])


def _varies(x: Inputs) -> bool:
    numbers = np.nan_to_num(x.numbers, nan=-np.inf)
    return bool((numbers != numbers[:1]).any() or (x.codes != x.codes[:1]).any())


def _pool(sample: Sample) -> Pool:
    return Pool(_features(sample.x), sample.y, weight=sample.weights)


def _features(x: Inputs) -> FeaturesData:
    """Numbers and categories as CatBoost takes them; the code -1 is a category of its own that no tree knows."""
    numbers = np.ascontiguousarray(x.numbers, dtype=np.float32) if x.numbers.shape[1] else None
    codes = np.char.encode(x.codes.astype(str)).astype(object) if x.codes.shape[1] else None
    return FeaturesData(num_feature_data=numbers, cat_feature_data=codes)
