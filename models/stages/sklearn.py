"""Stage `sklearn`: an estimator with the interface of scikit-learn, one per target.

It has the same features as the tree stages. Their scaling (`models/inputs/scaling.py`) and the TF-IDF of
texts are fitted once for all targets. Nothing is pickled: estimators of scikit-learn are saved by skops, in
files with trusted types and numbers only. For an estimator of another package the training rows are
saved, and the estimator is fitted again when it predicts, which is fast for in-context learners such as
TabPFN. Source: Pedregosa et al., scikit-learn, JMLR 2011.
"""

import inspect
import warnings
from collections.abc import Iterator
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np

from competition.dataset import Dataset
from competition.task import Task
from core.errors import PIP_INSTALL, ConfigError
from core.files import sha256_of
from core.modules import code_digest_of, load
from core.settings import nearest
from core.types import Array, ProblemType
from core.user_code import in_order_of
from models.context import CheckTables, Context
from models.features import feature_blocks, fit_encoders
from models.inputs.columns import table_blocks
from models.inputs.scaling import Blocks, fit_scaling, scaled_matrix
from models.inputs.skops_files import from_bytes
from models.stages.tabular import NGRAMS, FeatureStage, TargetData, library_seed

SKLEARN = "sklearn."
"""Start of the paths of estimators of scikit-learn."""
NGRAMS_FILE = "ngrams.skops"
_FITTED: dict[Any, Any] = {}
"""Fitted estimators of other packages, of one job."""
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


class Sklearn(FeatureStage):
    """An estimator with the interface of scikit-learn, on the same features as the trees, one per
    target.

    Most estimators are deterministic: more seeds do not change them.
    """

    packages = ("scikit-learn", "scipy")
    predicts_on_gpu = True
    kind: Literal["sklearn"]
    estimator: str | None = None
    """Dotted path of the class of a regressor, or for classification of a classifier with predict_proba, of
    scikit-learn or another installed package: sklearn.linear_model.Ridge, pytabkit.RealMLP_TD_Regressor.
    null: sklearn.svm.SVR, or sklearn.linear_model.LogisticRegression for classification."""

    @property
    def optional_packages(self) -> set[str]:
        """The dotted path of `estimator`, if it is set."""
        return {self.estimator} if self.estimator else set()

    @property
    def is_from_other_package(self) -> bool:
        """Whether the estimator is not one of scikit-learn."""
        return self.estimator is not None and not self.estimator.startswith(SKLEARN)

    def key_settings(self, task: Task) -> dict[str, Any]:
        """Return the version of the package of an estimator that is not one of scikit-learn."""
        return {"package": version_of(str(self.estimator))} if self.is_from_other_package else {}

    def model_name(self, problem_type: ProblemType) -> str:
        """Return the dotted path of the estimator for a problem type."""
        is_regression = problem_type == "regression"
        default = "sklearn.svm.SVR" if is_regression else "sklearn.linear_model.LogisticRegression"
        return self.estimator or default

    def import_libraries(self, context: Context) -> None:
        """Import the estimator, and what saves it."""
        super().import_libraries(context)
        import_module("skops.io")
        estimator_class(self.model_name(context.task.problem_type))

    def config_errors(self, problem_type: ProblemType) -> Iterator[str]:
        """Yield the errors of `Stage.config_errors`, and of an estimator that cannot be built.

        It may not exist, be of the other kind (regressor, classifier), or reject its parameters.
        """
        yield from super().config_errors(problem_type)
        name = self.model_name(problem_type)
        try:
            build_estimator(name, self.parameters, seed=0, classes=problem_type != "regression")
        except (ValueError, TypeError) as error:  # TypeError: its constructor has required arguments
            yield f"estimator: {' '.join(str(error).split())} (this stage learns {problem_type})"

    def check(self, tables: CheckTables) -> Iterator[str]:
        """Check that the estimator takes weights if there are any, and warn of what it does by itself.

        It may download weights, or hold out rows against the groups or the time; see also `Stage.check`.
        """
        yield from super().check(tables)
        name = self.model_name(tables.task.problem_type)
        if tables.has_weights or (tables.has_extra_weights and self.extra_rows != "ignore"):
            require_weights(name)
        warning = DOWNLOAD_WARNINGS.get(name.partition(".")[0])
        if warning:
            yield warning
        n_tied = int((np.bincount(tables.groups)[tables.groups] > 1).sum())
        if not n_tied and not tables.in_time_order:
            return
        has_classes = tables.task.problem_type != "regression"
        if splits_rows(build_estimator(name, self.parameters, 0, has_classes), len(tables.groups)):
            ignored = f"keep the groups of {n_tied} rows together"
            if tables.in_time_order:
                ignored = "hold out the latest"
            yield f"{name} holds out some training rows by itself and cannot {ignored}, so it may overfit"

    def library_errors(self) -> tuple[type[Exception], ...]:
        """Return the errors by which estimators reject parameters and rows."""
        return ValueError, TypeError

    def fit_features(self, train: Dataset, folder: Path, context: Context) -> None:
        """Fit the frozen encoders, the n-grams and the scaling of all columns."""
        import skops.io
        from sklearn.compose import ColumnTransformer
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.utils import get_tags

        fit_encoders(train, self, context, folder)
        fit_scaling(self._blocks(train, folder, context), folder, ranked=["molecules"])
        fitted = []
        if self.reads_texts(context):
            fitted = load(NGRAMS).fit_ngrams(train, self.tfidf_features, context, folder)
        ngrams: list[Any] = []
        for name, settings in fitted:
            vectorizer = TfidfVectorizer(**settings, sublinear_tf=True, dtype=np.float32)
            ngrams.append((str(len(ngrams)), vectorizer, name))
        if ngrams:
            estimator = self._build(library_seed(context), context.task)
            takes_sparse = not self.is_from_other_package and get_tags(estimator).input_tags.sparse
            weights = ColumnTransformer(ngrams, sparse_threshold=float(takes_sparse)).fit(train.inputs)
            skops.io.dump(weights, folder / NGRAMS_FILE)

    def build_features(self, rows: Dataset, folder: Path, context: Context) -> Any:
        """Return the features of rows, (n_rows, n_features).

        With n-grams they are sparse if the estimator accepts it.
        """
        from scipy import sparse

        x = scaled_matrix(self._blocks(rows, folder, context), folder)
        if not (folder / NGRAMS_FILE).exists():
            return x
        ngrams = from_bytes((folder / NGRAMS_FILE).read_bytes()).transform(rows.inputs)
        return sparse.hstack([x, ngrams], format="csr") if sparse.issparse(ngrams) else np.hstack([x, ngrams])

    def _blocks(self, rows: Dataset, folder: Path, context: Context) -> Blocks:
        """Return the unscaled features of molecules and encoders, and the numbers and categories."""
        return feature_blocks(rows, self, context, folder) | table_blocks(rows, context)

    def fit_target(self, data: TargetData, target: int, path: Path, context: Context) -> dict[str, Any]:
        """Fit an estimator and write it, or its training rows if it is of another package."""
        import skops.io

        seed = library_seed(context)
        weights: dict[str, Any] = {} if data.weights is None else {"sample_weight": data.weights}
        if self.is_from_other_package:
            # The arrays have the names of the arguments of `_fitted`.
            np.savez_compressed(path.with_suffix(".npz"), seed=seed, x=data.x, y=data.y, **weights)
            self._refit(path.with_suffix(".npz"), context.task)  # raises the estimator's errors now
        else:
            estimator = self._fitted(context.task, seed, data.x, data.y, **weights)
            skops.io.dump(estimator, path.with_suffix(".skops"))
        return {}

    def predict_target(self, x: Any, path: Path, context: Context) -> Array:
        """Return predictions (n_rows,) of an estimator, or probabilities (n_rows, n_classes)."""
        if self.is_from_other_package:
            estimator = self._refit(path.with_suffix(".npz"), context.task)
        else:
            estimator = from_bytes(path.with_suffix(".skops").read_bytes())
        predict = estimator.predict_proba if context.task.has_probabilities else estimator.predict
        return np.asarray(in_order_of(predict(x), range(x.shape[0])))

    def _build(self, seed: int, task: Task) -> Any:
        return build_estimator(
            self.model_name(task.problem_type), self.parameters, seed, task.has_probabilities
        )

    def _fitted(self, task: Task, seed: int, x: Any, y: Array, **weights: Array) -> Any:
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # max_iter is a setting
            warnings.simplefilter("ignore", FutureWarning)  # the version is pinned
            return self._build(int(seed), task).fit(x, y, **weights)

    def _refit(self, rows: Path, task: Task) -> Any:
        """Return the estimator, fitted on the rows of a file, once per process."""
        key = rows.parent, sha256_of(rows), self.model_name(task.problem_type), repr(self.parameters)
        if key not in _FITTED:
            if any(folder != rows.parent for folder, *_ in _FITTED):
                _FITTED.clear()
            with np.load(rows) as arrays:
                _FITTED[key] = self._fitted(task, **arrays)
        return _FITTED[key]


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
    takes_any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.values())
    unknown = sorted(parameters.keys() - valid_names)
    if unknown and not takes_any_name:
        raise ValueError(f"{name} has no parameter {unknown[0]!r}; try {nearest(unknown[0], valid_names)}")
    if estimator_type.__name__.startswith("GaussianProcess"):
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        estimator.set_params(kernel=ConstantKernel() * RBF(30.0, (0.1, 1e4)) + WhiteKernel())
    # probability is a parameter of SVC and NuSVC: probabilities by Platt scaling.
    # cache_size, in MB, of SVMs: with the default of 200 kernels of more than 7,000 rows are computed again.
    defaults = {"random_state": seed, "probability": True, "cache_size": 500}
    if not name.startswith(SKLEARN):
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
        raise ValueError(f"{path} must be the dotted path of a class, such as sklearn.svm.SVR")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be imported: {error}; correct it, or install its package: {PIP_INSTALL} NAME"
        ) from None


def splits_rows(estimator: Any, n_rows: int) -> bool:
    """Return whether a fit holds out some of its rows itself, to stop early or to select a parameter.

    That of an SVC calibrates two numbers only, and a blend scales its probabilities on held-out folds again.
    """
    parameters = estimator.get_params(deep=False)
    stops_early = parameters.get("early_stopping", parameters.get("n_iter_no_change") is not None)
    if stops_early == "auto":
        stops_early = n_rows > AUTO_STOPS_ABOVE
    return bool(stops_early) or "val_fraction" in parameters or type(estimator).__name__.endswith("CV")


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
            "Choose another estimator (SVR, Ridge and LogisticRegression of sklearn have it), "
            "or remove the weights."
        )
