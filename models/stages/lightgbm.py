"""Stage `lightgbm`: gradient-boosted trees, leaf by leaf (`models/stages/trees.py` has the base class).

Source: Ke et al., LightGBM, NeurIPS 2017.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from competition.dataset import Dataset
from core.types import Array
from models.context import Context
from models.hardware import require_opencl
from models.stages.tabular import TargetData, library_seed
from models.stages.trees import MIN_ROWS, PATIENCE, Trees

if TYPE_CHECKING:
    import lightgbm

SQUARED = {"objective": "regression", "metric": "rmse"}
HUBER = {"objective": "huber", "metric": "huber", "alpha": 0.5}
"""For metrics of absolute errors, in standardised labels; absolute errors have a larger MAE on held-out rows
(docs/benchmarks.md).
"""


class Lightgbm(Trees):
    """Gradient-boosted decision trees, grown leaf by leaf, by LightGBM.

    Its features are sparse if there are n-grams; categories are the last columns.
    """

    packages = ("lightgbm",)
    binary_objectives = ("binary", "cross_entropy")
    multiclass_objectives = ("multiclass", "softmax")
    defaults = {
        "num_leaves": 31, "min_data_in_leaf": 10, "feature_fraction": 0.3, "bagging_fraction": 0.8, "lambda_l2": 1.0,
    }  # fmt: skip
    ranges = {
        "num_leaves": (4, 128), "min_data_in_leaf": (2, 50), "feature_fraction": (0.05, 1.0),
        "bagging_fraction": (0.4, 1.0), "lambda_l2": (0.01, 100.0),
    }  # fmt: skip
    kind: Literal["lightgbm"]

    @classmethod
    def library_parameters(cls) -> set[str]:
        """Return the names of LightGBM's parameters, without aliases; LightGBM itself ignores unknown names."""
        from lightgbm.basic import _ConfigAliases

        return set(_ConfigAliases._get_all_param_aliases())

    def library_errors(self) -> tuple[type[Exception], ...]:
        """Return the error of LightGBM."""
        import lightgbm

        return (lightgbm.basic.LightGBMError,)

    def check_machine(self) -> None:
        """Raise a ConfigError if the trees are to be grown on a GPU, and LightGBM cannot use it."""
        if self.gpu:
            require_opencl()

    def build_features(self, rows: Dataset, folder: Path, context: Context) -> Any:
        """Return numbers, counts of n-grams and codes of categories, (n_rows, n_features)."""
        from scipy import sparse

        numbers, counts, codes = self.blocks(rows, folder, context)
        if counts is None:
            return np.hstack([*numbers, codes])
        dense = map(sparse.csr_matrix, numbers)
        return sparse.hstack([*dense, counts, sparse.csr_matrix(codes)], format="csr")

    def booster_importances(self, path: Path) -> Array:
        """Return the sum of the gains of the splits on each feature, (n_features,)."""
        import lightgbm

        return lightgbm.Booster(model_str=path.read_text()).feature_importance("gain")

    def best_n_trees(self, data: TargetData, validation: TargetData, context: Context) -> tuple[int, float]:
        """Return the number of trees with the smallest error on `validation`, and that error."""
        booster = self._train(data, self.max_trees, context, validation)
        return max(booster.best_iteration, 1), float(booster.best_score["valid_0"].popitem()[1])

    def fit_booster(self, data: TargetData, n_trees: int, path: Path, context: Context) -> None:
        """Fit a booster and write it as text."""
        path.with_suffix(".txt").write_text(self._train(data, n_trees, context).model_to_string())

    def predict_target(self, x: Any, path: Path, context: Context) -> Array:
        """Return predictions (n_rows,) of a written model, or probabilities (n_rows, n_classes)."""
        import lightgbm

        booster = lightgbm.Booster(model_str=path.with_suffix(".txt").read_text())
        y_pred = np.asarray(booster.predict(x, num_threads=1))
        is_binary = context.task.has_probabilities and y_pred.ndim == 1
        return np.column_stack([1 - y_pred, y_pred]) if is_binary else y_pred

    def _train(
        self, data: TargetData, n_trees: int, context: Context, validation: TargetData | None = None
    ) -> "lightgbm.Booster":
        """Return a booster of at most `n_trees`, stopped early with `validation`."""
        import lightgbm

        n_rows, n_features = data.x.shape
        task = context.task
        default = HUBER if task.minimizes_absolute_error else SQUARED
        class_objectives = self.objectives(task.problem_type)
        if class_objectives:
            default = {"objective": class_objectives[0]}
        tunable = self.tunable
        parameters = {
            **({} if self.objective else default),
            **({"num_class": data.n_classes} if task.problem_type == "multiclass" else {}),
            "learning_rate": self.learning_rate,
            "bagging_freq": 1,
            "seed": library_seed(context),
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": context.threads,
            # By OpenCL, which the wheels of PyPI have; "cuda" needs a special build.
            "device_type": "gpu" if self.trains_on_gpu() else "cpu",
            "verbosity": -1,
            **self.parameters,
            **tunable,
            "min_data_in_leaf": min(tunable["min_data_in_leaf"], max(1, n_rows // 20)),
            "bagging_fraction": tunable["bagging_fraction"] if n_rows >= MIN_ROWS else 1.0,
        }
        train = lightgbm.Dataset(
            data.x, data.y, weight=data.weights, params=parameters, free_raw_data=False,
            categorical_feature=list(range(n_features - len(context.categorical), n_features)),
        )  # fmt: skip
        stop: dict[str, Any] = {}
        if validation is not None:
            stop["valid_sets"] = [train.create_valid(validation.x, validation.y, weight=validation.weights)]
            stop["callbacks"] = [lightgbm.early_stopping(PATIENCE, verbose=False)]
        return lightgbm.train(parameters, train, n_trees, **stop)
