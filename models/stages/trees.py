"""Base class of boosted trees: the number of trees, the search for settings, and the choices of a refit.

Early stopping on a split inside the training rows chooses the number of trees; the booster is then fitted
again on all of them. With `search_trials`, Optuna tunes the settings first, on folds inside the training rows
(`inner_splits.py`). A refit on all rows uses the mean number of trees and the mean settings of the fold models.

Sources: Friedman, Greedy Function Approximation, Annals of Statistics 2001; Akiba et al., Optuna, KDD 2019; the
refit as in AutoGluon's refit_full (Erickson et al., 2020).
"""

import functools
import statistics
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from competition.dataset import Dataset
from core.files import read_json, write_json
from models.inputs import feature_blocks
from models.stage import write_notes
from models.stages.inner_splits import inner_folds, inner_split
from models.stages.per_target import TRAINING, PerTarget, TargetData

LEARNED = "blocks.json"
MIN_ROWS = 20
"""Minimum number of rows for a search, and for the boosters to subsample rows."""


class Trees(PerTarget):
    """Base class of the stages in `lightgbm.py` and `catboost.py`."""

    ranges: ClassVar[dict[str, tuple[float, float]]]
    """Settings that the search tunes -> lowest and highest value, on a logarithmic scale."""

    @functools.cached_property
    def on_gpu(self) -> bool:
        """Whether the booster is trained on a GPU: the settings request one, and this process sees one."""
        if self.config.gpu_share == 0:
            return False
        import torch  # here, since it takes seconds

        return torch.cuda.is_available()

    def _fit_features(self, train: Dataset, folder: Path) -> None:
        if self.config.gpu_share > 0 and not self.on_gpu:
            write_notes(folder, ["gpu is set, but no GPU was found; the trees were trained on the CPU"])
        feature_blocks.fit_encoders(train, self.config, self.context, folder)
        words = feature_blocks.fit_tfidf(train, self.config.tfidf_features, self.context, folder)
        categories = feature_blocks.fit_categories(train, self.context.categorical)
        write_json(folder / LEARNED, {"words": words, "categories": categories})

    def _blocks(
        self, rows: Dataset, folder: Path
    ) -> tuple[NDArray[np.float32], sparse.csr_matrix, NDArray[np.float32]]:
        """Return numbers, TF-IDF of words, and codes of categories, each (n_rows, n_features)."""
        config = self.config
        context = self.context
        learned = read_json(folder / LEARNED)
        molecules = feature_blocks.molecule_block(rows, config, context, folder)
        encoded = feature_blocks.encoder_block(rows, config, context, folder)
        numbers = feature_blocks.numeric_block(rows, context)
        return (
            np.hstack([molecules, encoded, numbers], dtype=np.float32),
            feature_blocks.tfidf_block(rows, learned["words"]),
            feature_blocks.category_block(rows, learned["categories"]),
        )

    @abstractmethod
    def _best_n_trees(self, config: Any, sample: TargetData, validation: TargetData) -> tuple[int, float]:
        """Return the number of trees with the smallest error on `validation`, and that error."""

    @abstractmethod
    def _fit_booster(self, config: Any, sample: TargetData, n_trees: int, path: Path) -> None:
        """Fit a booster with a number of trees and write it in the format of the library."""

    def _fit_target_model(self, sample: TargetData, target: int, path: Path) -> dict[str, Any]:
        choice = mean_choice(self.context.fold_model_dirs, target) or self._tune(sample)
        self._fit_booster(self.config.model_copy(update=choice["found"]), sample, choice["n_trees"], path)
        self.context.progress(target + 1, len(self.context.task.targets))
        return choice

    def _tune(self, sample: TargetData) -> dict[str, Any]:
        """Return the settings that the search selected ("found"; empty without a search) and the number of trees."""
        settings = self._search(sample) if self.config.search_trials and len(sample.y) >= MIN_ROWS else {}
        fit_rows, stopping_rows = inner_split(sample, self.seed)
        config = self.config.model_copy(update=settings)
        n_trees, _ = self._best_n_trees(config, sample.take(fit_rows), sample.take(stopping_rows))
        return {"found": settings, "n_trees": n_trees}

    def _search(self, sample: TargetData) -> dict[str, float]:
        """Return the settings with the smallest mean error over inner folds.

        The first trial has the settings of the YAML, clipped to the ranges.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folds = inner_folds(sample, self.seed)

        def mean_error(trial: optuna.Trial) -> float:
            for name, (low, high) in self.ranges.items():
                suggest: Any = trial.suggest_int if isinstance(low, int) else trial.suggest_float
                suggest(name, low, high, log=True)
            config = self.config.model_copy(update=trial.params)
            errors = []
            for fit_rows, validation_rows in folds:
                _, error = self._best_n_trees(config, sample.take(fit_rows), sample.take(validation_rows))
                errors.append(error)
            return float(np.mean(errors))

        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=self.seed))
        first_trial = {}
        for name, (low, high) in self.ranges.items():
            first_trial[name] = min(max(getattr(self.config, name), low), high)
        study.enqueue_trial(first_trial)
        study.optimize(mean_error, self.config.search_trials)
        return study.best_params


def mean_choice(folders: list[Path], target: int) -> dict[str, Any]:
    """Return what a refit takes over from the models of the folds; {} without folds.

    Settings are geometric means, the number of trees is a mean; integers are rounded. The number of trees is not
    increased for the additional rows: it depends little on them.
    """
    folds = [read_json(folder / TRAINING, "models")["models"][target] for folder in folders]
    folds = [fold for fold in folds if "n_trees" in fold]  # a fold with a single class has no trees
    if not folds:
        return {}
    searches = [fold["found"] for fold in folds if fold["found"]]  # a fold with few rows has no search
    settings = {}
    for name, first in searches[0].items() if searches else ():
        mean = statistics.geometric_mean(search[name] for search in searches)
        settings[name] = round(mean) if isinstance(first, int) else mean
    return {"found": settings, "n_trees": round(statistics.mean(fold["n_trees"] for fold in folds))}
