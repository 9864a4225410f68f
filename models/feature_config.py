"""Settings of the stages on features: LightGBM, CatBoost, scikit-learn and Gaussian processes.

The module imports a library only to check its parameters.
"""

import inspect
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from competition.task import Task
from core.types import ProblemType
from models.context import CheckTables, Context
from models.estimators import (
    DOWNLOAD_WARNINGS,
    build_estimator,
    is_from_other_package,
    require_valid_name,
    require_weights,
    splits_rows,
    version_of,
)
from models.inputs.cache import Cache
from models.inputs.count_fingerprints import fingerprint_cache
from models.inputs.encoder_settings import EncoderFeature
from models.inputs.features import molecule_features
from models.old_style import OldStyle
from models.stage import Feature, GpuShare, Share
from models.training.hardware import require_opencl

MANY_GP_ROWS = 6000
"""Training rows above which a fold of a Gaussian process takes more than one or two minutes on a core."""


class FeatureStage(OldStyle):
    """Settings of every stage on features of molecules, TF-IDF of text, numbers and categories."""

    encoder_setting = "features"
    extra_rows: Literal["train", "ignore"] = "train"
    features: list[Feature | EncoderFeature] = Field(default=["morgan", "descriptors"], min_length=1)
    """Features of each molecule column, concatenated. morgan: counts of circular environments of
    radius 2. avalon: Avalon counts. erg: ErG fingerprint. maccs: MACCS keys. descriptors: RDKit
    descriptors. maplight: morgan, avalon, erg and descriptors. `{encoder: minilm}`: pooled features
    of a frozen encoder."""
    n_bits: int = Field(default=1024, ge=64)
    """morgan, avalon: length of the count vector."""
    tfidf_features: int = Field(default=5000, ge=0)
    """Maximum number of words and word pairs per text column; 0: ignore text columns."""
    gpu: GpuShare = 0.0
    """Share of a GPU for each job: trees are then grown on it, and an estimator can use it.
    Features of frozen encoders are computed before the jobs, on a GPU if there is one, whatever
    this setting is."""

    @property
    def molecule_feature_names(self) -> list[str]:
        """Names that `features` contains."""
        return [feature for feature in self.features if isinstance(feature, str)]

    @property
    def count_bits(self) -> int:
        """The setting `n_bits`."""
        return self.n_bits


RESERVED_PARAMETERS = (
    "seed", "random_seed", "num_threads", "thread_count", "device_type", "device", "task_type", "devices", "boosting",
    "num_iterations", "iterations", "early_stopping_round", "early_stopping_rounds", "metric", "eval_metric",
    "custom_metric", "num_class", "classes_count", "class_names",
)  # fmt: skip
"""Parameters of LightGBM and CatBoost that the stage sets itself."""
OBJECTIVE_ALIASES = ("objective", "objective_type", "app", "application", "loss", "loss_function")
"""Names of the objective among the parameters of LightGBM and CatBoost."""


class TreesConfig(FeatureStage):
    """Settings of every stage of boosted trees, which fits one booster per target.

    A subclass names the objectives and the parameters of its library.
    """

    depends_on_seed = True
    uses_several_cores = True
    binary_objectives: ClassVar[tuple[str, ...]]
    """Objectives of the library that learn the probability of class 1, the default first."""
    multiclass_objectives: ClassVar[tuple[str, ...]]
    """Objectives of the library that learn a probability per class, the default first."""
    learning_rate: PositiveFloat = 0.03
    max_trees: PositiveInt = 2000
    """Maximum number of trees."""
    patience: PositiveInt = 100
    """Early stopping: trees without improvement on the inner validation split."""
    search_trials: int = Field(default=0, ge=0)
    """Optuna trials per target, each on three inner folds of the training rows; 0: no tuning."""
    parameters: dict[str, Any] = {}
    """Parameters of the library, by its names. They include the objective (CatBoost:
    loss_function), which then also decides the number of trees. Default objective: log loss for
    classification; for regression Huber's loss if the metric is made of absolute errors,
    otherwise the squared error."""

    @classmethod
    def library_parameters(cls) -> set[str]:
        """Return the names of all parameters of the library. `parameters` rejects every other name."""
        raise NotImplementedError(f"{cls.__name__} needs library_parameters")

    @field_validator("parameters")
    @classmethod
    def _check_parameters(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        for name in parameters:
            if name in cls.model_fields or name in RESERVED_PARAMETERS:
                raise ValueError(
                    f"{name} is controlled by the stage: remove it from `parameters`, or set it as a "
                    f"stage setting"
                )
            require_valid_name(name, cls.library_parameters(), f"the library has no parameter {name!r}")
        return parameters

    @property
    def objective(self) -> str | None:
        """Objective in `parameters`, under any of its names, without its options (CatBoost:
        `Huber:delta=1`).
        """
        objectives = [self.parameters[name] for name in OBJECTIVE_ALIASES if name in self.parameters]
        return str(objectives[0]).partition(":")[0] if objectives else None

    @property
    def needs_raw_labels(self) -> bool:
        """Whether the objective is defined for unscaled labels only, such as counts, and not for
        standardised ones.
        """
        return str(self.objective).lower() in ("poisson", "gamma", "tweedie", "mape", "msle")

    def objectives(self, problem_type: ProblemType) -> tuple[str, ...]:
        """Return the classification objectives for a problem type, the default first; () for regression."""
        if problem_type == "regression":
            return ()
        return self.multiclass_objectives if problem_type == "multiclass" else self.binary_objectives

    def key_settings(self, task: Task) -> dict[str, Any]:
        """Return whether the default objective is of absolute errors, and the device.

        The share of a GPU is in no key: a network gives the same predictions on a GPU up to rounding. Trees do
        not: rounding changes splits, and CatBoost cannot sample features (rsm) on a GPU.
        """
        device = "gpu" if self.gpu_share else "cpu"
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


class LightgbmConfig(TreesConfig):
    """Gradient-boosted decision trees, grown leaf by leaf, by LightGBM."""

    packages = ("lightgbm",)
    binary_objectives = ("binary", "cross_entropy")
    multiclass_objectives = ("multiclass", "softmax")
    kind: Literal["lightgbm"]
    num_leaves: int = Field(default=31, ge=2)
    min_data_in_leaf: PositiveInt = 10
    feature_fraction: Share = 0.3
    bagging_fraction: Share = 0.8
    lambda_l2: NonNegativeFloat = 1.0

    @classmethod
    def library_parameters(cls) -> set[str]:
        """Return the names and aliases of LightGBM's parameters; LightGBM itself ignores unknown names."""
        from lightgbm.basic import _ConfigAliases

        return set(_ConfigAliases._get_all_param_aliases())

    def check_machine(self) -> None:
        """Raise a ConfigError if the trees are to be grown on a GPU, and LightGBM cannot use it."""
        if self.gpu_share:
            require_opencl()


class CatboostConfig(TreesConfig):
    """Gradient-boosted symmetric decision trees, by CatBoost."""

    packages = ("catboost",)
    binary_objectives = ("Logloss", "CrossEntropy", "Focal")
    multiclass_objectives = ("MultiClass",)
    kind: Literal["catboost"]
    features: list[Feature | EncoderFeature] = Field(default=["maplight"], min_length=1)
    topics: int = Field(default=64, ge=2)
    """Maximum number of components of a truncated SVD of the TF-IDF of all text columns together."""
    learning_rate: PositiveFloat = 0.05
    depth: int = Field(default=6, ge=1, le=16)
    l2_leaf_reg: NonNegativeFloat = 3.0
    random_strength: NonNegativeFloat = 1.0
    """Noise on the scores of splits, against overfitting."""
    rsm: Share = 0.3
    """Share of the features that each split may use. On a GPU CatBoost cannot sample features and
    uses all."""
    subsample: Share = 0.8
    """Share of the rows that each tree is fitted on."""

    @classmethod
    def library_parameters(cls) -> set[str]:
        """Return the names of CatBoost's parameters."""
        from catboost import CatBoostClassifier

        return set(inspect.signature(CatBoostClassifier).parameters)  # includes all of CatBoostRegressor


MoleculeKernel = Literal["ecfp4", "atom_pairs", "fcfp4", "descriptors"]


class GpConfig(OldStyle):
    """Exact Gaussian process regression. Its kernels are averaged, with weights by the marginal likelihood.

    Time grows with the cube and memory with the square of the number of training rows.
    """

    packages = ("scipy", "scikit-learn", "numpy", "rdkit")
    encoder_setting = "kernels"
    kind: Literal["gp"]
    kernels: list[MoleculeKernel | EncoderFeature] = ["ecfp4", "atom_pairs", "fcfp4", "descriptors"]
    """What the kernels compare. ecfp4, atom_pairs, fcfp4: unfolded counts of environments in molecules, by
    their MinMax similarity. descriptors: ranks of RDKit descriptors. `{encoder: minilm}`: pooled features of a
    frozen encoder. Numeric and categorical columns always have a kernel of their own."""
    seeds: list[int] = Field(default=[0], min_length=1, max_length=1)
    """Exactly one seed, since the fit does not depend on it."""
    extra_rows: Literal["train", "ignore"] = "train"

    @property
    def fingerprints(self) -> list[str]:
        """Fingerprints that `kernels` contains."""
        return [kernel for kernel in self.kernels if isinstance(kernel, str) and kernel != "descriptors"]

    def caches(self, context: Context) -> list[tuple[Cache, list[str]]]:
        """Return the caches of the fingerprints and descriptors."""
        caches = [fingerprint_cache(name, context.cache) for name in self.fingerprints]
        if "descriptors" in self.kernels:
            caches += molecule_features(["descriptors"], 0, context.cache)
        return [(cache, context.smiles) for cache in caches]

    def check(self, tables: CheckTables) -> Iterator[str]:
        """Warn of many rows as well; see `Stage.check`."""
        yield from super().check(tables)
        n_labelled = int(tables.train[tables.task.targets].notna().any(axis=1).sum())
        if n_labelled > MANY_GP_ROWS:
            yield (
                f"the time of an exact Gaussian process grows with the cube of the rows, and {n_labelled:,} "
                f"rows take from minutes to hours a fold (docs/benchmarks.md has times)"
            )


class SklearnConfig(FeatureStage):
    """An estimator with the interface of scikit-learn, on the same features as the trees, one per
    target.

    Most estimators are deterministic: more seeds do not change them.
    """

    packages = ("scikit-learn",)
    predicts_on_gpu = True
    kind: Literal["sklearn"]
    estimator: str | None = None
    """Dotted path of the class of a regressor, or for classification of a classifier with predict_proba, of
    scikit-learn or another installed package: sklearn.linear_model.Ridge, pytabkit.RealMLP_TD_Regressor.
    null: sklearn.svm.SVR, or sklearn.linear_model.LogisticRegression for classification."""
    parameters: dict[str, Any] = {}
    """Parameters of the estimator, by its names, where they differ from its defaults."""

    @property
    def optional_packages(self) -> set[str]:
        """The setting `estimator`."""
        return {self.estimator} if self.estimator else set()

    @property
    def is_from_other_package(self) -> bool:
        """Whether the estimator is not one of scikit-learn."""
        return self.estimator is not None and is_from_other_package(self.estimator)

    def key_settings(self, task: Task) -> dict[str, Any]:
        """Return the version of the package of an estimator that is not one of scikit-learn."""
        return {"package": version_of(str(self.estimator))} if self.is_from_other_package else {}

    def estimator_name(self, problem_type: ProblemType) -> str:
        """Return the dotted path of the estimator for a problem type."""
        is_regression = problem_type == "regression"
        default = "sklearn.svm.SVR" if is_regression else "sklearn.linear_model.LogisticRegression"
        return self.estimator or default

    def config_errors(self, problem_type: ProblemType) -> Iterator[str]:
        """Yield the errors of `Stage.config_errors`, and of an estimator that cannot be built.

        It may not exist, be of the other kind (regressor, classifier), or reject its parameters.
        """
        yield from super().config_errors(problem_type)
        name = self.estimator_name(problem_type)
        try:
            build_estimator(name, self.parameters, seed=0, classes=problem_type != "regression")
        except (ValueError, TypeError) as error:  # TypeError: its constructor has required arguments
            yield f"estimator: {' '.join(str(error).split())} (this stage learns {problem_type})"

    def check(self, tables: CheckTables) -> Iterator[str]:
        """Check that the estimator takes weights if there are any, and warn of what it does by itself.

        It may download weights, or hold out rows against the groups or the time; see also `Stage.check`.
        """
        yield from super().check(tables)
        name = self.estimator_name(tables.task.problem_type)
        extra_tables = tables.competition.extra_train if self.extra_rows != "ignore" else []
        has_weights = (
            bool(tables.competition.weight)
            or any(table.weight != 1 for table in extra_tables)
            or self.pseudo_labels is not None
            or self.class_weights == "balanced"
        )
        if has_weights:
            require_weights(name)
        warning = DOWNLOAD_WARNINGS.get(name.partition(".")[0])
        if warning:
            yield warning
        n_tied = int((np.bincount(tables.groups)[tables.groups] > 1).sum())
        if not n_tied and not tables.in_time_order:
            return
        has_classes = tables.task.problem_type != "regression"
        if splits_rows(build_estimator(name, self.parameters, 0, has_classes), len(tables.groups)):
            ignored = f"keep the groups of {n_tied} rows together"
            if tables.in_time_order:
                ignored = "hold out the latest"
            yield f"{name} holds out some training rows by itself and cannot {ignored}, so it may overfit"
