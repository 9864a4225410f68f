"""What the stages share that fit one model per target: trees and regressors, on feature blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from competition.errors import ConfigError
from competition.files import read_json, write_json
from competition.tables import Rows
from models.stage import Context
from models.training.labels import labelled_rows, target_scale

TRAINING = "training.json"


@dataclass(frozen=True)
class Sample:
    """Rows with a label of one target: features x, a matrix or a table; standardised labels y, (n_rows,); weights,
    None where all are 1.
    """

    x: Any
    y: NDArray[np.float64]
    weights: NDArray[np.float64] | None

    def take(self, rows: NDArray[np.intp]) -> Sample:
        """Rows at positions, in that order."""
        x = getattr(self.x, "iloc", self.x)[rows]
        return Sample(x, self.y[rows], None if self.weights is None else self.weights[rows])


class PerTarget(ABC):
    """One model per target; see `models.stage.FittedStage`. A kind says what it sees of a row and how it fits."""

    refusals: ClassVar[tuple[type[Exception], ...]]
    """What the library raises for parameters or rows that it cannot take."""

    def __init__(self, config: Any, context: Context) -> None:
        self.config, self.context = config, context
        self.seed = context.seed % 2**31  # as large as the libraries take

    @abstractmethod
    def _learn(self, train: Rows, folder: Path) -> None:
        """Learn from all training rows, and write, what `_features` needs."""

    @abstractmethod
    def _features(self, rows: Rows, folder: Path) -> Any:
        """A row of features for each of `rows`."""

    @abstractmethod
    def _fit_one(self, sample: Sample, target: int, path: Path) -> dict[str, Any]:
        """Fit the model of a target and write it to `path` with an ending; returns what a refit must know of it."""

    @abstractmethod
    def _predict_one(self, x: Any, path: Path) -> NDArray[np.float64]:
        """Predictions (n_rows,) of the model that `_fit_one` wrote."""

    def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
        """Fit on the training rows alone.

        Raises:
            DataError: if a target has fewer than two labels.
        """
        assert train.y is not None
        known = labelled_rows(train.y, self.context.task.targets)
        self._learn(train, folder)
        x, (mean, scale) = self._features(train, folder), target_scale(train.y)
        y, models = (train.y - mean) / scale, []  # libraries keep float32, which a large mean would leave no digits
        for t, rows in enumerate(known):
            with self._told():
                models.append(self._fit_one(Sample(x, y[:, t], train.weights).take(rows), t, folder / f"target_{t}"))
        write_json(folder / TRAINING, {"mean": mean.tolist(), "scale": scale.tolist(), "models": models})

    def predict(self, rows: Rows, folder: Path) -> NDArray[np.float64]:
        """Predictions (n_rows, n_targets) in the targets' own units."""
        training, x = read_json(folder / TRAINING, "mean", "scale"), self._features(rows, folder)
        with self._told():
            y_pred = [self._predict_one(x, folder / f"target_{t}") for t in range(len(training["mean"]))]
        return np.column_stack(y_pred) * training["scale"] + training["mean"]

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except self.refusals as error:
            named = getattr(self.config, "regressor", self.config.kind)
            raise ConfigError(
                f"{named} refuses the rows, or its parameters {self.config.parameters}: {' '.join(str(error).split())}"
            ) from error
