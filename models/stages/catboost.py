"""Stage `catboost`: gradient-boosted symmetric trees (`models/stages/trees.py` has the base class).

Categories are passed to CatBoost. Text becomes topics, a truncated SVD of TF-IDF: CatBoost supports no sparse
columns together with categories, and its text features are made for classification. Sources: Prokhorenkova et
al., CatBoost, NeurIPS 2018; Deerwester et al., latent semantic analysis, JASIS 1990.
"""

import io
from pathlib import Path

import numpy as np
from catboost import CatBoostClassifier, CatBoostError, CatBoostRegressor, FeaturesData, Pool
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD

from competition.dataset import Dataset
from core.files import read_json
from core.types import Array
from models.feature_config import CatboostConfig
from models.inputs import feature_blocks
from models.stages.per_target import TargetData
from models.stages.trees import LEARNED, MIN_ROWS, Trees

TOPICS = "topics.npy"
HUBER = "Huber:delta=0.5"
"""As in `models/stages/lightgbm.py`."""
ONE_HOT = 16
"""Number of categories up to which they are one-hot encoded; CatBoost's means see only "above the median"."""


class Catboost(Trees):
    """Stage `catboost`. Its features are numbers, topics, and codes of categories, in this order."""

    ranges = {
        "depth": (4, 8), "l2_leaf_reg": (0.5, 50.0), "random_strength": (0.1, 10.0), "rsm": (0.05, 1.0),
        "subsample": (0.4, 1.0),
    }  # fmt: skip
    library_errors = (CatBoostError, TypeError)

    @property
    def _booster(self) -> type[CatBoostClassifier] | type[CatBoostRegressor]:
        return CatBoostClassifier if self.context.task.has_probabilities else CatBoostRegressor

    def _fit_features(self, train: Dataset, folder: Path) -> None:
        super()._fit_features(train, folder)
        words = feature_blocks.tfidf_block(train, read_json(folder / LEARNED)["words"])
        if words.shape[1]:
            svd = TruncatedSVD(min(self.config.topics, *words.shape), random_state=self.seed).fit(words)
            np.save(folder / TOPICS, svd.components_.astype(np.float32))  # (n_topics, n_words)

    def _build_features(self, rows: Dataset, folder: Path) -> NDArray[np.float32]:
        numbers, words, codes = self._blocks(rows, folder)
        topics = words @ np.load(folder / TOPICS).T if words.shape[1] else words.toarray()
        return np.hstack([numbers, topics, codes])

    def _best_n_trees(
        self, config: CatboostConfig, sample: TargetData, validation: TargetData
    ) -> tuple[int, float]:
        x = np.nan_to_num(sample.x, nan=-np.inf)
        is_constant = sample.n_classes and np.ptp(sample.y) == 0
        if (x == x[:1]).all() or is_constant:  # CatBoost rejects such rows
            return 1, float(np.std(validation.y))
        booster = self._train(config, sample, config.max_trees, validation)
        return booster.get_best_iteration() + 1, float(booster.get_best_score()["validation"].popitem()[1])

    def _fit_booster(self, config: CatboostConfig, sample: TargetData, n_trees: int, path: Path) -> None:
        self._train(config, sample, n_trees).save_model(str(path.with_suffix(".cbm")))

    def _predict_target_model(self, x: NDArray[np.float32], path: Path) -> Array:
        booster = self._booster().load_model(str(path.with_suffix(".cbm")))
        predict = getattr(booster, "predict_proba", booster.predict)
        return predict(self._data(x), thread_count=1)

    def _train(
        self, config: CatboostConfig, sample: TargetData, n_trees: int, validation: TargetData | None = None
    ) -> CatBoostClassifier | CatBoostRegressor:
        task = self.context.task
        usual = HUBER if task.minimizes_absolute_error else (*config.objectives(task.problem_type), "RMSE")[0]
        parameters = {
            **({} if config.objective else {"loss_function": usual}),
            **({"classes_count": sample.n_classes} if task.problem_type == "multiclass" else {}),
            "iterations": n_trees,
            "learning_rate": config.learning_rate,
            **{name: getattr(config, name) for name in self.ranges},
            # CatBoost supports no MVS for several classes on a GPU.
            "bootstrap_type": "Bernoulli" if self.on_gpu and task.problem_type == "multiclass" else "MVS",
            "one_hot_max_size": ONE_HOT,
            "allow_const_label": True,
            "random_seed": self.seed,
            "thread_count": self.context.threads,
            "allow_writing_files": False,
            "logging_level": "Silent",
            **config.parameters,
        }
        if self.on_gpu:
            del parameters["rsm"]  # CatBoost rejects it on a GPU
            # A worker sees one GPU, and may take its share of the memory.
            gpu_parameters = {"task_type": "GPU", "devices": "0", "gpu_ram_part": 0.95 * config.gpu_share}
            parameters = gpu_parameters | parameters
        if len(sample.y) < MIN_ROWS:
            parameters |= {"bootstrap_type": "No", "subsample": None}
        pools = [s and Pool(self._data(s.x), s.y, weight=s.weights) for s in (sample, validation)]
        patience = config.patience if validation else None
        silent = io.StringIO()  # it warns about inner splits without a rare class
        booster = self._booster(**parameters)
        return booster.fit(pools[0], eval_set=pools[1], early_stopping_rounds=patience, log_cerr=silent)

    def _data(self, x: NDArray[np.float32]) -> FeaturesData:
        """Return numbers and categories in the format of CatBoost; -1 is the code of unknown categories."""
        n_numbers = x.shape[1] - len(self.context.categorical)
        codes = np.char.encode(x[:, n_numbers:].astype(int).astype(str)).astype(object)
        return FeaturesData(
            num_feature_data=np.ascontiguousarray(x[:, :n_numbers]) if n_numbers else None,
            cat_feature_data=codes if codes.shape[1] else None,
        )
