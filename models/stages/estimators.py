"""Regressors of scikit-learn, one per target, kept on disk without pickle.

For every stage that ends in such a regressor. Source: Pedregosa et al., scikit-learn, JMLR 2011; files by skops.
"""

from __future__ import annotations

import warnings
import zipfile
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline

from competition.errors import ConfigError, DataError
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

    @abstractmethod
    def _pipeline(self, x: Any) -> Pipeline:
        """A new pipeline for features, whose last step is called `regressor`."""

    def _fit_one(self, sample: Sample, target: int, path: Path) -> dict[str, Any]:
        pipeline, fitting = self._pipeline(sample.x), {}
        if sample.weights is not None:
            require_weights(self.config.regressor)
            fitting = {"regressor__sample_weight": sample.weights}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # max_iter is a setting, and stopping early is one
                pipeline.fit(sample.x, sample.y, **fitting)
        except (ValueError, TypeError) as error:
            name = self.context.task.targets[target]
            raise self._refused(f"cannot be fitted on the rows of the target {name!r}", error) from None
        write_atomically(path.with_suffix(".skops"), as_bytes(pipeline))
        return {}

    def _predict_one(self, x: Any, path: Path) -> NDArray[np.float64]:
        path = path.with_suffix(".skops")
        pipeline = from_bytes(path.read_bytes(), path)
        try:
            return pipeline.predict(x).reshape(-1)
        except (ValueError, TypeError) as error:  # as of neighbours, of which there are fewer than asked for
            raise self._refused("cannot predict", error) from None

    def _refused(self, what: str, error: Exception) -> ConfigError:
        said = " ".join(str(error).split()).rstrip(".")
        change = "Change the stage's regressor or its parameters."
        return ConfigError(f"{self.config.regressor} {what}; scikit-learn says: {said}. {change}")


def as_bytes(estimator: Any) -> bytes:
    """A fitted estimator in the form of skops.

    Raises:
        ConfigError: if it holds a type that `from_bytes` would refuse.
    """
    import skops.io  # here, since it imports torch, which a check of the settings must not

    content = skops.io.dumps(estimator)
    if foreign := sorted(set(skops.io.get_untrusted_types(data=content)) - set(TRUSTED)):
        raise ConfigError(
            f"the regressor holds types that cannot be read back safely: {', '.join(foreign)}. "
            "Change the stage's regressor or its parameters."
        )
    return content


def from_bytes(content: bytes, source: object) -> Any:
    """What `as_bytes` was given.

    Raises:
        DataError: if it is damaged or holds a type that is not trusted; nothing of it is run then.
    """
    import skops.io

    try:
        return skops.io.loads(content, trusted=TRUSTED)
    except (skops.io.exceptions.UntrustedTypesFoundException, zipfile.BadZipFile, KeyError, OSError) as error:
        raise DataError(f"{source} is no regressor that we wrote ({error}); delete it and run again.") from error
