"""What the stages share that fit one model per target: trees and scikit-learn's regressors, on feature blocks.

Regressors are kept on disk without pickle, by skops. Source: Pedregosa et al., scikit-learn, JMLR 2011.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline

from competition.errors import ConfigError
from competition.files import read_json, write_atomically, write_json
from competition.tables import Rows
from models.regressors import require_weights
from models.stage import Context
from models.training.labels import labelled_rows, target_scale

TRAINING = "training.json"
TRUSTED = [
    "numpy.dtype", "scipy.sparse._csr.csr_matrix", "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor", "sklearn.gaussian_process.kernels.RBF",
    "sklearn.gaussian_process.kernels.ConstantKernel", "sklearn.gaussian_process.kernels.WhiteKernel",
    "sklearn.gaussian_process.kernels.Product", "sklearn.gaussian_process.kernels.Sum",
    "sklearn.metrics._dist_metrics.EuclideanDistance64", "sklearn.metrics._dist_metrics.ManhattanDistance64",
    "sklearn.neighbors._ball_tree.BallTree", "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer", "sklearn.tree._tree.Tree",
]  # fmt: skip
"""Types that a file may hold beside those skops trusts by itself: all plain containers of numbers. No whole package is
trusted: numpy alone has a class that deletes the folder it names when it is collected, `numpy.lib.npyio.DataSource`."""


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
        """Fit on the training rows alone."""
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


class Regressors(PerTarget):
    """A pipeline per target that ends in a regressor of scikit-learn."""

    refusals = (ValueError, TypeError)

    @abstractmethod
    def _pipeline(self, x: Any) -> Pipeline:
        """A new pipeline for features, whose last step is called `regressor`."""

    def _fit_one(self, sample: Sample, target: int, path: Path) -> dict[str, Any]:
        fitting = {}
        if sample.weights is not None:
            require_weights(self.config.regressor)
            fitting = {"regressor__sample_weight": sample.weights}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # max_iter is a setting, and stopping early is one
            fitted = self._pipeline(sample.x).fit(sample.x, sample.y, **fitting)
        write_atomically(path.with_suffix(".skops"), as_bytes(fitted))
        return {}

    def _predict_one(self, x: Any, path: Path) -> NDArray[np.float64]:
        return from_bytes(path.with_suffix(".skops").read_bytes()).predict(x).reshape(-1)


def as_bytes(estimator: Any) -> bytes:
    """A fitted estimator in the form of skops."""
    import skops.io  # here, since it imports torch, which a check of the settings must not

    return skops.io.dumps(estimator)


def from_bytes(content: bytes) -> Any:
    """What `as_bytes` was given; a type in it that is not trusted is an error, and nothing of it is run."""
    import skops.io

    return skops.io.loads(content, trusted=TRUSTED)
