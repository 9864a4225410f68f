"""Estimators of other packages by their dotted name: what is refused, and what lies on disk of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from torch import nn

from competition.errors import ConfigError
from competition.task import Task
from models.config import SklearnStage
from models.estimators import build_estimator, said_of, version_of
from models.registry import build_stage
from models.stages import estimator_files
from tests.models.made import context, rows

HERE = __name__
X = np.random.default_rng(0).normal(size=(60, 3))
Y = X[:, 0] - 2 * X[:, 1] + 0.1 * np.random.default_rng(1).normal(size=60)


class Mean(RegressorMixin, BaseEstimator):
    """Plain numbers: the mean of the labels."""

    def fit(self, x: Any, y: Any) -> "Mean":
        self.mean_ = np.mean(y)
        return self

    def predict(self, x: Any) -> Any:
        return np.full(len(x), self.mean_)


class Part:
    """A type that no file may hold."""

    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.y = x, y


class Nearest(RegressorMixin, BaseEstimator):
    """One that learns in context: its model is its training rows."""

    n_fits = 0

    def __init__(self, random_state: int | None = None) -> None:
        self.random_state = random_state

    def fit(self, x: Any, y: Any, sample_weight: Any = None) -> "Nearest":
        Nearest.n_fits += 1
        self.part_ = Part(x, y if sample_weight is None else y * sample_weight)
        return self

    def predict(self, x: Any) -> Any:
        return self.part_.y[((x[:, None] - self.part_.x) ** 2).sum(axis=2).argmin(axis=1)]


class Unsteady(Nearest):
    """One that no seed holds."""

    def fit(self, x: Any, y: Any, sample_weight: Any = None) -> "Nearest":
        return super().fit(x, y + np.random.default_rng().normal(size=len(y)))


class Network(RegressorMixin, BaseEstimator):
    """A network in a list in a part, trained from its seed, whose epochs are counted."""

    trained: list[int] = []

    def __init__(self, n_epochs: int = 50, random_state: int = 0) -> None:
        self.n_epochs, self.random_state = n_epochs, random_state

    def fit(self, x: Any, y: Any) -> "Network":
        Network.trained.append(self.n_epochs)
        torch.manual_seed(self.random_state)
        model = nn.Sequential(nn.BatchNorm1d(x.shape[1]), nn.Linear(x.shape[1], 1))
        optimizer = torch.optim.Adam(model.parameters(), 0.05)
        for _ in range(self.n_epochs):
            optimizer.zero_grad()
            ((model(torch.tensor(x).float())[:, 0] - torch.tensor(y).float()) ** 2).mean().backward()
            optimizer.step()
        self.part_ = {"models": [Part(model.eval(), None)]}
        return self

    def predict(self, x: Any) -> Any:
        with torch.inference_mode():
            return self.part_["models"][0].x(torch.tensor(x).float())[:, 0].numpy()


def stage(folder: Path, estimator: str, **parameters: Any) -> Any:
    config = SklearnStage(kind="sklearn", estimator=estimator, parameters=parameters)
    return build_stage(config, context(folder, numeric=["a", "b", "c"]))


def columns(x: Any) -> dict[str, Any]:
    return dict(zip("abc", x.T, strict=True))


@pytest.mark.parametrize(
    ("estimator", "kept"),
    [
        ("sklearn.svm.SVR", ["skops"]),
        (f"{HERE}.Mean", ["skops"]),
        (f"{HERE}.Nearest", ["npz"]),
        (f"{HERE}.Network", ["npz", "safetensors"]),
        ("lightgbm.LGBMRegressor", ["npz"]),
    ],
)
def test_it_is_kept_without_pickle_and_another_process_predicts_the_same(
    tmp_path: Path, estimator: str, kept: list[str]
) -> None:
    fitted = stage(tmp_path, estimator)
    fitted.fit(rows(Y, **columns(X)), None, tmp_path)
    y_pred = fitted.predict(rows(**columns(X + 0.1)), tmp_path)
    assert sorted(file.suffix[1:] for file in tmp_path.glob("target_0.*")) == kept
    estimator_files._AGAIN.clear()  # as in another process
    found = stage(tmp_path, estimator).predict(rows(**columns(X + 0.1)), tmp_path)
    np.testing.assert_allclose(found, y_pred, atol=1e-6)


def test_a_network_is_trained_once_and_one_in_context_is_fitted_again_once_a_process(tmp_path: Path) -> None:
    table, Nearest.n_fits = rows(Y, **columns(X)), 0
    Network.trained.clear()
    for estimator in ("Network", "Nearest"):
        folder = tmp_path / estimator
        folder.mkdir()
        fitted = stage(tmp_path, f"{HERE}.{estimator}")
        fitted.fit(table, None, folder)
        for _ in range(3):
            fitted.predict(table, folder)
    assert Network.trained == [50, 1]
    assert Nearest.n_fits == 2


def test_one_that_predicts_otherwise_when_it_is_fitted_again_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Unsteady cannot be kept: fitted again on the same rows"):
        stage(tmp_path, f"{HERE}.Unsteady").fit(rows(Y, **columns(X)), None, tmp_path)


def test_weights_of_rows_are_kept_with_them(tmp_path: Path) -> None:
    weights = np.arange(60.0)
    fitted = stage(tmp_path, f"{HERE}.Nearest")
    fitted.fit(rows(Y, weights, **columns(X)), None, tmp_path)
    estimator_files._AGAIN.clear()
    y_pred = fitted.predict(rows(**columns(X)), tmp_path)[:, 0]
    assert np.allclose((y_pred - Y.mean()) / Y.std(), (Y - Y.mean()) / Y.std() * weights)


BINARY = Task(["y"], None, "binary", ["0", "1"])


@pytest.mark.parametrize(
    ("task", "settings", "says"),
    [
        (Task(["y"]), {"estimator": "nopackage.Regressor"}, "nopackage is not installed; pip install nopackage"),
        (Task(["y"]), {"estimator": "lightgbm.Regressor"}, "lightgbm has no Regressor"),
        (Task(["y"]), {"estimator": f"{HERE}.nothing.Regressor"}, "cannot be imported: No module named"),
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


def test_weights_that_are_fetched_are_told_before_a_run_and_the_version_of_a_package_is_known() -> None:
    assert "model_path" in str(said_of("tabicl.TabICLRegressor", {}))
    assert said_of("tabicl.TabICLRegressor", {"model_path": "here.ckpt"}) is None
    assert "non-commercial" in str(said_of("tabpfn.TabPFNRegressor", {}))
    assert said_of("SVR", {}) is None
    assert version_of("lightgbm.LGBMRegressor")[0].isdigit()
    assert len(version_of(f"{HERE}.Mean")) > 8
