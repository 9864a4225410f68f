"""Base class of boosted trees: the number of trees, the search for settings, and the choices of a refit.

Early stopping on a split inside the training rows chooses the number of trees; the booster is then fitted
again on all of them. With `search_trials`, Optuna tunes the settings first, on folds inside the training
rows. A refit on all rows uses the mean number of trees and the mean settings of the fold models.

The inner splits divide rows as the folds do. Rows of a group stay together, since a group on both sides makes
its noise look like a rule. With folds that are blocks in time, the latest rows are held out. If every row is
a group by itself, the splits are random splits of scikit-learn.

Sources: Friedman, Greedy Function Approximation, Annals of Statistics 2001; Akiba et al., Optuna, KDD 2019;
the refit as in AutoGluon's refit_full (Erickson et al., 2020).
"""

import statistics
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from competition.dataset import Dataset
from competition.task import Task
from core.files import read_json, write_json
from core.modules import load
from core.settings import nearest
from core.types import Array, Integers, ProblemType
from folds.splitters import balanced_group_folds, blocks_in_time
from models.context import Context
from models.features import encoder_block, fit_encoders, molecule_blocks, named_molecule_blocks
from models.inputs.columns import category_block, fit_categories, numeric_block
from models.job_folder import TRAINING, write_notes
from models.stages.tabular import NGRAMS, FeatureStage, TargetData, library_seed

BLOCKS = "blocks.json"
DESCRIPTORS = "competition.descriptors"
"""Module with the names of the descriptors, which takes long to import."""
MIN_ROWS = 20
"""Minimum number of rows for a search, and for the boosters to subsample rows."""
RESERVED_PARAMETERS = (
    "seed", "random_seed", "num_threads", "thread_count", "device_type", "device", "task_type", "devices", "boosting",
    "num_iterations", "iterations", "early_stopping_round", "early_stopping_rounds", "metric", "eval_metric",
    "custom_metric", "num_class", "classes_count", "class_names",
)  # fmt: skip
"""Parameters of LightGBM and CatBoost that the stage sets itself."""
OBJECTIVES = ("objective", "loss_function")
"""Names of the objective among the parameters of LightGBM and CatBoost."""
RAW_OBJECTIVES = ("poisson", "gamma", "tweedie", "mape", "mean_absolute_percentage_error", "msle")
"""Objectives of unscaled labels."""
PATIENCE = 100
"""Early stopping: trees without improvement on the inner validation split."""
INNER_SHARE = 0.2
"""Share of the training rows that is held out for the number of trees."""
INNER_FOLDS = 3
"""Folds of the search: settings would be tuned to a single split."""

Split = tuple[Integers, Integers]
"""Positions of the rows to fit on and of the rows that are held out."""


class Trees(FeatureStage):
    """Settings of boosted trees, and the choices that both libraries share.

    A kind names the objectives and the parameters of its library, and fits one booster.
    """

    depends_on_seed = True
    uses_several_cores = True
    binary_objectives: ClassVar[tuple[str, ...]]
    """Objectives of the library that learn the probability of class 1, the default first."""
    multiclass_objectives: ClassVar[tuple[str, ...]]
    """Objectives of the library that learn a probability per class, the default first."""
    defaults: ClassVar[dict[str, Any]]
    """Parameters of the library that the search tunes -> value without a search."""
    reads_topics: ClassVar[bool] = False
    """Whether topics of all texts are among the features, instead of n-grams."""
    ranges: ClassVar[dict[str, tuple[float, float]]]
    """The same parameters -> lowest and highest value, on a logarithmic scale."""
    learning_rate: PositiveFloat = 0.03
    """Factor of each tree; with a smaller one, early stopping takes more trees."""
    max_trees: PositiveInt = 2000
    """Maximum number of trees."""
    search_trials: int = Field(default=0, ge=0)
    """Optuna trials per target, each on three inner folds of the training rows; 0: no tuning."""
    parameters: dict[str, Any] = {}
    """Parameters of the library, by its names, in addition to `defaults` or in place of them. They include
    the objective (CatBoost: loss_function), which then also decides the number of trees. Default objective:
    log loss for classification; for regression Huber's loss if the metric is made of absolute errors,
    otherwise the squared error."""

    @classmethod
    @abstractmethod
    def library_parameters(cls) -> set[str]:
        """Return the names of all parameters of the library. `parameters` rejects every other name."""

    @field_validator("parameters")
    @classmethod
    def _check_parameters(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        for name in parameters:
            if name in cls.model_fields or name in RESERVED_PARAMETERS:
                raise ValueError(
                    f"{name} is controlled by the stage: remove it from `parameters`, or set it as a "
                    f"stage setting"
                )
            if name not in cls.library_parameters():
                close = nearest(name, cls.library_parameters())
                raise ValueError(f"the library has no parameter {name!r}; try {close}")
        return parameters

    @property
    def tunable(self) -> dict[str, Any]:
        """Values of the parameters that the search tunes."""
        return {name: self.parameters.get(name, value) for name, value in self.defaults.items()}

    def with_parameters(self, found: dict[str, Any]) -> Self:
        """Return the stage with parameters that a search found."""
        return self.model_copy(update={"parameters": {**self.parameters, **found}})

    @property
    def objective(self) -> str | None:
        """Objective in `parameters`, without its options (CatBoost: `Huber:delta=1`)."""
        objectives = [self.parameters[name] for name in OBJECTIVES if name in self.parameters]
        return str(objectives[0]).partition(":")[0] if objectives else None

    @property
    def needs_raw_labels(self) -> bool:
        """Whether the objective is defined for unscaled labels only, such as counts, and not for
        standardised ones.
        """
        return str(self.objective).lower() in RAW_OBJECTIVES

    def objectives(self, problem_type: ProblemType) -> tuple[str, ...]:
        """Return the classification objectives for a problem type, the default first; () for regression."""
        if problem_type == "regression":
            return ()
        return self.multiclass_objectives if problem_type == "multiclass" else self.binary_objectives

    def key_settings(self, task: Task) -> dict[str, Any]:
        """Return whether the default objective is of absolute errors, and the device.

        The share of a GPU is in no key: a network gives the same predictions on a GPU up to rounding. Trees
        do not: rounding changes splits, and CatBoost cannot sample features (rsm) on a GPU.
        """
        device = "gpu" if self.gpu else "cpu"
        return {"absolute_errors": task.minimizes_absolute_error, "device": device}

    def config_errors(self, problem_type: ProblemType) -> Iterator[str]:
        """Yield the errors of `Stage.config_errors`, and of an objective that does not fit
        the problem type.
        """
        yield from super().config_errors(problem_type)
        class_objectives = self.objectives(problem_type)
        if not self.objective:
            return
        if class_objectives and self.objective not in class_objectives:
            expected = f"problem type {problem_type} requires {' or '.join(class_objectives)}"
        elif not class_objectives and self.objective in self.binary_objectives + self.multiclass_objectives:
            expected = "regression requires a regression objective"
        else:
            return
        yield f"parameters: the objective {self.objective} does not fit; {expected}"

    def trains_on_gpu(self) -> bool:
        """Return whether boosters are trained on a GPU: the settings request one, and this process sees one."""
        if self.gpu == 0:
            return False
        import torch  # here, since it takes seconds

        return torch.cuda.is_available()

    def fit_features(self, train: Dataset, folder: Path, context: Context) -> None:
        """Fit the frozen encoders, the n-grams and the categories."""
        if self.gpu > 0 and not self.trains_on_gpu():
            write_notes(folder, ["gpu is set, but no GPU was found; the trees were trained on the CPU"])
        fit_encoders(train, self, context, folder)
        ngrams = None
        if self.reads_texts(context):
            ngrams = load(NGRAMS).fit_ngrams(train, self.tfidf_features, context, folder)
        categories = fit_categories(train, context.categorical)
        write_json(folder / BLOCKS, {"ngrams": ngrams, "categories": categories})

    def blocks(
        self, rows: Dataset, folder: Path, context: Context
    ) -> tuple[list[NDArray[np.float32]], Any, NDArray[np.float32]]:
        """Return blocks of numbers, sparse counts of n-grams, and codes of categories, each (n_rows, n_features).

        The counts are None without n-grams.

        The blocks of numbers are not concatenated here, since a copy of 100,000 molecules takes a gigabyte.
        """
        fitted = read_json(folder / BLOCKS)
        molecules = molecule_blocks(rows, self, context, folder)
        encoded = encoder_block(rows, self, context, folder)
        numbers = numeric_block(rows, context).astype(np.float32)
        return (
            [*molecules, encoded, numbers],
            load(NGRAMS).ngram_counts(rows, fitted["ngrams"]) if fitted["ngrams"] else None,
            category_block(rows, fitted["categories"]),
        )

    @abstractmethod
    def booster_importances(self, path: Path) -> Array:
        """Return the importances of all features by the library, (n_features,), in the booster of a target."""

    def importances(self, rows: Dataset, folder: Path, context: Context) -> pd.Series:
        """Return the shares of the features, as a mean over targets; see `Stage.importances`.

        Features of one name, such as the bits of a fingerprint, count together.
        """
        values = [self.booster_importances(path) for path in folder.glob("target_[0-9]*")]
        if not values:  # each target has a single class
            return super().importances(rows, folder, context)
        shares = np.mean([each / (each.sum() or 1.0) for each in values], axis=0)  # trees may have no split
        names = list[str]()
        for name, block in named_molecule_blocks(rows, self, context, folder):
            if name.endswith(": descriptors"):
                names += [f"{name} {each}" for each in load(DESCRIPTORS).DESCRIPTORS]
            else:
                names += [name] * block.shape[1]
        names += ["frozen encoders of texts"] * encoder_block(rows, self, context, folder).shape[1]
        names += context.numeric
        ngrams = read_json(folder / BLOCKS)["ngrams"] or []
        words = [f"{column}: {word!r}" for column, settings in ngrams for word in settings["vocabulary"]]
        if self.reads_topics:
            words = ["topics of texts"] * (len(shares) - len(names) - len(context.categorical))
        names += [*words, *context.categorical]
        return pd.Series(shares, names).groupby(level=0).sum()

    @abstractmethod
    def best_n_trees(self, data: TargetData, validation: TargetData, context: Context) -> tuple[int, float]:
        """Return the number of trees with the smallest error on `validation`, and that error."""

    @abstractmethod
    def fit_booster(self, data: TargetData, n_trees: int, path: Path, context: Context) -> None:
        """Fit a booster with a number of trees and write it in the format of the library."""

    def fit_target(self, data: TargetData, target: int, path: Path, context: Context) -> dict[str, Any]:
        """Fit a booster with the choices of the folds, or else with its own; return the choices."""
        choice = mean_choice(context.fold_model_dirs, target) or self.choose(data, context)
        tuned = self.with_parameters(choice["found"])
        tuned.fit_booster(data, choice["n_trees"], path, context)
        context.progress(target + 1, len(context.task.targets))
        return choice

    def choose(self, data: TargetData, context: Context) -> dict[str, Any]:
        """Return the parameters that the search selected ("found"; empty without a search) and the number of trees."""
        found = self._search(data, context) if self.search_trials and len(data.y) >= MIN_ROWS else {}
        fit_rows, stopping_rows = inner_split(data, library_seed(context))
        tuned = self.with_parameters(found)
        n_trees, _ = tuned.best_n_trees(data.take(fit_rows), data.take(stopping_rows), context)
        return {"found": found, "n_trees": n_trees}

    def _search(self, data: TargetData, context: Context) -> dict[str, float]:
        """Return the settings with the smallest mean error over inner folds.

        The first trial has the settings of the YAML, clipped to the ranges.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        seed = library_seed(context)
        folds = inner_folds(data, seed)

        def mean_error(trial: optuna.Trial) -> float:
            for name, (low, high) in self.ranges.items():
                suggest: Any = trial.suggest_int if isinstance(low, int) else trial.suggest_float
                suggest(name, low, high, log=True)
            tried = self.with_parameters(trial.params)
            errors = []
            for fit_rows, validation_rows in folds:
                _, error = tried.best_n_trees(data.take(fit_rows), data.take(validation_rows), context)
                errors.append(error)
            return float(np.mean(errors))

        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
        first_trial = {}
        for name, (low, high) in self.ranges.items():
            first_trial[name] = min(max(self.tunable[name], low), high)
        study.enqueue_trial(first_trial)
        study.optimize(mean_error, self.search_trials)
        return study.best_params


def mean_choice(folders: list[Path], target: int) -> dict[str, Any]:
    """Return what a refit takes over from the models of the folds; {} without folds.

    Settings are geometric means, the number of trees is a mean; integers are rounded. The number of trees is
    not increased for the additional rows: it depends little on them.
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


def inner_split(data: TargetData, seed: int) -> Split:
    """Return one split, which holds out about `INNER_SHARE` of the rows."""
    from sklearn.model_selection import train_test_split

    n_parts = round(1 / INNER_SHARE)
    block = _blocks(data, n_parts)
    if block is not None:
        return _split_at(block == block.max())
    part = _parts(data, n_parts, seed)
    if part is not None:
        sizes = np.bincount(part)
        nearest = np.abs(sizes - INNER_SHARE * len(part)).argmin()  # not the part that has a very large group
        return _split_at(part == nearest)
    rows = np.arange(len(data.y))
    classes = data.y if _can_be_stratified(data) else None
    train, held_out = train_test_split(rows, test_size=INNER_SHARE, random_state=seed, stratify=classes)
    return train, held_out


def inner_folds(data: TargetData, seed: int) -> list[Split]:
    """Return the splits of a cross-validation; with blocks in time each block is held out of the earlier
    ones.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    block = _blocks(data, INNER_FOLDS + 1)
    if block is not None:
        later = np.unique(block[block >= 0])[1:]
        return [(np.flatnonzero(block < b), np.flatnonzero(block == b)) for b in later]
    part = _parts(data, INNER_FOLDS, seed)
    if part is not None:
        return [_split_at(part == k) for k in range(part.max() + 1)]
    splitter = StratifiedKFold if _can_be_stratified(data) else KFold
    return list(splitter(INNER_FOLDS, shuffle=True, random_state=seed).split(data.y, data.y))


def _blocks(data: TargetData, n_blocks: int) -> Integers | None:
    """Return the block in time of each row, -1 for rows whose group has no time; None if all times are in one block."""
    if data.times is None:
        return None
    dated = np.flatnonzero(~np.isnan(data.times))
    if not len(dated):
        return None
    groups = np.arange(len(data.y)) if data.groups is None else data.groups
    block = np.full(len(data.y), -1)
    block[dated] = blocks_in_time(data.times[dated], groups[dated], n_blocks)
    block = pd.Series(block).groupby(groups).transform("max").to_numpy()  # rows without a time, too
    return block if np.ptp(block[dated]) else None


def _parts(data: TargetData, n_parts: int, seed: int) -> Integers | None:
    """Return the part of each row, equal within a group; None if every row is a group by itself, or all are
    one.
    """
    if data.groups is None:
        return None
    groups, distinct = pd.factorize(data.groups)
    if len(distinct) in (1, len(groups)):
        return None
    classes = pd.DataFrame({"y": data.y} if data.n_classes else {}, index=range(len(groups)))
    return balanced_group_folds(groups, classes, min(n_parts, len(distinct)), seed)


def _split_at(held_out: Any) -> Split:
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _can_be_stratified(data: TargetData) -> bool:
    """Return whether each class has enough rows for both sides of every split."""
    return data.n_classes > 0 and bool(np.bincount(data.y.astype(int)).min() * INNER_SHARE >= 1)
