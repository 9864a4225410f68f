"""Estimators with scikit-learn's interface by the dotted path of their class: validation, construction and loading.

The module imports neither torch nor scikit-learn at the top, so that `check` starts in half the time.
"""

import inspect
from collections.abc import Collection
from difflib import get_close_matches
from importlib import import_module, metadata
from itertools import takewhile
from pathlib import Path
from typing import Any

from core.code_digest import code_digest_of
from core.errors import ConfigError

TRUSTED = [
    "numpy.dtype", "scipy.sparse._csr.csr_array", "scipy.sparse._csr.csr_matrix",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
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
"""Types that a skops file may contain in addition to those that skops trusts itself: plain
containers of numbers.

No whole package is trusted: numpy alone has a class that deletes the folder it names when it is
garbage-collected, `numpy.lib.npyio.DataSource`."""
DOWNLOAD_WARNINGS = {
    "tabicl": "it downloads its weights (BSD-3) from the hub in the first fit; kernel packs them",
    "tabpfn": "it downloads its weights in the first fit; TabPFN-2.5 and later require a login, and their "
    "licence is non-commercial, which may forbid prizes; TabPFN-2 is Apache-2.0 with attribution",
}
"""Package -> what a user should know about the weights of its estimators before a run."""
HUB_WEIGHTS = {"tabicl": "jingang/TabICL"}
"""Package -> repository of the Hugging Face hub with the weights of its estimators."""

AUTO_STOPS_ABOVE = 10_000
"""Number of rows above which scikit-learn's gradient boosting with `early_stopping: auto` stops early."""


def build_estimator(name: str, parameters: dict[str, Any], seed: int, classes: bool = False) -> Any:
    """Build an unfitted estimator, with the seed if it takes one.

    A Gaussian process has no useful default kernel. It gets one with a length scale and a noise
    level, which it fits by maximum likelihood. An estimator of another package gets one thread,
    since a job runs on each core.

    Args:
        name: dotted path of the class.
        parameters: parameters of the user. They override those that are set here.
        classes: whether to build a classifier; otherwise a regressor.

    Raises:
        ValueError: the estimator does not exist, is of the other kind, or rejects a parameter.
    """
    from sklearn.base import is_classifier, is_regressor

    estimator_type = estimator_class(name)
    has_kind = is_classifier if classes else is_regressor
    estimator = estimator_type() if hasattr(estimator_type, "__sklearn_tags__") else None
    if estimator is None or not has_kind(estimator):
        expected = "classifier with predict_proba" if classes else "regressor"
        raise ValueError(f"{name} is not a {expected} with the interface of scikit-learn")
    # The signature is read as well, since get_params of CatBoost returns only parameters that are set.
    signature = inspect.signature(estimator_type).parameters
    valid_names = {*estimator.get_params(deep=False), *signature}
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.values()):
        for parameter in parameters:
            require_valid_name(parameter, valid_names, f"{name} has no parameter {parameter!r}")
    if estimator_type.__name__.startswith("GaussianProcess"):
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        estimator.set_params(kernel=ConstantKernel() * RBF(30.0, (0.1, 1e4)) + WhiteKernel())
    # probability is a parameter of SVC and NuSVC: probabilities by Platt scaling.
    defaults = {"random_state": seed % 2**31, "probability": True}
    if is_from_other_package(name):
        defaults |= dict.fromkeys(("n_jobs", "n_threads", "thread_count"), 1)
    estimator.set_params(**{key: value for key, value in defaults.items() if key in valid_names} | parameters)
    if hasattr(estimator, "_parameter_constraints"):
        estimator._validate_params()  # otherwise scikit-learn validates them in fit, hours later
    if classes and not hasattr(estimator, "predict_proba"):
        raise ValueError(
            f"{name} has no predict_proba with these parameters; SGDClassifier has it with loss: log_loss"
        )
    return estimator


def estimator_class(path: str) -> Any:
    """Import the class of an estimator by its dotted path, such as sklearn.svm.SVR.

    Raises:
        ValueError: the path has no dots, or the class cannot be imported.
    """
    module, _, name = path.rpartition(".")
    if not module:
        raise ValueError(f"{path} must be the dotted path of a class; try {', '.join(_suggest_paths(name))}")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be imported: {error}; correct it, or pip install its package"
        ) from None


def _suggest_paths(name: str) -> list[str]:
    """Return the dotted paths of the estimators of scikit-learn whose names are closest to a name."""
    from sklearn.utils import all_estimators  # imports torch

    types = dict(all_estimators())
    paths = []
    for similar in get_close_matches(name, types, n=3, cutoff=0.4) or ["SVR", "LogisticRegression"]:
        parts = types[similar].__module__.split(".")
        public = takewhile(
            lambda part: not part.startswith("_"), parts
        )  # sklearn.svm of sklearn.svm._classes
        paths.append(".".join([*public, similar]))
    return paths


def is_from_other_package(path: str) -> bool:
    """Return whether a dotted path is of another package than scikit-learn."""
    return not path.startswith("sklearn.")


def splits_rows(estimator: Any, n_rows: int) -> bool:
    """Return whether a fit holds out some of its rows itself, to stop early, select a parameter or
    calibrate.
    """
    parameters = estimator.get_params(deep=False)
    stops_early = parameters.get("early_stopping", parameters.get("n_iter_no_change") is not None)
    if stops_early == "auto":
        stops_early = n_rows > AUTO_STOPS_ABOVE
    validates = "val_fraction" in parameters or parameters.get("probability") is True
    return bool(stops_early) or validates or type(estimator).__name__.endswith("CV")


def version_of(name: str) -> str:
    """Return the version of the package of a dotted name, or the digest of a user-defined module.

    It is part of the key of a job, since the requirements of this project do not pin these packages.
    """
    module = name.rpartition(".")[0]
    try:
        return metadata.version(module.partition(".")[0])
    except metadata.PackageNotFoundError:
        return code_digest_of(Path(str(import_module(module).__file__)))


def require_weights(estimator: str) -> None:
    """Raise a ConfigError if an estimator cannot be fitted with row weights."""
    from sklearn.utils.validation import has_fit_parameter

    if not has_fit_parameter(estimator_class(estimator), "sample_weight"):
        raise ConfigError(
            f"the rows have weights, but fit of {estimator} has no sample_weight. "
            "Choose another estimator (SVR, Ridge and LogisticRegression of sklearn have it), or remove the weights."
        )


def from_bytes(content: bytes) -> Any:
    """Return the object that `skops.io.dumps` wrote. An untrusted type in it raises an error before
    any of it runs.
    """
    import skops.io  # here, since it imports torch

    return skops.io.loads(content, trusted=TRUSTED)


def require_valid_name(name: str, valid_names: Collection[str], message: str) -> None:
    """Raise a ValueError if a name is not valid; it suggests the closest valid names, or all of them."""
    if name in valid_names:
        return
    suggestions = get_close_matches(name, valid_names, n=5, cutoff=0.4) or sorted(valid_names)
    raise ValueError(f"{message}; try {', '.join(suggestions)}")
