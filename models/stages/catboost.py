"""Stage `catboost`: gradient-boosted symmetric trees (`models/stages/trees.py` has the base class).

Categories are passed to CatBoost. Text becomes topics, a truncated SVD of TF-IDF: CatBoost supports no sparse
columns together with categories, and its text features are made for classification. Sources: Prokhorenkova et
al., CatBoost, NeurIPS 2018; Deerwester et al., latent semantic analysis, JASIS 1990.
"""

import inspect
import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat

from competition.dataset import Dataset
from competition.task import Task
from core.files import read_json
from core.modules import load
from core.types import Array
from models.context import Context
from models.inputs.encoder_settings import EncoderFeature
from models.inputs.skops_files import from_bytes
from models.stage import Feature
from models.stages.tabular import NGRAMS, TargetData, library_seed
from models.stages.trees import BLOCKS, MIN_ROWS, PATIENCE, Trees

TOPICS = "topics.skops"
MAX_TOPICS = 64
"""Maximum number of components of a truncated SVD of the TF-IDF of all text columns together."""
HUBER = "Huber:delta=0.5"
"""As in `models/stages/lightgbm.py`."""
ONE_HOT = 16
"""Number of categories up to which they are one-hot encoded; CatBoost's means see only "above the median"."""


class Catboost(Trees):
    """Gradient-boosted symmetric decision trees, by CatBoost.

    Its features are numbers, topics, and codes of categories, in this order.
    """

    packages = ("catboost",)
    binary_objectives = ("Logloss", "CrossEntropy", "Focal")
    multiclass_objectives = ("MultiClass",)
    defaults = {"depth": 6, "l2_leaf_reg": 3.0, "random_strength": 1.0, "rsm": 0.3, "subsample": 0.8}
    ranges = {
        "depth": (4, 8), "l2_leaf_reg": (0.5, 50.0), "random_strength": (0.1, 10.0), "rsm": (0.05, 1.0),
        "subsample": (0.4, 1.0),
    }  # fmt: skip
    reads_topics = True
    kind: Literal["catboost"]
    features: list[Feature | EncoderFeature] = ["maplight"]
    learning_rate: PositiveFloat = 0.05

    @classmethod
    def library_parameters(cls) -> set[str]:
        """Return the names of CatBoost's parameters."""
        from catboost import CatBoostClassifier

        return set(inspect.signature(CatBoostClassifier).parameters)  # includes all of CatBoostRegressor

    def library_errors(self) -> tuple[type[Exception], ...]:
        """Return the errors of CatBoost."""
        from catboost import CatBoostError

        return CatBoostError, TypeError

    def fit_features(self, train: Dataset, folder: Path, context: Context) -> None:
        """Fit the topics as well."""
        import skops.io
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfTransformer
        from sklearn.pipeline import make_pipeline

        super().fit_features(train, folder, context)
        ngrams = read_json(folder / BLOCKS)["ngrams"]
        if ngrams:
            counts = load(NGRAMS).ngram_counts(train, ngrams)
            svd = TruncatedSVD(min(MAX_TOPICS, *counts.shape), random_state=library_seed(context))
            topics = make_pipeline(TfidfTransformer(sublinear_tf=True), svd).fit(counts)
            skops.io.dump(topics, folder / TOPICS)

    def build_features(self, rows: Dataset, folder: Path, context: Context) -> NDArray[np.float32]:
        """Return numbers, topics and codes of categories, (n_rows, n_features)."""
        numbers, counts, codes = self.blocks(rows, folder, context)
        if counts is not None:
            numbers.append(from_bytes((folder / TOPICS).read_bytes()).transform(counts))
        return np.hstack([*numbers, codes], dtype=np.float32)

    def booster_importances(self, path: Path) -> Array:
        """Return the mean change of the prediction when a feature changes, (n_features,)."""
        from catboost import CatBoost

        return np.asarray(CatBoost().load_model(str(path)).get_feature_importance())

    def best_n_trees(self, data: TargetData, validation: TargetData, context: Context) -> tuple[int, float]:
        """Return the number of trees with the smallest error on `validation`, and that error."""
        has_equal_rows = all(len(np.unique(column)) == 1 for column in data.x.T)
        if has_equal_rows or (data.n_classes and np.ptp(data.y) == 0):  # CatBoost rejects such rows
            return 1, float(np.std(validation.y))
        booster = self._train(data, self.max_trees, context, validation)
        return booster.get_best_iteration() + 1, float(booster.get_best_score()["validation"].popitem()[1])

    def fit_booster(self, data: TargetData, n_trees: int, path: Path, context: Context) -> None:
        """Fit a booster and write it in the binary format of CatBoost."""
        self._train(data, n_trees, context).save_model(str(path.with_suffix(".cbm")))

    def predict_target(self, x: NDArray[np.float32], path: Path, context: Context) -> Array:
        """Return predictions (n_rows,) of a written model, or probabilities (n_rows, n_classes)."""
        booster = booster_class(context.task)().load_model(str(path.with_suffix(".cbm")))
        predict = booster.predict_proba if context.task.has_probabilities else booster.predict
        return predict(catboost_data(x, len(context.categorical)), thread_count=1)

    def _train(
        self, data: TargetData, n_trees: int, context: Context, validation: TargetData | None = None
    ) -> Any:
        """Return a booster of at most `n_trees`, stopped early with `validation`."""
        from catboost import Pool

        task = context.task
        default = HUBER if task.minimizes_absolute_error else (*self.objectives(task.problem_type), "RMSE")[0]
        on_gpu = self.trains_on_gpu()
        parameters = {
            **({} if self.objective else {"loss_function": default}),
            **({"classes_count": data.n_classes} if task.problem_type == "multiclass" else {}),
            "iterations": n_trees,
            "learning_rate": self.learning_rate,
            **self.defaults,
            # CatBoost supports no MVS for several classes on a GPU.
            "bootstrap_type": "Bernoulli" if on_gpu and task.problem_type == "multiclass" else "MVS",
            "one_hot_max_size": ONE_HOT,
            "allow_const_label": True,
            "random_seed": library_seed(context),
            "thread_count": context.threads,
            "allow_writing_files": False,
            "logging_level": "Silent",
            **self.parameters,
        }
        if on_gpu:
            del parameters["rsm"]  # CatBoost rejects it on a GPU
            # A worker sees one GPU, and may take its share of the memory.
            gpu_parameters = {"task_type": "GPU", "devices": "0", "gpu_ram_part": 0.95 * self.gpu}
            parameters = gpu_parameters | parameters
        if len(data.y) < MIN_ROWS:
            parameters |= {"bootstrap_type": "No", "subsample": None}
        n_categorical = len(context.categorical)
        train_pool, validation_pool = (
            part and Pool(catboost_data(part.x, n_categorical), part.y, weight=part.weights)
            for part in (data, validation)
        )
        booster = booster_class(task)(**parameters)
        return booster.fit(
            train_pool,
            eval_set=validation_pool,
            early_stopping_rounds=PATIENCE if validation else None,
            log_cerr=io.StringIO(),  # it warns about inner splits without a rare class
        )


def booster_class(task: Task) -> Any:
    """Return the class of CatBoost for a task."""
    import catboost

    return catboost.CatBoostClassifier if task.has_probabilities else catboost.CatBoostRegressor


def catboost_data(x: NDArray[np.float32], n_categorical: int) -> Any:
    """Return numbers and categories, the last columns, in the format of CatBoost.

    The code of unknown categories is -1.
    """
    from catboost import FeaturesData

    n_numbers = x.shape[1] - n_categorical
    codes = np.char.encode(x[:, n_numbers:].astype(int).astype(str)).astype(object)
    return FeaturesData(
        num_feature_data=np.ascontiguousarray(x[:, :n_numbers]) if n_numbers else None,
        cat_feature_data=codes if n_categorical else None,
    )
