"""What the stages of boosted trees share: the number of trees, the search for settings, and a refit's
choices.

The number of trees comes from a split inside the training rows; the booster is then fitted again on all of
them. With `search_trials`, Optuna tunes the settings first, on folds inside the training rows
(`inner_splits.py`). A refit on all rows takes the mean over the folds of both. Sources: Friedman, Greedy
Function Approximation, Annals of Statistics 2001; Akiba et al., Optuna, KDD 2019; the refit as in AutoGluon's
refit_full (Erickson et al., 2020).
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
from competition.files import read_json, write_json
from models.inputs import feature_blocks
from models.stage import write_notes
from models.stages.inner_splits import inner_folds, inner_split
from models.stages.per_target import TRAINING, PerTarget, TargetData

LEARNED = "blocks.json"
MIN_ROWS = 20  # rows, below which a bag could be empty and a search would find noise


class Trees(PerTarget):
    """A stage of boosted trees; `lightgbm.py` and `catboost.py` add what is their library's own."""

    ranges: ClassVar[dict[str, tuple[float, float]]]
    """What the search tunes: setting -> lowest and highest value, on a logarithmic scale."""

    @functools.cached_property
    def on_card(self) -> bool:
        """Whether trees are grown on a card: the settings ask for one, and this process sees one."""
        if self.config.gpu_share == 0:
            return False
        import torch  # here, since it takes seconds

        return torch.cuda.is_available()

    def _learn(self, train: Dataset, folder: Path) -> None:
        if self.config.gpu_share > 0 and not self.on_card:
            write_notes(folder, ["gpu is above 0, and there was no card: the trees were grown on the cores"])
        feature_blocks.fit_encoders(train, self.config, self.context, folder)
        words = feature_blocks.fit_tfidf(train, self.config.tfidf_features, self.context)
        categories = feature_blocks.fit_categories(train, self.context.categorical)
        write_json(folder / LEARNED, {"words": words, "categories": categories})

    def _blocks(
        self, rows: Dataset, folder: Path
    ) -> tuple[NDArray[np.float32], sparse.csr_matrix, NDArray[np.float32]]:
        """Numbers, words, and the codes of categories, each (n_rows, ...)."""
        config, told, learned = self.config, self.context, read_json(folder / LEARNED)
        molecules, encoded = (
            feature_blocks.molecule_block(rows, config, told),
            feature_blocks.encoder_block(rows, config, told, folder),
        )
        numbers = np.hstack([molecules, encoded, feature_blocks.numeric_block(rows, told)], dtype=np.float32)
        return (
            numbers,
            feature_blocks.tfidf_block(rows, learned["words"]),
            feature_blocks.category_block(rows, learned["categories"]),
        )

    @abstractmethod
    def _count(self, config: Any, sample: TargetData, held_back: TargetData) -> tuple[int, float]:
        """How many trees fitted on `sample` predict `held_back` best, and the error they have there."""

    @abstractmethod
    def _grow(self, config: Any, sample: TargetData, n_trees: int, path: Path) -> None:
        """Fit a booster of that many trees and write it in the library's own format."""

    def _fit_one(self, sample: TargetData, target: int, path: Path) -> dict[str, Any]:
        choice = choice_of_folds(self.context.fold_model_dirs, target) or self._choose(sample)
        self._grow(self.config.model_copy(update=choice["found"]), sample, choice["n_trees"], path)
        self.context.progress(target + 1, len(self.context.task.targets))
        return choice

    def _choose(self, sample: TargetData) -> dict[str, Any]:
        """Settings that the search found on training rows, if there is one, and the number of trees for them."""
        found = self._search(sample) if self.config.search_trials and len(sample.y) >= MIN_ROWS else {}
        inner, outer = inner_split(sample, self.seed)
        config = self.config.model_copy(update=found)
        return {"found": found, "n_trees": self._count(config, sample.take(inner), sample.take(outer))[0]}

    def _search(self, sample: TargetData) -> dict[str, float]:
        """Settings of the trial with the smallest mean error over inner folds; the first trial is the YAML's
        own.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folds = inner_folds(sample, self.seed)

        def mean_error(trial: optuna.Trial) -> float:
            for name, (low, high) in self.ranges.items():
                suggest: Any = trial.suggest_int if isinstance(low, int) else trial.suggest_float
                suggest(name, low, high, log=True)
            config = self.config.model_copy(update=trial.params)
            return float(np.mean([self._count(config, sample.take(a), sample.take(b))[1] for a, b in folds]))

        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=self.seed))
        study.enqueue_trial(
            {n: min(max(getattr(self.config, n), low), high) for n, (low, high) in self.ranges.items()}
        )
        study.optimize(mean_error, self.config.search_trials)
        return study.best_params


def choice_of_folds(folders: list[Path], target: int) -> dict[str, Any]:
    """What a refit takes over: means over folds, of settings on the scale of the search, whole numbers
    rounded.

    The number of trees is not raised for the rows that a fold lacks: it changes little with them, and a fold
    does not raise it either for its booster of all training rows. Nothing, where no refit has folds to take
    over from.
    """
    folds = [read_json(folder / TRAINING, "models")["models"][target] for folder in folders]
    folds = [fold for fold in folds if "n_trees" in fold]  # not those with one class alone
    if not folds:
        return {}
    searched, found = (
        [fold["found"] for fold in folds if fold["found"]],
        {},
    )  # not those with too few rows for a search
    for name, first in searched[0].items() if searched else ():
        mean = statistics.geometric_mean(settings[name] for settings in searched)
        found[name] = round(mean) if isinstance(first, int) else mean
    return {"found": found, "n_trees": round(statistics.mean(fold["n_trees"] for fold in folds))}
