"""Stage `lightgbm`: gradient-boosted trees, leaf by leaf (`models/stages/trees.py` has the base class).

Source: Ke et al., LightGBM, NeurIPS 2017.
"""

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from scipy import sparse

from competition.dataset import Dataset
from core.types import Array
from models.feature_config import LightgbmConfig
from models.stages.per_target import TargetData
from models.stages.trees import MIN_ROWS, Trees

SQUARED = {"objective": "regression", "metric": "rmse"}
HUBER = {"objective": "huber", "metric": "huber", "alpha": 0.5}
"""For metrics of absolute errors, in standardised labels; absolute errors have a larger MAE on held-out rows
(benchmarks/tree_objectives.py).
"""


class Lightgbm(Trees):
    """Stage `lightgbm`. Its features are sparse if there are words; categories are the last columns."""

    ranges = {
        "num_leaves": (4, 128), "min_data_in_leaf": (2, 50), "feature_fraction": (0.05, 1.0),
        "bagging_fraction": (0.4, 1.0), "lambda_l2": (0.01, 100.0),
    }  # fmt: skip
    library_errors = (lightgbm.basic.LightGBMError,)

    def _build_features(self, rows: Dataset, folder: Path) -> Any:
        numbers, words, codes = self._blocks(rows, folder)
        if not words.shape[1]:
            return np.hstack([numbers, codes])
        return sparse.hstack([sparse.csr_matrix(numbers), words, sparse.csr_matrix(codes)], format="csr")

    def _best_n_trees(
        self, config: LightgbmConfig, sample: TargetData, validation: TargetData
    ) -> tuple[int, float]:
        booster = self._train(config, sample, config.max_trees, validation)
        return max(booster.best_iteration, 1), float(booster.best_score["valid_0"].popitem()[1])

    def _fit_booster(self, config: LightgbmConfig, sample: TargetData, n_trees: int, path: Path) -> None:
        path.with_suffix(".txt").write_text(self._train(config, sample, n_trees).model_to_string())

    def _predict_target_model(self, x: Any, path: Path) -> Array:
        booster = lightgbm.Booster(model_str=path.with_suffix(".txt").read_text())
        y_pred = np.asarray(booster.predict(x, num_threads=1))
        both = self.context.task.has_probabilities and y_pred.ndim == 1
        return np.column_stack([1 - y_pred, y_pred]) if both else y_pred

    def _train(
        self, config: LightgbmConfig, sample: TargetData, n_trees: int, validation: TargetData | None = None
    ) -> lightgbm.Booster:
        n_rows, n_features = sample.x.shape
        task = self.context.task
        usual = HUBER if task.minimizes_absolute_error else SQUARED
        class_objectives = config.objectives(task.problem_type)
        if class_objectives:
            usual = {"objective": class_objectives[0]}
        parameters = {
            **({} if config.objective else usual),
            **({"num_class": sample.n_classes} if task.problem_type == "multiclass" else {}),
            **{name: getattr(config, name) for name in ("learning_rate", *self.ranges)},
            "min_data_in_leaf": min(config.min_data_in_leaf, max(1, n_rows // 20)),
            "bagging_fraction": config.bagging_fraction if n_rows >= MIN_ROWS else 1.0,
            "bagging_freq": 1,
            "seed": self.seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": self.context.threads,
            # By OpenCL, which the wheels of PyPI have; "cuda" needs a special build.
            "device_type": "gpu" if self.on_gpu else "cpu",
            "verbosity": -1,
            **config.parameters,
        }
        data = lightgbm.Dataset(
            sample.x, sample.y, weight=sample.weights, params=parameters, free_raw_data=False,
            categorical_feature=list(range(n_features - len(self.context.categorical), n_features)),
        )  # fmt: skip
        stop: dict[str, Any] = {}
        if validation is not None:
            stop["valid_sets"] = [data.create_valid(validation.x, validation.y, weight=validation.weights)]
            stop["callbacks"] = [lightgbm.early_stopping(config.patience, verbose=False)]
        return lightgbm.train(parameters, data, n_trees, **stop)
