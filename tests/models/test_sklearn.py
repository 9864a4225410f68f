"""The stage of estimators of scikit-learn and other packages: features, errors, and saved files."""

import numpy as np
import pytest
import skops.io
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import Ridge
from skops.io.exceptions import UntrustedTypesFoundException

from competition.task import Task
from core.errors import ConfigError
from models.inputs.skops_files import from_bytes
from models.stages.sklearn import _FITTED, Sklearn, build_estimator, version_of
from tests.models.made import context, fitted, rows

X6 = np.arange(6.0)
CLASSIFIERS = """
calibration.CalibratedClassifierCV discriminant_analysis.LinearDiscriminantAnalysis
discriminant_analysis.QuadraticDiscriminantAnalysis ensemble.AdaBoostClassifier ensemble.BaggingClassifier
ensemble.ExtraTreesClassifier ensemble.GradientBoostingClassifier ensemble.HistGradientBoostingClassifier
ensemble.RandomForestClassifier gaussian_process.GaussianProcessClassifier linear_model.LogisticRegression
linear_model.LogisticRegressionCV linear_model.SGDClassifier naive_bayes.BernoulliNB naive_bayes.ComplementNB
naive_bayes.GaussianNB naive_bayes.MultinomialNB neighbors.KNeighborsClassifier neural_network.MLPClassifier
svm.NuSVC svm.SVC tree.DecisionTreeClassifier tree.ExtraTreeClassifier
"""
"""Classifiers of scikit-learn with probabilities whose files skops reads with our list of types."""


def fit(folder, y, estimator, x, parameters=None, weights=None):
    """Return a stage that is fitted on one numeric column."""
    config = Sklearn(kind="sklearn", estimator=estimator, parameters=parameters or {})
    return fitted(config, context(folder, numeric=["x"]), rows(y, weights, x=x), folder)


def test_a_missing_number_becomes_the_median_and_an_outlier_the_end_of_the_training_range(
    tmp_path,
):
    x = np.array([0.0, 1, 2, 3, 4, np.nan])
    stage = fit(tmp_path, [0.0, 1, 2, 3, 4, 2], "sklearn.linear_model.LinearRegression", x)
    assert stage.predict(rows(x=[np.nan, 3.0, 1e6]), tmp_path)[:, 0] == pytest.approx([2, 3, 4])


def test_a_rare_feature_of_a_molecule_does_not_outweigh_common_ones(tmp_path):
    """A molecule with bromine, which no other has, is still predicted by its chain."""
    lengths = np.repeat(np.arange(2.0, 22), 2)
    smiles = ["C" * int(n) + end for n, end in zip(lengths, ["", "O"] * 20, strict=True)]
    config = Sklearn(kind="sklearn", estimator="sklearn.svm.SVR")
    stage = fitted(config, context(tmp_path, smiles=["s"]), rows(lengths, s=smiles), tmp_path)
    assert stage.predict(rows(s=["C" * 18 + "Br"]), tmp_path)[0, 0] > lengths.mean() + 2


def test_errors_of_scikit_learn_are_reported(tmp_path):
    with pytest.raises(ConfigError, match=r"RidgeCV rejects the rows.*n_splits"):
        fit(tmp_path, X6, "sklearn.linear_model.RidgeCV", X6, {"cv": 20})
    stage = fit(tmp_path, X6, "sklearn.neighbors.KNeighborsRegressor", X6, {"n_neighbors": 9})
    with pytest.raises(ConfigError, match=r"KNeighborsRegressor rejects .*n_neighbors"):
        stage.predict(rows(x=[1.0]), tmp_path)


def test_a_gaussian_process_learns_from_noisy_labels_and_a_loaded_one_predicts_the_same():
    """With scikit-learn's default kernel it would fit every noisy label exactly."""
    x, noise = np.linspace(0, 6, 60)[:, None], 0.3 * np.random.default_rng(0).normal(size=60)
    name = "sklearn.gaussian_process.GaussianProcessRegressor"
    fitted = build_estimator(name, {}, seed=0).fit(x, np.sin(x[:, 0]) + noise)
    y_pred = fitted.predict(x)
    assert np.std(y_pred - np.sin(x[:, 0])) < 0.2
    assert np.array_equal(from_bytes(skops.io.dumps(fitted)).predict(x), y_pred)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CLASSIFIERS.split())
def test_every_classifier_has_probabilities_of_three_classes_and_a_loaded_one_has_the_same(name):
    y = np.repeat([0.0, 1.0, 2.0], 25)
    rng = np.random.default_rng(0)
    x = np.eye(3)[y.astype(int)] * rng.uniform(2, 4, (75, 3)) + rng.binomial(1, 0.1, (75, 3))
    parameters = {"loss": "log_loss"} if name.endswith("SGDClassifier") else {}
    fitted = build_estimator(f"sklearn.{name}", parameters, 0, classes=True).fit(x, y)
    y_pred = fitted.predict_proba(x)
    assert (y_pred.argmax(axis=1) == y).mean() > 0.8
    assert np.array_equal(from_bytes(skops.io.dumps(fitted)).predict_proba(x), y_pred)


REGRESSION = Task(["y"])
MULTICLASS = Task(["y"], None, "multiclass", ["a", "b", "c"])


@pytest.mark.parametrize("settings", [{}, {"estimator": "sklearn.svm.SVC"}])
def test_the_default_for_classes_is_a_classifier_and_a_class_without_rows_has_probability_0(
    settings, tmp_path
):
    """The labels b and c have shares of 1/4 and 3/4. A warning of SVC about its probabilities is hidden."""
    train = rows(1.0 + (np.arange(100) % 4 > 0), x=np.zeros(100))
    stage_context = context(tmp_path, numeric=["x"], task=MULTICLASS)
    stage = fitted(Sklearn(kind="sklearn", **settings), stage_context, train, tmp_path)
    assert stage.predict(rows(x=[0.0]), tmp_path)[0] == pytest.approx([0, 0.25, 0.75], abs=0.02)


@pytest.mark.parametrize(
    ("task", "estimator", "parameters", "message"),
    [
        (MULTICLASS, "sklearn.svm.SVR", {}, r"SVR is not a classifier .* \(this stage learns multiclass\)"),
        (REGRESSION, "lightgbm.LGBMClassifier", {}, r"not a regressor .* \(this stage learns regression\)"),
        (MULTICLASS, "sklearn.linear_model.SGDClassifier", {}, "has it with loss: log_loss"),
        (REGRESSION, "Ridge", {}, r"Ridge must be the dotted path of a class, such as sklearn\.svm\.SVR"),
        (REGRESSION, "sklearn.svm.SVR", {"c": 10}, "SVR has no parameter 'c'; try C"),
        (REGRESSION, "sklearn.svm.SVR", {"C": -1}, "Got -1"),
        (REGRESSION, "nopackage.Regressor", {}, "cannot be imported: No module named 'nopackage'"),
        (REGRESSION, "lightgbm.Booster", {}, "lightgbm.Booster is not a regressor"),
    ],
)
def test_a_missing_estimator_one_of_the_other_kind_or_an_invalid_parameter_is_rejected(
    task, estimator, parameters, message
):
    config = Sklearn(kind="sklearn", estimator=estimator, parameters=parameters)
    with pytest.raises(ConfigError, match=message):
        config.task_for(task)


class Foreign(Ridge):
    """A type that scikit-learn does not define."""


@pytest.mark.parametrize("value", [Foreign(), np.lib.npyio.DataSource(None)])
def test_a_file_with_an_untrusted_type_or_a_dangerous_one_of_numpy_is_not_loaded(value):
    with pytest.raises(UntrustedTypesFoundException):
        from_bytes(skops.io.dumps(value))


class Nearest(RegressorMixin, BaseEstimator):
    """An estimator that learns in context: its model is its training rows."""

    n_fits = 0

    def fit(self, x, y, sample_weight=1.0):
        Nearest.n_fits += 1
        self.x_ = x
        self.y_ = y * sample_weight
        return self

    def predict(self, x):
        return self.y_[((x[:, None] - self.x_) ** 2).sum(axis=2).argmin(axis=1)]


def test_an_external_estimator_saves_its_training_rows_and_each_process_fits_it_once(tmp_path):
    y, weights = X6 % 4, X6 + 1
    stage = fit(tmp_path, y, f"{__name__}.Nearest", X6, weights=weights)
    for n_fits in (1, 2):
        for _ in range(2):
            y_pred = stage.predict(rows(x=X6), tmp_path)[:, 0]
            assert y_pred == pytest.approx((y - y.mean()) * weights + y.mean())
        assert Nearest.n_fits == n_fits
        _FITTED.clear()  # as in another process
    assert [file.suffix for file in tmp_path.glob("target_0.*")] == [".npz"]


class Seeded(RegressorMixin, BaseEstimator):
    """An estimator with a seed and threads, named as CatBoost names them."""

    def __init__(self, random_state=None, thread_count=None):
        self.random_state = random_state
        self.thread_count = thread_count


def test_an_estimator_gets_the_seed_and_one_thread_unless_set_and_has_a_version_or_a_code_digest():
    own = build_estimator(f"{__name__}.Seeded", {}, seed=5)
    assert own.get_params() == {"random_state": 5, "thread_count": 1}
    other = build_estimator("lightgbm.LGBMRegressor", {"n_jobs": 2, "random_state": 7}, seed=5)
    assert (other.n_jobs, other.random_state) == (2, 7)
    assert version_of("lightgbm.LGBMRegressor")[0].isdigit()
    assert len(version_of(f"{__name__}.Nearest")) > 8
