"""Base class of stages with one model per target: trees and scikit-learn's estimators, on feature blocks."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from competition.dataset import Dataset
from core.errors import ConfigError, DataError
from core.files import read_json, write_json
from core.types import Array, Integers
from models.context import Context
from models.training.labels import balanced_weights, labelled_rows, target_scale

TRAINING = "training.json"


@dataclass(frozen=True)
class TargetData:
    """Labelled rows of one target.

    Attributes:
        x: (n_rows, n_features), dense or sparse.
        y: (n_rows,) standardised labels, or positions of the classes among those of the training rows.
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


class PerTarget(ABC):
    """Base class of stages with one model per target; `models.stage.Stage` documents `fit` and `predict`."""

    library_errors: ClassVar[tuple[type[Exception], ...]]
    """Errors of the library for parameters or rows that it does not support."""

    def __init__(self, config: Any, context: Context) -> None:
        self.config, self.context = config, context
        self.model_name: str = config.kind  # in messages
        self.seed = context.seed % 2**31  # the largest seed of the libraries

    @abstractmethod
    def _fit_features(self, train: Dataset, folder: Path) -> None:
        """Fit on all training rows, and write, what `_build_features` needs."""

    @abstractmethod
    def _build_features(self, rows: Dataset, folder: Path) -> Any:
        """Return the features of rows, (n_rows, n_features)."""

    @abstractmethod
    def _fit_target_model(self, sample: TargetData, target: int, path: Path) -> dict[str, Any]:
        """Fit the model of a target and write it to `path` with a suffix; return what a refit needs."""

    @abstractmethod
    def _predict_target_model(self, x: Any, path: Path) -> Array:
        """Return predictions (n_rows,) of a written model, or probabilities (n_rows, n_classes)."""

    def fit(self, train: Dataset, folder: Path) -> None:
        """Fit on the training rows only."""
        labelled = labelled_rows(train.y, self.context.task.targets)
        self._fit_features(train, folder)
        is_raw = self.context.task.has_probabilities or getattr(self.config, "needs_raw_labels", False)
        x = self._build_features(train, folder)
        if not x.shape[1]:
            raise DataError(
                f"{self.model_name} has no features: each word of {', '.join(self.context.text)} is in one training "
                "row or in all of them. Add other columns or an encoder to the stage, or remove it."
            )
        mean, scale = target_scale(train.y, is_raw)
        y = (train.y - mean) / scale  # libraries use float32, which loses the digits of a large mean
        weights = [train.weights] * len(labelled)
        if self.config.class_weights == "balanced":
            row_weights = 1.0 if train.weights is None else train.weights[:, None]
            weights = list(balanced_weights(train.y, row_weights).T)
        models = []
        for t, rows in enumerate(labelled):
            data = TargetData(x, y[:, t], weights[t], groups=train.groups, times=train.times)
            models.append(self._fit_target(data.take(rows), t, folder / f"target_{t}"))
        write_json(folder / TRAINING, {"mean": mean.tolist(), "scale": scale.tolist(), "models": models})

    def predict(self, rows: Dataset, folder: Path) -> Array:
        """Return predictions (n_rows, n_outputs) in the units of the targets, or probabilities."""
        training = read_json(folder / TRAINING, "mean", "scale", "models")
        x = self._build_features(rows, folder)
        y_pred = []
        for t, model in enumerate(training["models"]):
            y_pred.append(self._predict_target(x, model.get("classes"), folder / f"target_{t}"))
        return np.hstack(y_pred) * training["scale"] + training["mean"]

    def _fit_target(self, data: TargetData, target: int, path: Path) -> dict[str, Any]:
        """Return the record of a target: its classes, if it has some, and the result of `_fit_target_model`.

        A single class needs no model.
        """
        record: dict[str, Any] = {}
        if self.context.task.has_probabilities:
            classes, positions = np.unique(data.y, return_inverse=True)
            record = {"classes": classes.tolist()}
            data = replace(data, y=positions.astype(np.float64), n_classes=len(classes))
        if data.n_classes != 1:
            with self._library_errors():
                record |= self._fit_target_model(data, target, path)
        return record

    def _predict_target(self, x: Any, classes: list[float] | None, path: Path) -> Array:
        """Return predictions (n_rows, n_outputs) of a target; 0 for classes without training rows."""
        with self._library_errors():
            y_pred = 1.0 if classes and len(classes) == 1 else self._predict_target_model(x, path)
        if classes is None:
            return np.reshape(y_pred, (-1, 1))
        probabilities = np.zeros((x.shape[0], len(self.context.task.classes)))
        probabilities[:, np.array(classes, dtype=int)] = y_pred
        return probabilities if self.context.task.problem_type == "multiclass" else probabilities[:, 1:]

    @contextmanager
    def _library_errors(self) -> Iterator[None]:
        try:
            yield
        except self.library_errors as error:
            what = f"rejects the rows, or its parameters {self.config.parameters}"
            raise ConfigError(f"{self.model_name} {what}: {' '.join(str(error).split())}") from error
