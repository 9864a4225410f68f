"""Regressors of scikit-learn: built by name, fitted per target."""

# A stand-in with the names of the module of the stages on trees, which replaces this file when both are merged.

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline

from competition.errors import ConfigError
from competition.files import write_atomically
from models.losses import target_scale

FILE = "regressor.npz"


def build_regressor(name: str, parameters: dict[str, Any], seed: int) -> Any:
    """A regressor, not fitted. Raises ValueError for a name that is not known."""
    if name != "Ridge":
        raise ValueError(f"must be a regressor of scikit-learn; found {name!r}")
    return Ridge(random_state=seed % 2**31).set_params(**parameters)


def fit_targets(
    make_pipeline: Callable[[], Pipeline],
    x: NDArray[Any],
    y: NDArray[np.float64],
    weights: NDArray[np.float64] | None,
    folder: Path,
    names: list[str],
) -> None:
    """Fit one pipeline per target on its labelled rows and write them to `folder`; see `predict_targets`."""
    mean, scale = target_scale(y)
    coefficients, intercepts = [], []
    for t in range(y.shape[1]):
        known = ~np.isnan(y[:, t])
        fitting = {} if weights is None else {"regressor__sample_weight": weights[known]}
        pipeline = make_pipeline().fit(x[known], (y[known, t] - mean[t]) / scale[t], **fitting)
        if len(pipeline.steps) != 1:
            raise ConfigError(f"a pipeline must be a regressor alone; found {len(pipeline.steps)} steps.")
        coefficients.append(pipeline["regressor"].coef_ * scale[t])
        intercepts.append(pipeline["regressor"].intercept_ * scale[t] + mean[t])
    buffer = io.BytesIO()
    np.savez(buffer, coefficients=np.array(coefficients), intercepts=np.array(intercepts))
    write_atomically(folder / FILE, buffer.getvalue())


def predict_targets(x: NDArray[Any], folder: Path) -> NDArray[np.float64]:
    """Predictions (n_rows, n_targets) in the targets' own units, by what `fit_targets` wrote."""
    with np.load(folder / FILE) as stored:
        return np.asarray(x @ stored["coefficients"].T + stored["intercepts"], dtype=np.float64)
