"""Base class of all stages, built-in and user-defined: settings of the YAML, and methods `fit` and `predict`.

A user-defined stage is a subclass in a file next to the YAML; its fields are the settings of its block:

    class Nearest(Stage):
        n_neighbors: int = 5

        def fit(self, train: Dataset, folder: Path, context: Context) -> None: ...

        def predict(self, rows: Dataset, folder: Path, context: Context) -> Array: ...

    stages:
      mine: {kind: mine.py:Nearest, n_neighbors: 9}

Other code asks a stage by its properties and methods, and never which kind it is. This module imports no
library of any stage.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from competition.dataset import Dataset
from competition.task import Task
from core.errors import ConfigError
from core.modules import import_packages, load
from core.settings import StrictModel, UniqueList
from core.types import Array, Integers, ProblemType
from core.user_code import load_user_code
from models.context import CheckTables, Context
from models.inputs.cache import Cache
from models.inputs.encoder_settings import FROZEN_KINDS, EncoderFeature, TextStage
from models.inputs.weights import reads_molecules, require_weights_of_kind

FEATURES = "models.features"
FINGERPRINTS = "models.inputs.fingerprints"
WHY_OPTIMISTIC = (
    "their models may have seen labels of the fold that is held out here, so the scores of this stage, "
    "and the cross_fitted_score of a blend with it, may be optimistic"
)
FOLD_MARKS = {
    "other folds": f"external predictions with other folds: {WHY_OPTIMISTIC}",
    "unknown folds": f"external predictions without a fold in each row of oof.csv: {WHY_OPTIMISTIC}",
}
"""Marks of `Stage.fold_mark` -> explanation."""
RANGE_TOLERANCE = 1e-6
"""How far a probability may be outside 0 to 1."""
SUM_TOLERANCE = 1e-3
"""How far the sum of a row's class probabilities may be from 1, since files have few decimals."""


def _require_feature(name: str) -> str:
    names = load(FINGERPRINTS).NAMES
    if name not in names:
        raise ValueError(f"must be one of {', '.join(names)}")
    return name


Feature = Annotated[str, AfterValidator(_require_feature)]
"""Name of a feature of molecules. The names are in `models/inputs/fingerprints.py`, so that a new feature
does not change the keys of other stages."""


def _check_single_gpu(share: float) -> float:
    if not 0 <= share <= 1:
        raise ValueError(
            "must be true, false, or a share of one GPU up to 1; several GPUs for one job are not supported"
        )
    return share


TargetTransform = Literal["none", "quantile", "power", "log1p"]
GpuShare = Annotated[float, AfterValidator(_check_single_gpu)]


class Stage(StrictModel):
    """Settings that every stage has, and what other code asks a stage. A kind overrides what differs.

    `context.task.problem_type` determines labels and predictions. It is never ordinal, except for
    external predictions: an ordinal task is passed as regression of its levels.

    | problem type | y, (n_rows, n_targets) | predictions, (n_rows, n_outputs) |
    |---|---|---|
    | regression | values | values in the units of the targets |
    | binary, multilabel | 0 or 1 | probability of 1, for each target |
    | multiclass | index of the class in `task.classes` | probability of each class, with a sum of 1 |

    A class without training rows gets probability 0. `tests/models/test_contract.py` tests every kind.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    """Packages that train the stage; see `libraries`."""
    encoder_setting: ClassVar[str] = ""
    """Setting that lists names of features and frozen encoders; "" if the stage has none."""
    is_trained: ClassVar[bool] = True
    """Whether it is trained here. False for external predictions: they need no input columns, have no
    predictions of other rows, and their models may have seen any label."""
    reports_progress: ClassVar[bool] = False
    """Whether it is trained in epochs, so that its pace is measured while it runs, and a budget may give
    it a share of them."""
    depends_on_seed: ClassVar[bool] = False
    """Whether another seed gives other predictions, so that a budget may add seeds."""
    comes_first: ClassVar[bool] = False
    """Whether a budget trains it before all others, since it takes seconds."""
    uses_several_cores: ClassVar[bool] = False
    """Whether a job may train on several cores. Its result must not depend on their number."""
    predicts_on_gpu: ClassVar[bool] = False
    """Whether a job with a share of a GPU also predicts on it."""

    no_effect: ClassVar[tuple[str, ...]] = ()
    """Settings of this class that change nothing in the kind, so that the YAML must not set them."""

    kind: str
    """Name of a built-in kind, or `file.py:Class`."""
    seeds: Annotated[list[int], UniqueList] = Field(default=[0], min_length=1)
    """Random seeds. The stage predicts the mean over its seeds. Adding a seed trains only the jobs
    of that seed. With a budget a stage gets more, up to five, if there is time. The kinds gp and file have
    no seeds."""
    target_transform: TargetTransform | None = None
    """Transform of the targets by scikit-learn, fitted on the training rows of the fold and
    inverted on predictions. quantile and power (Box-Cox if all labels are above 0, else Yeo-Johnson around the
    median, or only a scale where neither can be inverted) make the targets normally distributed. Unset: log1p for the
    metric rmsle, power for mape, median_ae, spearman and kendall, and none for others."""
    extra_rows: Literal["train", "ignore"] = "train"
    """What to do with the rows of competition.extra_train. train: add them to the training rows
    with their weight. ignore: do not use them. Rows with labels of auxiliary targets only are used by
    neural stages with an `auxiliary_weight` above 0."""
    final_fit: Literal["folds", "refit", "both"] = "folds"
    """What predicts the test rows. folds: the mean of the models of all folds. refit: one model per
    seed, fitted on all rows; boosted trees have the mean number of trees of the folds. both: the
    mean of the two. A refit has no held-out rows: the score of the stage is then the score of its
    folds, and every table marks it."""
    gpu: GpuShare = 0.0
    """Share of a GPU for each job, if there is a GPU; trees are then grown on it. With 0.25, four jobs share
    one GPU, since a small network leaves most of it idle. true means 1; false means 0, which is training on
    CPU cores."""

    @model_validator(mode="after")
    def _check_no_effect(self) -> Self:
        self.require_defaults(self.no_effect, f"on the kind {self.kind}")
        return self

    def require_defaults(self, names: Iterable[str], where: str) -> None:
        """Raise a ValueError if settings that have no effect have other values than their defaults."""
        fields = type(self).model_fields
        given = [name for name in names if getattr(self, name) != fields[name].default]
        if given:
            raise ValueError(f"{', '.join(given)}: no effect {where}; remove it")

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle a stage of a user by its settings, since a worker loads the file of the class itself."""
        if self.is_of_user:
            return _load, (self.kind, self.model_dump())
        return super().__reduce_ex__(protocol)

    @abstractmethod
    def fit(self, train: Dataset, folder: Path, context: Context) -> None:
        """Fit on the rows of `train` and write everything that prediction needs into `folder`.

        Args:
            train: training rows with labels. Missing labels are NaN. `train.weights`, (n_rows,) or None if
                all are 1, says how much each row counts. Rows with the same value of `train.groups` must be
                on the same side of every split inside them.
            folder: existing, empty folder.
        """

    @abstractmethod
    def predict(self, rows: Dataset, folder: Path, context: Context) -> Array:
        """Return predictions for rows, (n_rows, n_outputs), by a model that was fitted into `folder`.

        It may be called in another process than `fit`.

        Args:
            rows: rows without labels. The prediction of a row must not depend on the other rows.
            folder: folder that `fit` wrote to.

        Returns:
            Finite predictions. Rows are in the order of `rows`, columns in the order of `task.outputs`.
        """

    def predict_std(self, rows: Dataset, folder: Path, context: Context) -> Array | None:
        """Return the standard deviation of the label of each row for regression, (n_rows, n_outputs).

        It is written next to the predictions, and blends do not use it. None if the stage has none.
        """
        return None

    def importances(self, rows: Dataset, folder: Path, context: Context) -> pd.Series:
        """Return the importance of each feature of a fitted model, as a share, by name; empty if unknown.

        Args:
            rows: any row; its features have the names.
            folder: folder that `fit` wrote to.
        """
        return pd.Series(dtype=float)

    def task_for(self, task: Task) -> Task:
        """Return the task that the stage learns, and check that its settings fit it.

        An ordinal task becomes the regression of its levels. Only external predictions keep the ordinal task.

        Raises:
            ConfigError: lists all settings that do not fit.
        """
        if task.problem_type == "ordinal" and self.is_trained:
            task = replace(task, problem_type="regression", classes=[], scores_labels=False)
        errors = list(self.config_errors(task.problem_type))
        if errors:
            raise ConfigError("\n".join(errors))
        return task

    def transform_for(self, task: Task) -> str:
        """Return the transform of the targets of a task: `target_transform`, or the metric's if unset."""
        if self.target_transform is not None or not self.is_trained:
            return self.target_transform or "none"
        return task.target_transform

    @property
    def is_of_user(self) -> bool:
        """Whether its class is in a file of the user, `file.py:Class`."""
        return ".py:" in self.kind

    @property
    def n_epochs(self) -> int:
        """Number of passes over the training rows; 1 for a stage that is not trained in epochs."""
        return 1

    def with_share_of_epochs(self, share: float) -> Self:
        """Return the stage with a share of its epochs; the same stage if it is not trained in epochs."""
        return self

    @property
    def learns_auxiliary_targets(self) -> bool:
        """Whether the stage has outputs for competition.auxiliary_targets."""
        return False

    @property
    def encoders(self) -> list[EncoderFeature]:
        """Frozen encoders that give pooled features to the stage."""
        features = getattr(self, self.encoder_setting) if self.encoder_setting else []
        return [feature for feature in features if isinstance(feature, EncoderFeature)]

    @property
    def molecule_feature_names(self) -> list[str]:
        """Names of the features of each molecule column, without frozen encoders."""
        return []

    @property
    def reads_features(self) -> bool:
        """Whether the stage reads features of molecules, or of frozen encoders."""
        return bool(self.molecule_feature_names or self.encoders)

    @property
    def count_bits(self) -> int:
        """Length of the count vectors among these features."""
        return 1024

    @property
    def initial_weights(self) -> str | None:
        """Weights that training starts from; None for random initialization, or if it has none."""
        return None

    @property
    def predicts_with_initial_weights(self) -> bool:
        """Whether predictions need `initial_weights` too, since a job only has what was trained of them."""
        return False

    @property
    def text_settings(self) -> list[TextStage]:
        """Settings of every encoder of the stage that reads text."""
        return [encoder for encoder in self.encoders if not reads_molecules(encoder.weights)]

    @property
    def optional_packages(self) -> set[str]:
        """Modules, or dotted names in them, that the stage needs besides the requirements of the project."""
        return set()

    @property
    def dropout_note(self) -> str:
        """Dropout rates for the report; "" without dropout layers."""
        return ""

    def config_errors(self, problem_type: ProblemType) -> Iterator[str]:
        """Yield an error message for each setting that does not fit the problem type of the stage.

        Args:
            problem_type: problem type of `task_for`. It is ordinal only for external predictions.
        """
        if problem_type != "regression" and self.target_transform not in (None, "none"):
            yield "target_transform requires regression, but this stage learns classes; remove it"

    def libraries(self) -> set[str]:
        """Return the packages in the job keys: another version of one trains the stage again."""
        names = {*self.packages}
        if self.reads_features:
            names |= {"numpy", "rdkit"}
        for encoder in self.encoders:
            names |= {*encoder.kind.packages}
        return names

    def weight_names(self) -> list[str]:
        """Return the distinct weights that the stage starts from and that its frozen encoders use."""
        names = [self.initial_weights, *(encoder.weights for encoder in self.encoders)]
        return list(dict.fromkeys(name for name in names if name))

    def key_settings(self, task: Task) -> dict[str, Any]:
        """Return what the predictions depend on besides settings, weights, tables and code.

        It is part of the job keys and raises a ConfigError for a missing file.

        Args:
            task: task of the competition.
        """
        return {}

    def modules(self, context: Context) -> list[str]:
        """Return the modules of the project that `fit` and `predict` import by name (`core.modules.load`).

        Their code, and the code of the module of the class, is part of the job keys.
        """
        names = [FEATURES] if self.reads_features else []
        names += [FINGERPRINTS] if self.molecule_feature_names else []
        return names + [encoder.kind.module for encoder in self.encoders]

    def import_libraries(self, context: Context) -> None:
        """Import what trains the stage, which takes seconds in a new process."""
        for name in self.modules(context):
            load(name)
        import_packages(self.packages)

    def caches(self, context: Context, tables: Sequence[Dataset]) -> list[tuple[Cache, list[str]]]:
        """Return the caches that the jobs of the stage read, each with the keys of the rows of some tables.

        Caches of `molecule_feature_names` and `encoders` are not included (`feature_caches`). Keys are
        molecules or texts, sorted and unique. Caches are filled before the jobs start: parallel jobs would
        compute the same arrays several times.
        """
        return []

    def require_inputs(self, inputs: list[str]) -> None:
        """Raise a ConfigError if the competition has no input column that the stage could read."""
        if self.is_trained and not inputs:
            raise ConfigError(
                "the section competition must name at least one input column under smiles, text, numeric or "
                "categorical, unless all stages are of kind file; got none. "
                "Name a column, or remove this stage."
            )

    def check_machine(self) -> None:
        """Raise a ConfigError if this machine cannot train the stage with its settings."""

    def check(self, tables: CheckTables) -> Iterator[str]:
        """Yield warnings about the stage, and its frozen encoders, with the tables of the competition.

        Raises:
            ConfigError: the stage cannot be trained on them.
            DataError: a table does not fit.
        """
        if self.initial_weights:
            require_weights_of_kind(self.initial_weights, [self.kind])
        for encoder in self.encoders:
            require_weights_of_kind(encoder.weights, [*FROZEN_KINDS])
        if self.encoders or self.text_settings:
            yield from load(FEATURES).check_encoders(self, tables)

    def fold_mark(self, folder: Path, id_column: str, ids: list[str], folds: Integers) -> str | None:
        """Return a key of `FOLD_MARKS` if external predictions have other folds than these, else None.

        Args:
            folder: folder of a job.
            ids: ids of the rows, (n_rows,).
            folds: (n_rows,), -1 for rows without a fold.
        """
        return None


def _load(code_ref: str, settings: dict[str, Any]) -> Any:
    """Return the stage of a user, in a worker."""
    return load_user_code("kind", code_ref, "a stage").model_validate(settings)


def invalid_probability_rows(task: Task, y_pred: Array) -> NDArray[np.bool_]:
    """Return which rows of predictions are not probabilities, (n_rows,); none for regression.

    Probabilities are between 0 and 1, and for multiclass they sum to 1. NaN is accepted.

    Args:
        y_pred: predictions (n_rows, n_outputs).
    """
    if not task.has_probabilities:
        return np.zeros(len(y_pred), dtype=bool)
    is_invalid = (np.abs(y_pred - 0.5) > 0.5 + RANGE_TOLERANCE).any(axis=1)
    if task.problem_type == "multiclass":
        is_invalid |= np.abs(y_pred.sum(axis=1) - 1) > SUM_TOLERANCE
    return np.asarray(is_invalid)


def as_probabilities(task: Task, y_pred: Array) -> Array:
    """Return exact probabilities: clipped to 0 to 1 and, for multiclass, divided by their sum.

    Args:
        y_pred: predictions (n_rows, n_outputs) that `invalid_probability_rows` accepts. Regression
            predictions are returned unchanged.
    """
    if task.has_probabilities:
        y_pred = np.clip(y_pred, 0.0, 1.0)
    return y_pred / y_pred.sum(axis=1, keepdims=True) if task.problem_type == "multiclass" else y_pred
