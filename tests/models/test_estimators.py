"""Estimators of other packages by their dotted name: what is refused, and what lies on disk of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin

from competition.errors import ConfigError
from competition.task import Task
from models.config import SklearnStage
from models.estimators import build_estimator, version_of
from models.registry import build_stage
from models.stages.sklearn import _FITTED
from tests.models.made import context, rows

HERE = __name__
X = np.random.default_rng(0).normal(size=(60, 3))
Y = X[:, 0] - 2 * X[:, 1] + 0.1 * np.random.default_rng(1).normal(size=60)


class Nearest(RegressorMixin, BaseEstimator):
    """One that learns in context: its model is its training rows."""

    n_fits = 0

    def __init__(self, random_state: int | None = None) -> None:
        self.random_state = random_state

    def fit(self, x: Any, y: Any, sample_weight: Any = 1.0) -> "Nearest":
        Nearest.n_fits += 1
        self.x_, self.y_ = x, y * sample_weight
        return self

    def predict(self, x: Any) -> Any:
        return self.y_[((x[:, None] - self.x_) ** 2).sum(axis=2).argmin(axis=1)]


def stage(folder: Path, estimator: str, **parameters: Any) -> Any:
    config = SklearnStage(kind="sklearn", estimator=estimator, parameters=parameters)
    return build_stage(config, context(folder, numeric=["a", "b", "c"]))


def columns(x: Any) -> dict[str, Any]:
    return dict(zip("abc", x.T, strict=True))


@pytest.mark.parametrize("estimator", [f"{HERE}.Nearest", "lightgbm.LGBMRegressor"])
def test_its_training_rows_are_kept_with_their_weights_and_another_process_fits_it_again_once(
    tmp_path: Path, estimator: str
) -> None:
    Nearest.n_fits = 0
    fitted, weights = stage(tmp_path, estimator), np.arange(1.0, 61)
    fitted.fit(rows(Y, weights, **columns(X)), None, tmp_path)
    y_pred = fitted.predict(rows(**columns(X)), tmp_path)
    if "Nearest" in estimator:
        assert np.allclose((y_pred[:, 0] - Y.mean()) / Y.std(), (Y - Y.mean()) / Y.std() * weights)
        assert Nearest.n_fits == 1
    assert [file.suffix for file in tmp_path.glob("target_0.*")] == [".npz"]
    _FITTED.clear()  # as in another process
    for _ in range(2):
        found = stage(tmp_path, estimator).predict(rows(**columns(X)), tmp_path)
        np.testing.assert_array_equal(found, y_pred)
    assert Nearest.n_fits in (0, 2)


BINARY = Task(["y"], None, "binary", ["0", "1"])


@pytest.mark.parametrize(
    ("task", "settings", "says"),
    [
        (Task(["y"]), {"estimator": "nopackage.Regressor"}, "cannot be imported: No module named 'nopackage'"),
        (Task(["y"]), {"estimator": "lightgbm.Regressor"}, "cannot be imported: module 'lightgbm' has no attribute"),
        (Task(["y"]), {"estimator": "lightgbm.LGBMClassifier"}, r"no regressor .*\(this stage learns regression\)"),
        (Task(["y"]), {"estimator": "lightgbm.Booster"}, "lightgbm.Booster is no regressor"),
        (Task(["y"]), {"estimator": "sklearn.pipeline.Pipeline"}, "missing 1 required positional argument"),
        (BINARY, {"estimator": "lightgbm.LGBMRegressor"}, "no classifier with predict_proba"),
        (BINARY, {"estimator": "sklearn.svm.LinearSVC"}, "no predict_proba"),
        (Task(["y"]), {"estimator": f"{HERE}.Nearest", "parameters": {"seeed": 1}}, "Nearest has no parameter 'seeed'"),
        (Task(["y"]), {"estimator": "sklearn.svm.SVR", "parameters": {"C": -1}}, "Got -1"),
    ],
)
def test_what_is_not_there_or_of_the_other_kind_is_one_sentence_before_any_work(
    tmp_path: Path, task: Task, settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        build_stage(SklearnStage.model_validate({"kind": "sklearn", **settings}), context(tmp_path, task=task))


def test_the_seed_and_one_thread_go_to_an_estimator_that_takes_them() -> None:
    assert build_estimator(f"{HERE}.Nearest", {}, seed=5).random_state == 5
    assert build_estimator("catboost.CatBoostRegressor", {}, seed=5).get_params() == {
        "loss_function": "RMSE", "random_state": 5, "thread_count": 1,
    }  # fmt: skip
    assert build_estimator("lightgbm.LGBMRegressor", {"n_jobs": 2}, seed=5).n_jobs == 2


def test_the_version_of_a_package_is_known_and_the_content_of_a_module_of_ones_own() -> None:
    assert version_of("lightgbm.LGBMRegressor")[0].isdigit()
    assert len(version_of(f"{HERE}.Nearest")) > 8
