"""Regressors of scikit-learn, one per target, kept on disk without pickle.

For every stage that ends in such a regressor. Source: Pedregosa et al., scikit-learn, JMLR 2011; files by skops.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline

from competition.files import write_atomically
from models.regressors import require_weights
from models.stages.per_target import PerTarget, Sample

TRUSTED = [
    "numpy.dtype",
    "scipy.sparse._csr.csr_matrix",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    *(f"sklearn.gaussian_process.kernels.{name}Kernel" for name in ("Constant", "White")),
    *(f"sklearn.gaussian_process.kernels.{name}" for name in ("Product", "RBF", "Sum")),
    *(f"sklearn.metrics._dist_metrics.{name}Distance64" for name in ("Euclidean", "Manhattan")),
    *(f"sklearn.neighbors.{name}" for name in ("_ball_tree.BallTree", "_kd_tree.KDTree")),
    *(f"sklearn.neural_network._stochastic_optimizers.{name}Optimizer" for name in ("Adam", "SGD")),
    "sklearn.tree._tree.Tree",
]
"""Types that a file may hold beside those skops trusts by itself: all plain containers of numbers."""


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
