"""Regressors of scikit-learn: built by name, fitted per target, kept on disk without pickle.

For every stage that ends in such a regressor. Source: Pedregosa et al., scikit-learn, JMLR 2011; files by skops.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import io
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.validation import has_fit_parameter

from competition.errors import ConfigError, DataError
from competition.files import read_json, write_atomically, write_json
from models.training.labels import labelled_rows, target_scale

TARGETS = "targets.json"
MODULES = [
    f"sklearn.{module}" for module in (
        "cross_decomposition", "ensemble", "gaussian_process", "kernel_ridge", "linear_model", "neighbors",
        "neural_network", "svm", "tree",
    )
]  # fmt: skip
"""Where regressors are looked for; scikit-learn's own list takes seconds, since it imports torch."""
TRUSTED = [
    "numpy.dtype",
    "scipy.sparse._csr.csr_matrix",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.gaussian_process.kernels.ConstantKernel",
    "sklearn.gaussian_process.kernels.Product",
    "sklearn.gaussian_process.kernels.RBF",
    "sklearn.gaussian_process.kernels.Sum",
    "sklearn.gaussian_process.kernels.WhiteKernel",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.metrics._dist_metrics.ManhattanDistance64",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
]
"""Types that a file may hold beside those skops trusts by itself: all plain containers of numbers."""


def build_regressor(name: str, parameters: dict[str, Any], seed: int) -> Any:
    """A regressor of scikit-learn, not fitted, with the seed where it takes one.

    A Gaussian process has no useful kernel by default; it gets a length scale and a noise to find by likelihood.

    Raises:
        ValueError: for a name, parameter or value that scikit-learn does not know, with the close ones that it does.
    """
    found = regressor_class(name)()
    known = found.get_params(deep=False)
    unknown = sorted(parameters.keys() - known.keys())
    if unknown:
        raise ValueError(f"{name} has no parameter {unknown[0]!r}; {_close(unknown[0], list(known))}")
    if name == "GaussianProcessRegressor":
        found.set_params(kernel=ConstantKernel() * RBF(30.0, (0.1, 1e4)) + WhiteKernel())
    if "random_state" in known:
        found.set_params(random_state=seed % 2**31)
    found.set_params(**parameters)
    found._validate_params()  # scikit-learn would do so first in fit, hours later
    return found


def regressor_class(name: str) -> type:
    """The class of a regressor that takes many features and labels of either sign.

    Raises:
        ValueError: if scikit-learn has none of that name, with the names that are close.
    """
    if name not in _regressors():
        raise ValueError(f"must be a regressor of scikit-learn; {_close(name, list(_regressors()))}")
    return _regressors()[name]


@functools.cache
def _regressors() -> dict[str, type]:
    named = {name: kind for module in MODULES for name, kind in vars(importlib.import_module(module)).items()}
    return {name: kind for name, kind in sorted(named.items()) if name[0] != "_" and _takes_features(kind)}


def _takes_features(kind: Any) -> bool:
    """Whether a name of scikit-learn is a regressor of many features, for labels of either sign."""
    if not (inspect.isclass(kind) and issubclass(kind, RegressorMixin) and issubclass(kind, BaseEstimator)):
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of the regressors that will go, asked for or not
            tags = get_tags(kind())
    except TypeError:  # made of other estimators, which no YAML can name
        return False
    return tags.target_tags.single_output and not tags.target_tags.positive_only


def _close(name: str, known: list[str]) -> str:
    lower = {each.lower(): each for each in known}
    close = [lower[each] for each in difflib.get_close_matches(name.lower(), lower, n=5, cutoff=0.4)]
    return f"close to it: {', '.join(close)}" if close else f"it has {', '.join(known)}"


def fit_targets(
    make_pipeline: Callable[[], Pipeline],
    x: pd.DataFrame | NDArray[Any],
    y: NDArray[np.float64],
    weights: NDArray[np.float64] | None,
    folder: Path,
    names: list[str],
) -> None:
    """Fit one pipeline per target on its labelled rows and write each to `folder`.

    Args:
        make_pipeline: gives a new pipeline whose last step is called `regressor`.
        x: n_rows rows of features.
        y: (n_rows, n_targets) in the targets' own units, NaN where a label is missing; fitted standardised.
        weights: (n_rows,), None where all are 1.
        folder: where `predict_targets` finds them.
        names: of the targets.

    Raises:
        DataError: if a target has fewer than two labels.
        ConfigError: if the regressor takes no weights and there are some, cannot be fitted, or cannot be stored.
    """
    known = labelled_rows(y, names)
    mean, scale = target_scale(y)
    standardised = (y - mean) / scale
    for t, rows in enumerate(known):
        pipeline = make_pipeline()
        fitting = {}
        if weights is not None:
            require_weights(type(pipeline["regressor"]).__name__)
            fitting = {"regressor__sample_weight": weights[rows]}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # max_iter is a setting, and stopping early is one
                pipeline.fit(_take(x, rows), standardised[rows, t], **fitting)
        except (ValueError, TypeError) as error:
            raise _refused(pipeline, f"take the rows of target {names[t]!r}", error) from None
        save(pipeline, _file(folder, t))
    write_json(folder / TARGETS, {"mean": mean.tolist(), "scale": scale.tolist()})


def predict_targets(x: pd.DataFrame | NDArray[Any], folder: Path) -> NDArray[np.float64]:
    """Predictions (n_rows, n_targets) in the targets' own units, by what `fit_targets` wrote.

    Raises:
        ConfigError: if the regressor cannot predict with its parameters.
    """
    targets = read_json(folder / TARGETS, "mean", "scale")
    y_pred = []
    for t in range(len(targets["mean"])):
        pipeline = load(_file(folder, t))
        try:
            y_pred.append(pipeline.predict(x).reshape(len(x)))
        except (ValueError, TypeError) as error:  # as of neighbours, of which there are fewer than asked for
            raise _refused(pipeline, "predict", error) from None
    return np.column_stack(y_pred) * np.array(targets["scale"]) + np.array(targets["mean"])


def _refused(pipeline: Any, what: str, error: Exception) -> ConfigError:
    said = " ".join(str(error).split()).rstrip(".")
    return ConfigError(
        f"{type(pipeline['regressor']).__name__} must {what}; scikit-learn says: {said}. "
        "Change the stage's regressor or parameters."
    )


def save(pipeline: Any, path: Path) -> None:
    """Write a fitted estimator with skops; equal ones give equal bytes.

    Raises:
        ConfigError: if it holds a type that `load` would refuse.
    """
    import skops.io  # here, since it imports torch, which a check of the settings must not

    content = skops.io.dumps(pipeline)
    foreign = sorted(set(skops.io.get_untrusted_types(data=content)) - set(TRUSTED))
    if foreign:
        raise ConfigError(
            f"a regressor must hold types only that can be read back safely; found {', '.join(foreign)}. "
            "Change the stage's regressor or parameters."
        )
    write_atomically(path, _without_addresses(content))


def load(path: Path) -> Any:
    """Read a fitted estimator.

    Raises:
        DataError: if the file is damaged or holds a type that is not trusted; nothing of it is run then.
    """
    import skops.io

    try:
        return skops.io.loads(path.read_bytes(), trusted=TRUSTED)
    except (skops.io.exceptions.UntrustedTypesFoundException, zipfile.BadZipFile, KeyError, OSError) as error:
        raise DataError(f"{path} must be a regressor that we wrote ({error}); delete its job and run again.") from error


def _without_addresses(content: bytes) -> bytes:
    """A skops file with its parts numbered in their order; skops names them by memory address and adds the time.

    A vectoriser of scikit-learn keeps the address of its stop words, too.
    """
    number: dict[str, int] = {}
    address = r'("__id__": |"file": "|"_stop_words_id": \{[^{}]*"content": ")(\d+)'

    def renamed(match: re.Match[str]) -> str:
        return match[1] + str(number.setdefault(match[2], len(number)))

    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        schema = re.sub(address, renamed, old.read("schema.json").decode())
        parts = {f"{number[Path(n).stem]}{Path(n).suffix}": old.read(n) for n in old.namelist() if n != "schema.json"}
        for name, part in sorted({**parts, "schema.json": schema.encode()}.items()):
            new.writestr(zipfile.ZipInfo(name), part, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def require_weights(regressor: str) -> None:
    """Refuse a regressor of scikit-learn that cannot be fitted on rows with weights.

    Raises:
        ConfigError: if it cannot.
    """
    if not has_fit_parameter(regressor_class(regressor), "sample_weight"):
        raise ConfigError(
            f"a regressor on rows with weights must take sample_weight in its fit; {regressor} does not. "
            "Choose another (SVR and Ridge do), or leave weights out."
        )


def _file(folder: Path, target: int) -> Path:
    return folder / f"target_{target}.skops"


def _take(x: pd.DataFrame | NDArray[Any], rows: NDArray[np.intp]) -> pd.DataFrame | NDArray[Any]:
    return x.iloc[rows] if isinstance(x, pd.DataFrame) else x[rows]
