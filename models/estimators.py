"""Estimators of scikit-learn by name, with settings that are checked before any work.

Without torch, and without scikit-learn until one is asked for: `check` starts in half the time.
"""

from collections.abc import Collection
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from competition.errors import ConfigError

REGRESSORS = {
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
CLASSIFIERS = {
    "calibration": "CalibratedClassifierCV", "gaussian_process": "GaussianProcessClassifier",
    "discriminant_analysis": "LinearDiscriminantAnalysis QuadraticDiscriminantAnalysis",
    "naive_bayes": "BernoulliNB ComplementNB GaussianNB MultinomialNB", "neural_network": "MLPClassifier",
    "neighbors": "KNeighborsClassifier", "svm": "NuSVC SVC",
    "tree": "DecisionTreeClassifier ExtraTreeClassifier",
    "ensemble": "AdaBoostClassifier BaggingClassifier ExtraTreesClassifier GradientBoostingClassifier "
    "HistGradientBoostingClassifier RandomForestClassifier",
    "linear_model": "LogisticRegression LogisticRegressionCV SGDClassifier",
}  # fmt: skip
"""Module -> its classifiers that have probabilities."""
OF_NUMBERS, OF_CLASSES = (
    {name: module for module, names in table.items() for name in names.split()} for table in (REGRESSORS, CLASSIFIERS)
)


def build_estimator(name: str, parameters: dict[str, Any], seed: int, classes: bool = False) -> Any:
    """A regressor of scikit-learn, or of `classes` a classifier, not fitted, with the seed where it takes one.

    A Gaussian process has no useful kernel by default; it gets a length scale and a noise to find by likelihood.

    Raises:
        ValueError: there is none of that name, or a parameter is wrong.
    """
    known, what = (OF_CLASSES, "classifier with predict_proba") if classes else (OF_NUMBERS, "regressor")
    _require_known(name, known, f"scikit-learn has no {what} {name}")
    found = _class(name)()
    settings = found.get_params(deep=False)
    for parameter in parameters:
        _require_known(parameter, settings, f"{name} has no parameter {parameter!r}")
    if name.startswith("GaussianProcess"):
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        found.set_params(kernel=ConstantKernel() * RBF(30.0, (0.1, 1e4)) + WhiteKernel())
    ours = {"random_state": seed % 2**31, "probability": True}  # probability: of SVC and NuSVC, by Platt's sigmoid
    found.set_params(**{key: value for key, value in ours.items() if key in settings})
    found.set_params(**parameters)
    found._validate_params()  # scikit-learn would do so first in fit, hours later
    if classes and not hasattr(found, "predict_proba"):
        raise ValueError(f"{name} has no predict_proba with these parameters; SGDClassifier has it with loss: log_loss")
    return found


def _class(name: str) -> type:
    return getattr(import_module(f"sklearn.{(OF_NUMBERS | OF_CLASSES)[name]}"), name)


def require_weights(estimator: str) -> None:
    """Refuse an estimator that cannot be fitted on rows with weights."""
    from sklearn.utils.validation import has_fit_parameter

    if not has_fit_parameter(_class(estimator), "sample_weight"):
        raise ConfigError(
            f"the rows have weights, and {estimator} takes no sample_weight in its fit. "
            "Choose another estimator (SVR, Ridge and LogisticRegression take it), or leave the weights out."
        )


def _require_known(name: str, known: Collection[str], what: str) -> None:
    if name not in known:
        raise ValueError(f"{what}; try {', '.join(get_close_matches(name, known, n=5, cutoff=0.4) or known)}")
