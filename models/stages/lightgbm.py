"""Stage `lightgbm`: gradient-boosted trees, leaf by leaf (`models/stages/trees.py` has what is not LightGBM's own).

Source: Ke et al., LightGBM, NeurIPS 2017.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from competition.files import write_atomically
from competition.tables import Rows
from models.config import LightgbmStage
from models.inputs.matrix import Inputs, fit_inputs, read_inputs
from models.stage import Context
from models.stages import trees
from models.stages.trees import Sample


class Lightgbm:
    """The stage; see `models.stage.FittedStage` and `models.stages.trees.Library`."""

    ranges: dict[str, trees.Range] = {
        "num_leaves": (4, 128),
        "min_data_in_leaf": (2, 50),
        "feature_fraction": (0.05, 1.0),
        "bagging_fraction": (0.4, 1.0),
        "lambda_l2": (0.01, 100.0),
    }

    refusal = lightgbm.basic.LightGBMError

    def __init__(self, config: LightgbmStage, context: Context) -> None:
        self.config = config
        self.context = context

    def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
        """Fit words, categories and boosters on the training rows alone."""
        trees.fit_trees(self, fit_inputs(train, self.config, self.context, folder), train, folder)

    def predict(self, rows: Rows, folder: Path) -> NDArray[np.float64]:
        """Predictions (n_rows, n_targets)."""
        x = _matrix(read_inputs(rows, self.config, self.context, folder))
        boosters = [
            lightgbm.Booster(model_str=_file(folder, t).read_text()) for t in range(len(self.context.task.outputs))
        ]
        return trees.in_own_units([booster.predict(x, num_threads=1) for booster in boosters], folder)

    def count_trees(self, config: LightgbmStage, sample: Sample, held_back: Sample) -> tuple[int, float]:
        """See `models.stages.trees.Library`."""
        parameters = self._parameters(config, len(sample))
        data = _dataset(sample, parameters)
        booster = lightgbm.train(
            parameters,
            data,
            config.max_trees,
            valid_sets=[_dataset(held_back, parameters, data)],
            callbacks=[lightgbm.early_stopping(config.patience, verbose=False)],
        )
        return max(booster.best_iteration, 1), float(booster.best_score["valid_0"].popitem()[1])

    def grow(self, config: LightgbmStage, sample: Sample, n_trees: int) -> lightgbm.Booster:
        """See `models.stages.trees.Library`."""
        parameters = self._parameters(config, len(sample))
        return lightgbm.train(parameters, _dataset(sample, parameters), n_trees)

    def save(self, booster: lightgbm.Booster, folder: Path, target: int) -> None:
        """See `models.stages.trees.Library`."""
        write_atomically(_file(folder, target), booster.model_to_string())

    def _parameters(self, config: LightgbmStage, n_rows: int) -> dict[str, Any]:
        objective = {"objective": "regression", "metric": "rmse"}
        if self.context.absolute_errors:
            objective = {"objective": "regression_l1", "metric": "l1"}
        return {
            **({} if "objective" in config.parameters else objective),
            "learning_rate": config.learning_rate,
            "num_leaves": config.num_leaves,
            "min_data_in_leaf": min(config.min_data_in_leaf, max(1, n_rows // 20)),
            "feature_fraction": config.feature_fraction,
            "bagging_fraction": config.bagging_fraction if n_rows >= trees.FEW else 1.0,
            "bagging_freq": 1,
            "lambda_l2": config.lambda_l2,
            "seed": trees.seed_of(self.context),
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
            "verbosity": -1,
            **config.parameters,
        }


def _file(folder: Path, target: int) -> Path:
    return folder / f"target_{target}.txt"


def _dataset(sample: Sample, parameters: dict[str, Any], reference: lightgbm.Dataset | None = None) -> lightgbm.Dataset:
    x = _matrix(sample.x)
    categorical = list(range(x.shape[1] - sample.x.codes.shape[1], x.shape[1]))
    return lightgbm.Dataset(
        x, sample.y, reference=reference, weight=sample.weights, categorical_feature=categorical, params=parameters,
        free_raw_data=False,
    )  # fmt: skip


def _matrix(x: Inputs) -> Any:
    """Matrix (n_rows, n_features): dense without text, sparse with it; categories last, -1 taken as missing."""
    codes = x.codes.astype(np.float32)
    if not x.words.shape[1]:
        return np.hstack([x.numbers, codes])
    return sparse.hstack([sparse.csr_matrix(x.numbers), x.words, sparse.csr_matrix(codes)], format="csr")
