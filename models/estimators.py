"""Estimators of scikit-learn by name, and others of its form by their dotted name: checked before any work, and kept
without pickle.

Without torch, and without scikit-learn until one is asked for: `check` starts in half the time. A dotted name is
imported, with torch where its package needs it, since only the class knows its kind and its parameters.
"""

import inspect
from collections.abc import Collection
from difflib import get_close_matches
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from competition.errors import ConfigError
from models.inputs.code import code_digest_of

MODULES = {
    "calibration": "CalibratedClassifierCV", "cross_decomposition": "CCA PLSCanonical PLSRegression",
    "discriminant_analysis": "LinearDiscriminantAnalysis QuadraticDiscriminantAnalysis",
    "ensemble": "AdaBoostClassifier AdaBoostRegressor BaggingClassifier BaggingRegressor ExtraTreesClassifier "
    "ExtraTreesRegressor GradientBoostingClassifier GradientBoostingRegressor HistGradientBoostingClassifier "
    "HistGradientBoostingRegressor RandomForestClassifier RandomForestRegressor",
    "gaussian_process": "GaussianProcessClassifier GaussianProcessRegressor", "kernel_ridge": "KernelRidge",
    "linear_model": "ARDRegression BayesianRidge ElasticNet ElasticNetCV HuberRegressor Lars LarsCV Lasso LassoCV "
    "LassoLars LassoLarsCV LassoLarsIC LinearRegression LogisticRegression LogisticRegressionCV "
    "OrthogonalMatchingPursuit OrthogonalMatchingPursuitCV PassiveAggressiveRegressor QuantileRegressor "
    "RANSACRegressor Ridge RidgeCV SGDClassifier SGDRegressor TheilSenRegressor TweedieRegressor",
    "naive_bayes": "BernoulliNB ComplementNB GaussianNB MultinomialNB",
    "neighbors": "KNeighborsClassifier KNeighborsRegressor RadiusNeighborsRegressor",
    "neural_network": "MLPClassifier MLPRegressor", "svm": "LinearSVR NuSVC NuSVR SVC SVR",
    "tree": "DecisionTreeClassifier DecisionTreeRegressor ExtraTreeClassifier ExtraTreeRegressor",
}  # fmt: skip
"""Module -> its regressors of many features for labels of either sign, and its classifiers that have probabilities;
scikit-learn's own list would import torch."""
MODULE_OF = {name: f"sklearn.{module}" for module, names in MODULES.items() for name in names.split()}
TRUSTED = [
    "numpy.dtype", "scipy.sparse._csr.csr_matrix", "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.calibration._CalibratedClassifier", "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace", "sklearn.gaussian_process.kernels.RBF",
    "sklearn.gaussian_process.kernels.ConstantKernel", "sklearn.gaussian_process.kernels.WhiteKernel",
    "sklearn.gaussian_process.kernels.Product", "sklearn.gaussian_process.kernels.Sum",
    "sklearn.metrics._dist_metrics.EuclideanDistance64", "sklearn.metrics._dist_metrics.ManhattanDistance64",
    "sklearn.neighbors._ball_tree.BallTree", "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer", "sklearn.tree._tree.Tree",
]  # fmt: skip
"""Types that a file may hold beside those skops trusts by itself: all plain containers of numbers. No whole package is
trusted: numpy alone has a class that deletes the folder it names when it is collected, `numpy.lib.npyio.DataSource`."""
FETCHES = {
    "tabicl": "it fetches its weights (BSD-3) from the hub when it is first fitted; without the network set "
    "parameters: {model_path: FILE, allow_auto_download: false}",
    "tabpfn": "it fetches its weights when it is first fitted; those of TabPFN-2.5 and later need a login, and their "
    "licence is non-commercial, which may forbid prizes; those of TabPFN-2 are Apache-2.0 with attribution",
}
"""Package -> what a user should know of the weights of its estimators before a run starts."""

AUTO_STOPS_ABOVE = 10_000
"""Rows above which the gradient boosting of scikit-learn with `early_stopping: auto` stops early."""


def build_estimator(name: str, parameters: dict[str, Any], seed: int, classes: bool = False) -> Any:
    """A regressor, or of `classes` a classifier, not fitted, with the seed where it takes one.

    A Gaussian process has no useful kernel by default; it gets a length scale and a noise to find by likelihood. An
    estimator of another package gets one thread, as there is a job on each core.

    Raises:
        ValueError: there is none of that name, or it is of the other kind, or a parameter is wrong.
    """
    from sklearn.base import is_classifier, is_regressor

    kind = estimator_class(name)
    if not hasattr(kind, "__sklearn_tags__") or not (is_classifier if classes else is_regressor)(found := kind()):
        what = "classifier with predict_proba" if classes else "regressor"
        raise ValueError(f"{name} is no {what} of scikit-learn's form")
    signature = inspect.signature(kind).parameters  # CatBoost's get_params has only those that are set
    settings = {*found.get_params(deep=False), *signature}
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.values()):
        for parameter in parameters:
            require_known(parameter, settings, f"{name} has no parameter {parameter!r}")
    if name.startswith("GaussianProcess"):
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        found.set_params(kernel=ConstantKernel() * RBF(30.0, (0.1, 1e4)) + WhiteKernel())
    ours = {"random_state": seed % 2**31, "probability": True}  # probability: of SVC and NuSVC, by Platt's sigmoid
    if "." in name:
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
    if not module:
        require_known(name, MODULE_OF, f"there is no estimator {name} of scikit-learn to choose")
    try:
        return getattr(import_module(module or MODULE_OF[name]), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name} cannot be imported: {error}; correct it, or pip install its package") from None


def splits_rows(estimator: Any, n_rows: int) -> bool:
    """Return whether a fit holds out some of its rows by itself, to stop early, choose a setting or calibrate."""
    settings = estimator.get_params(deep=False)
    stops_early = settings.get("early_stopping", settings.get("n_iter_no_change") is not None)
    if stops_early == "auto":
        stops_early = n_rows > AUTO_STOPS_ABOVE
    validates = "val_fraction" in settings or settings.get("probability") is True
    return bool(stops_early) or validates or type(estimator).__name__.endswith("CV")


def version_of(name: str) -> str:
    """Version of the package of a dotted name, which no requirement of ours pins, or digest of the user's module."""
    module = name.rpartition(".")[0]
    try:
        return metadata.version(module.partition(".")[0])
    except metadata.PackageNotFoundError:
        return code_digest_of(Path(str(import_module(module).__file__)))


def require_weights(estimator: str) -> None:
    """Refuse an estimator that cannot be fitted on rows with weights."""
    from sklearn.utils.validation import has_fit_parameter

    if not has_fit_parameter(estimator_class(estimator), "sample_weight"):
        raise ConfigError(
            f"the rows have weights, and {estimator} takes no sample_weight in its fit. "
            "Choose another estimator (SVR, Ridge and LogisticRegression take it), or leave the weights out."
        )


def from_bytes(content: bytes) -> Any:
    """What `skops.io.dumps` was given; a type in it that is not trusted is an error, and nothing of it is run."""
    import skops.io  # here, since it imports torch

    return skops.io.loads(content, trusted=TRUSTED)


def require_known(name: str, known: Collection[str], what: str) -> None:
    """A ValueError with the names that are close to one that is not known, or else all."""
    if name not in known:
        raise ValueError(f"{what}; try {', '.join(get_close_matches(name, known, n=5, cutoff=0.4) or sorted(known))}")
