"""What the stages share that fit one model per target: trees and scikit-learn's estimators, on feature
blocks.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from competition.dataset import Dataset
from competition.errors import ConfigError
from competition.files import read_json, write_json
from competition.types import Array, Integers
from models.stage import Context
from models.training.labels import balanced_weights, labelled_rows, target_scale

TRAINING = "training.json"


@dataclass(frozen=True)
class TargetData:
    """Rows with a label of one target.

    x: (n_rows, n_features), dense or sparse.
    y: (n_rows,) standardised labels, or the place of each row's class among those that the training rows
    have.
    weights: (n_rows,); None where all are 1.
    n_classes: how many of them there are; 0 of numbers.
    groups, times: (n_rows,), as in `Dataset`.
    """

    x: Any
    y: Array
    weights: Array | None
    n_classes: int = 0
    groups: Integers | None = None
    times: Array | None = None

    def take(self, rows: NDArray[np.intp]) -> "TargetData":
        """Rows at positions, in that order."""
        columns = {name: getattr(self, name) for name in ("weights", "groups", "times")}
        taken = {name: values[rows] for name, values in columns.items() if values is not None}
        return replace(self, x=self.x[rows], y=self.y[rows], **taken)


class PerTarget(ABC):
    """One model per target; see `models.stage.StageModel`. A kind says what it sees of a row and how it fits."""

    refusals: ClassVar[tuple[type[Exception], ...]]
    """What the library raises for parameters or rows that it cannot take."""

    def __init__(self, config: Any, context: Context) -> None:
        self.config, self.context = config, context
        self.named: str = config.kind  # what messages call the model
        self.seed = context.seed % 2**31  # as large as the libraries take

    @abstractmethod
    def _learn(self, train: Dataset, folder: Path) -> None:
        """Learn from all training rows, and write, what `_features` needs."""

    @abstractmethod
    def _features(self, rows: Dataset, folder: Path) -> Any:
        """A row of features for each of `rows`."""

    @abstractmethod
    def _fit_one(self, sample: TargetData, target: int, path: Path) -> dict[str, Any]:
        """Fit the model of a target and write it to `path` with an ending; returns what a refit must know of
        it.
        """

    @abstractmethod
    def _predict_one(self, x: Any, path: Path) -> Array:
        """Predictions (n_rows,) of the model that `_fit_one` wrote, or probabilities (n_rows, n_classes)."""

    def fit(self, train: Dataset, valid: Dataset | None, folder: Path) -> None:
        """Fit on the training rows alone."""
        known = labelled_rows(train.y, self.context.task.targets)
        self._learn(train, folder)
        as_they_are = self.context.task.has_probabilities or getattr(self.config, "needs_raw_labels", False)
        x, (mean, scale) = self._features(train, folder), target_scale(train.y, as_they_are)
        y, models = (
            (train.y - mean) / scale,
            [],
        )  # libraries keep float32, which a large mean would leave no digits
        weights = [train.weights] * len(known)
        if self.config.class_weights == "balanced":
            weights = list(
                balanced_weights(train.y, 1.0 if train.weights is None else train.weights[:, None]).T
            )
        for t, rows in enumerate(known):
            sample = TargetData(x, y[:, t], weights[t], groups=train.groups, times=train.times)
            models.append(self._fit_target(sample.take(rows), t, folder / f"target_{t}"))
        write_json(folder / TRAINING, {"mean": mean.tolist(), "scale": scale.tolist(), "models": models})

    def predict(self, rows: Dataset, folder: Path) -> Array:
        """Predictions (n_rows, n_outputs) in the targets' own units, or probabilities."""
        training, x = read_json(folder / TRAINING, "mean", "scale", "models"), self._features(rows, folder)
        models = enumerate(training["models"])
        y_pred = [
            self._predict_target(x, model.get("classes"), folder / f"target_{t}") for t, model in models
        ]
        return np.hstack(y_pred) * training["scale"] + training["mean"]

    def _fit_target(self, sample: TargetData, target: int, path: Path) -> dict[str, Any]:
        """What `_fit_one` returns, and of a target with classes those that the rows have; one alone needs no
        model.
        """
        found: dict[str, Any] = {}
        if self.context.task.has_probabilities:
            classes, places = np.unique(sample.y, return_inverse=True)
            found = {"classes": classes.tolist()}
            sample = replace(sample, y=places.astype(np.float64), n_classes=len(classes))
        if sample.n_classes != 1:
            with self._told():
                found |= self._fit_one(sample, target, path)
        return found

    def _predict_target(self, x: Any, classes: list[float] | None, path: Path) -> Array:
        """Predictions (n_rows, n_outputs) of a target; a class that its training rows lack has the
        probability 0.
        """
        with self._told():
            y_pred = 1.0 if classes and len(classes) == 1 else self._predict_one(x, path)
        if classes is None:
            return np.reshape(y_pred, (-1, 1))
        of_all = np.zeros((x.shape[0], len(self.context.task.classes)))
        of_all[:, np.array(classes, dtype=int)] = y_pred
        return of_all if self.context.task.problem_type == "multiclass" else of_all[:, 1:]

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except self.refusals as error:
            what = f"refuses the rows, or its parameters {self.config.parameters}"
            raise ConfigError(f"{self.named} {what}: {' '.join(str(error).split())}") from error
