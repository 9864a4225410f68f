"""Estimators of scikit-learn by name, and others of its form by their dotted name, with settings that are checked
before any work.

Without torch, and without scikit-learn until one is asked for: `check` starts in half the time. A dotted name is
imported, with torch where its package needs it, since only the class knows its kind and its parameters.
"""

import inspect
from collections.abc import Collection
from difflib import get_close_matches
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from competition.errors import ConfigError
from models.inputs.code import code_digest_of

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


FETCHES = {
    "tabicl": ("model_path", "it fetches its weights (BSD-3) from the hub when it is first fitted; without the network "
    "set parameters: {model_path: FILE, allow_auto_download: false}"),
    "tabpfn": ("", "it fetches its weights when it is first fitted; those of TabPFN-2.5 and later need a login, and "
    "their licence is non-commercial, which may forbid prizes; those of TabPFN-2 are Apache-2.0 with attribution"),
}  # fmt: skip
"""Package -> the parameter that names its weights, and what is said where that is not set."""


def build_estimator(name: str, parameters: dict[str, Any], seed: int, classes: bool = False) -> Any:
    """A regressor, or of `classes` a classifier, not fitted, with the seed where it takes one.

    A Gaussian process has no useful kernel by default; it gets a length scale and a noise to find by likelihood. An
    estimator of another package gets one thread, as there is a job on each core.

    Raises:
        ValueError: there is none of that name, or it is of the other kind, or a parameter is wrong.
    """
    known, what = (OF_CLASSES, "classifier with predict_proba") if classes else (OF_NUMBERS, "regressor")
    foreign = "." in name
    if not foreign:
        _require_known(name, known, f"scikit-learn has no {what} {name}")
    if not hasattr(estimator_class(name), "get_params"):
        raise ValueError(f"{name} is no {what} of scikit-learn's form")
    found = estimator_class(name)()
    settings, takes_any = found.get_params(deep=False), False
    if foreign:
        from sklearn.base import is_classifier, is_regressor

        if not hasattr(found, "__sklearn_tags__") or not (is_classifier if classes else is_regressor)(found):
            raise ValueError(f"{name} is no {what} of scikit-learn's form")
        of_class = inspect.signature(type(found)).parameters  # CatBoost's get_params has only those that are set
        settings |= dict.fromkeys(of_class)
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in of_class.values())
    for parameter in parameters if not takes_any else ():
        _require_known(parameter, settings, f"{name} has no parameter {parameter!r}")
    if name.startswith("GaussianProcess"):
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        found.set_params(kernel=ConstantKernel() * RBF(30.0, (0.1, 1e4)) + WhiteKernel())
    ours = {"random_state": seed % 2**31, "probability": True}  # probability: of SVC and NuSVC, by Platt's sigmoid
    if foreign:
        ours |= dict.fromkeys(("n_jobs", "n_threads", "thread_count"), 1)
    found.set_params(**{key: value for key, value in ours.items() if key in settings} | parameters)
    if hasattr(found, "_parameter_constraints"):
        found._validate_params()  # scikit-learn would do so first in fit, hours later
    if classes and not hasattr(found, "predict_proba"):
        raise ValueError(f"{name} has no predict_proba with these parameters; SGDClassifier has it with loss: log_loss")
    return found


def estimator_class(name: str) -> Any:
    """The class of an estimator, imported."""
    module, _, attribute = name.rpartition(".")
    module = module or f"sklearn.{(OF_NUMBERS | OF_CLASSES)[name]}"
    if find_spec(package := module.partition(".")[0]) is None:
        raise ValueError(f"{package} is not installed; pip install {package}")
    try:
        return getattr(import_module(module), attribute)
    except ImportError as error:
        raise ValueError(f"{name} cannot be imported: {error}") from None
    except AttributeError:
        raise ValueError(f"{module} has no {attribute}") from None


def version_of(name: str) -> str:
    """Version of the package of a dotted name, which no requirement of ours pins, or digest of the user's module."""
    module = name.rpartition(".")[0]
    try:
        return metadata.version(module.partition(".")[0])
    except metadata.PackageNotFoundError:
        spec = find_spec(module)
        return code_digest_of(Path(spec.origin)) if spec and spec.origin else ""


def said_of(name: str, parameters: dict[str, Any]) -> str | None:
    """What a user should know of the weights of an estimator before a run starts."""
    parameter, sentence = FETCHES.get(name.partition(".")[0], ("", None))
    return None if parameters.get(parameter) else sentence


def require_weights(estimator: str) -> None:
    """Refuse an estimator that cannot be fitted on rows with weights."""
    from sklearn.utils.validation import has_fit_parameter

    if not has_fit_parameter(estimator_class(estimator), "sample_weight"):
        raise ConfigError(
            f"the rows have weights, and {estimator} takes no sample_weight in its fit. "
            "Choose another estimator (SVR, Ridge and LogisticRegression take it), or leave the weights out."
        )


def _require_known(name: str, known: Collection[str], what: str) -> None:
    if name not in known:
        raise ValueError(f"{what}; try {', '.join(get_close_matches(name, known, n=5, cutoff=0.4) or known)}")
