"""Base class of stages that fit a model per target on molecules, text, numbers and categories."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from competition.dataset import Dataset
from competition.task import Task
from core.errors import ConfigError, DataError
from core.files import read_json, write_json
from core.types import Array, Integers, ProblemType
from models.context import CheckTables, Context
from models.inputs.encoder_settings import EncoderFeature
from models.job_folder import TRAINING
from models.stage import Feature, Stage
from models.targets import labelled_rows, target_scale

NGRAMS = "models.inputs.ngrams"


@dataclass(frozen=True)
class TargetData:
    """Labelled rows of one target.

    Attributes:
        x: (n_rows, n_features), dense or sparse.
        y: (n_rows,) standardised labels, or indices of the classes that training rows have.
        weights: (n_rows,), or None if all are 1.
        n_classes: number of classes of the training rows; 0 for regression.
        groups: (n_rows,), see `Dataset`.
        times: (n_rows,), see `Dataset`.
    """

    x: Any
    y: Array
    weights: Array | None
    n_classes: int = 0
    groups: Integers | None = None
    times: Array | None = None

    def take(self, rows: NDArray[np.intp]) -> "TargetData":
        """Return the rows at some positions, in their order."""
        columns = {name: getattr(self, name) for name in ("weights", "groups", "times")}
        taken = {name: values[rows] for name, values in columns.items() if values is not None}
        return replace(self, x=self.x[rows], y=self.y[rows], **taken)


class FeatureStage(Stage):
    """Settings of features, and `fit` and `predict` with one model per target.

    A kind has the abstract methods: what is fitted for the features of all targets, and the model of one
    target.
    """

    encoder_setting = "features"
    features: list[Feature | EncoderFeature] = ["morgan", "descriptors"]
    """Features of each molecule column, concatenated. morgan: counts of circular environments of
    radius 2. avalon: Avalon counts. erg: ErG fingerprint. maccs: MACCS keys. descriptors: RDKit
    descriptors. maplight: morgan, avalon, erg and descriptors. `{encoder: minilm}`: pooled features
    of a frozen encoder, which are computed before the jobs, on a GPU if there is one."""
    n_bits: int = Field(default=1024, ge=64)
    """morgan, avalon: length of the count vector."""
    tfidf_features: int = Field(default=5000, ge=0)
    """Maximum number of words and word pairs per text column, and of n-grams of characters. 0: ignore text
    columns."""
    parameters: dict[str, Any] = {}
    """Parameters of the library or of the estimator, by its names, where they differ from its defaults."""

    @property
    def molecule_feature_names(self) -> list[str]:
        """Names of the features that `features` contains."""
        return [feature for feature in self.features if isinstance(feature, str)]

    @property
    def count_bits(self) -> int:
        """Length of the count vectors, the setting `n_bits`."""
        return self.n_bits

    def modules(self, context: Context) -> list[str]:
        """Return the modules of `Stage.modules`, and n-grams if the stage reads texts."""
        return [*super().modules(context), *([NGRAMS] if self.reads_texts(context) else [])]

    def reads_texts(self, context: Context) -> bool:
        """Return whether n-grams of text columns are among the features."""
        return bool(context.text) and self.tfidf_features > 0

    @property
    def needs_raw_labels(self) -> bool:
        """Whether regression labels are passed to the library unchanged, and not standardised."""
        return False

    def transform_for(self, task: Task) -> str:
        """Return the transform of the targets, see `Stage.transform_for`.

        The transform of a metric is not used for raw labels.
        """
        if self.target_transform is None and self.needs_raw_labels:
            return "none"
        return super().transform_for(task)

    def model_name(self, problem_type: ProblemType) -> str:
        """Return the name of the model in messages."""
        return self.kind

    def check(self, tables: CheckTables) -> Iterator[str]:
        """Check that there are columns as well; see `Stage.check`."""
        yield from super().check(tables)
        context = tables.context
        columns = [*context.numeric, *context.categorical, *context.text]
        if not self.features and not any(columns):
            raise ConfigError("features is empty, and all input columns are molecules; name a feature")

    @abstractmethod
    def library_errors(self) -> tuple[type[Exception], ...]:
        """Return the errors of the library for parameters or rows that it does not support."""

    @abstractmethod
    def fit_features(self, train: Dataset, folder: Path, context: Context) -> None:
        """Fit on all training rows, and write, what `build_features` needs."""

    @abstractmethod
    def build_features(self, rows: Dataset, folder: Path, context: Context) -> Any:
        """Return the features of rows, (n_rows, n_features)."""

    @abstractmethod
    def fit_target(self, data: TargetData, target: int, path: Path, context: Context) -> dict[str, Any]:
        """Fit the model of a target and write it to `path` with a suffix; return what a refit needs."""

    @abstractmethod
    def predict_target(self, x: Any, path: Path, context: Context) -> Array:
        """Return predictions (n_rows,) of a written model, or probabilities (n_rows, n_classes)."""

    def fit(self, train: Dataset, folder: Path, context: Context) -> None:
        """Fit the features and the model of each target, on the training rows only."""
        task = context.task
        labelled = labelled_rows(train.y, task.targets)
        self.fit_features(train, folder, context)
        x = self.build_features(train, folder, context)
        if not x.shape[1]:
            raise DataError(
                f"{self.model_name(task.problem_type)} has no features: each n-gram of {', '.join(context.text)} "
                "is in one training row or in all of them. Add other columns or an encoder to the stage, "
                "or remove it."
            )
        mean, scale = target_scale(train.y, task.has_probabilities or self.needs_raw_labels)
        y = (train.y - mean) / scale  # libraries use float32, which loses the digits of a large mean
        models = []
        for target, rows in enumerate(labelled):
            data = TargetData(x, y[:, target], train.weights, groups=train.groups, times=train.times)
            path = folder / f"target_{target}"
            labelled_data = data if len(rows) == len(train) else data.take(rows)
            models.append(self._fit_record(labelled_data, target, path, context))
        write_json(folder / TRAINING, {"mean": mean.tolist(), "scale": scale.tolist(), "models": models})

    def _fit_record(self, data: TargetData, target: int, path: Path, context: Context) -> dict[str, Any]:
        """Return the record of a target: its classes, if it has some, and the result of `fit_target`.

        A single class needs no model.
        """
        record: dict[str, Any] = {}
        if context.task.has_probabilities:
            classes, positions = np.unique(data.y, return_inverse=True)
            record = {"classes": classes.tolist()}
            data = replace(data, y=positions.astype(np.float64), n_classes=len(classes))
        if data.n_classes != 1:
            with self.reported_errors(context.task):
                record |= self.fit_target(data, target, path, context)
        return record

    def predict(self, rows: Dataset, folder: Path, context: Context) -> Array:
        """Return predictions (n_rows, n_outputs) in the units of the targets, or probabilities."""
        training = read_json(folder / TRAINING, "mean", "scale", "models")
        x = self.build_features(rows, folder, context)
        y_pred = []
        for target, record in enumerate(training["models"]):
            path = folder / f"target_{target}"
            y_pred.append(self._predict_record(x, record.get("classes"), path, context))
        return np.hstack(y_pred) * training["scale"] + training["mean"]

    def _predict_record(self, x: Any, classes: list[float] | None, path: Path, context: Context) -> Array:
        """Return predictions (n_rows, n_outputs) of a target; 0 for classes without training rows."""
        y_pred: Any = 1.0
        if classes is None or len(classes) > 1:
            with self.reported_errors(context.task):
                y_pred = self.predict_target(x, path, context)
        if classes is None:
            return np.reshape(y_pred, (-1, 1))
        probabilities = np.zeros((x.shape[0], len(context.task.classes)))
        probabilities[:, np.array(classes, dtype=int)] = y_pred
        return probabilities if context.task.problem_type == "multiclass" else probabilities[:, 1:]

    @contextmanager
    def reported_errors(self, task: Task) -> Iterator[None]:
        """Report the errors of the library with the name and parameters of the model."""
        try:
            yield
        except self.library_errors() as error:
            what = f"rejects the rows, or its parameters {self.parameters}"
            raise ConfigError(
                f"{self.model_name(task.problem_type)} {what}: {' '.join(str(error).split())}"
            ) from error


def library_seed(context: Context) -> int:
    """Return the seed of a job within the largest seed of the libraries."""
    return context.seed % 2**31
