"""Regressors of scikit-learn by name, with settings that are checked before any work.

Without torch, and without scikit-learn until one is asked for: `check` starts in half the time.
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from competition.errors import ConfigError

MODULES = {
    "cross_decomposition": "CCA PLSCanonical PLSRegression", "gaussian_process": "GaussianProcessRegressor",
    "kernel_ridge": "KernelRidge", "neural_network": "MLPRegressor", "svm": "LinearSVR NuSVR SVR",
    "neighbors": "KNeighborsRegressor RadiusNeighborsRegressor", "tree": "DecisionTreeRegressor ExtraTreeRegressor",
    "ensemble": "AdaBoostRegressor BaggingRegressor ExtraTreesRegressor GradientBoostingRegressor "
    "HistGradientBoostingRegressor RandomForestRegressor",
    "linear_model": "ARDRegression BayesianRidge ElasticNet ElasticNetCV HuberRegressor Lars LarsCV Lasso LassoCV "
    "LassoLars LassoLarsCV LassoLarsIC LinearRegression OrthogonalMatchingPursuit OrthogonalMatchingPursuitCV "
    "PassiveAggressiveRegressor QuantileRegressor RANSACRegressor Ridge RidgeCV SGDRegressor TheilSenRegressor "
    "TweedieRegressor",
}  # fmt: skip
"""Module -> its regressors of many features for labels of either sign; scikit-learn's own list would import torch."""
MODULE_OF = {name: module for module, names in MODULES.items() for name in names.split()}


def build_regressor(name: str, parameters: dict[str, Any], seed: int) -> Any:
    """A regressor of scikit-learn, not fitted, with the seed where it takes one.

    A Gaussian process has no useful kernel by default; it gets a length scale and a noise to find by likelihood.
    """
    _require_known(name, MODULE_OF, "scikit-learn has no such regressor")
    found = regressor_class(name)()
    known = found.get_params(deep=False)
    for parameter in parameters:
        _require_known(parameter, known, f"{name} has no parameter {parameter!r}")
    if name == "GaussianProcessRegressor":
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        found.set_params(kernel=ConstantKernel() * RBF(30.0, (0.1, 1e4)) + WhiteKernel())
    if "random_state" in known:
        found.set_params(random_state=seed % 2**31)
    found.set_params(**parameters)
    found._validate_params()  # scikit-learn would do so first in fit, hours later
    return found


def regressor_class(name: str) -> type:
    """The class of a name of `MODULE_OF`."""
    return getattr(import_module(f"sklearn.{MODULE_OF[name]}"), name)


def require_weights(regressor: str) -> None:
    """Refuse a regressor that cannot be fitted on rows with weights."""
    from sklearn.utils.validation import has_fit_parameter

    if not has_fit_parameter(regressor_class(regressor), "sample_weight"):
        raise ConfigError(
            f"the rows have weights, and {regressor} takes no sample_weight in its fit. "
            "Choose another regressor (SVR and Ridge take it), or leave the weights out."
        )


def _require_known(name: str, known: Collection[str], what: str) -> None:
    if name not in known:
        raise ValueError(f"{what}; try {', '.join(get_close_matches(name, known, n=5, cutoff=0.4) or known)}")
