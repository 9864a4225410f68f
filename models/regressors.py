"""Regressors of scikit-learn by name, with settings that are checked before any work. Without torch."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import warnings
from typing import Any

from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.utils import get_tags
from sklearn.utils.validation import has_fit_parameter

from competition.errors import ConfigError

MODULES = (
    "cross_decomposition", "ensemble", "gaussian_process", "kernel_ridge", "linear_model", "neighbors",
    "neural_network", "svm", "tree",
)  # fmt: skip
"""Where regressors are looked for; scikit-learn's own list takes seconds, since it imports torch."""


def build_regressor(name: str, parameters: dict[str, Any], seed: int) -> Any:
    """A regressor of scikit-learn, not fitted, with the seed where it takes one.

    A Gaussian process has no useful kernel by default; it gets a length scale and a noise to find by likelihood.

    Raises:
        ValueError: for a name, parameter or value that scikit-learn does not know, with the close ones that it does.
    """
    found = regressor_class(name)()
    known = found.get_params(deep=False)
    if unknown := sorted(parameters.keys() - known.keys()):
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
        raise ValueError(f"scikit-learn has no such regressor; {_close(name, list(_regressors()))}")
    return _regressors()[name]


def require_weights(regressor: str) -> None:
    """Refuse a regressor that cannot be fitted on rows with weights.

    Raises:
        ConfigError: if it cannot.
    """
    if not has_fit_parameter(regressor_class(regressor), "sample_weight"):
        raise ConfigError(
            f"the rows have weights, and {regressor} takes no sample_weight in its fit. "
            "Choose another regressor (SVR and Ridge take it), or leave the weights out."
        )


@functools.cache
def _regressors() -> dict[str, type]:
    modules = [importlib.import_module(f"sklearn.{module}") for module in MODULES]
    named = {name: kind for module in modules for name, kind in vars(module).items() if name[0] != "_"}
    return {name: kind for name, kind in sorted(named.items()) if _takes_features(kind)}


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
