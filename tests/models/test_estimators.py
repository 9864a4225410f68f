"""Regressors of scikit-learn: by name, per target, on disk without pickle."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline

from competition.config import validate
from competition.errors import ConfigError, DataError
from competition.files import sha256_of
from competition.paths import PROJECT
from models.config import StagesConfig
from models.stages.estimators import build_regressor, fit_targets, load, predict_targets, save


def pipeline_of(name: str, **parameters: Any) -> Any:
    return lambda: Pipeline([("regressor", build_regressor(name, parameters, seed=1))])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"regressor": "SVM"}, "stages.one.regressor: .*close to it: SVR"),
        ({"regressor": "ridge"}, "close to it: Ridge"),
        ({"regressor": "GammaRegressor"}, "must be a regressor"),
        ({"regressor": "SVR", "parameters": {"c": 10}}, "stages.one.parameters: SVR has no parameter 'c'; .*: C"),
        ({"regressor": "SVR", "parameters": {"C": -1}}, "stages.one.parameters: .*'C' .*Got -1"),
    ],
)
def test_an_unknown_name_or_value_is_refused_before_any_work(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        validate(StagesConfig, {"stages": {"one": {"kind": "sklearn", **settings}}}, Path("a.yaml"))


def test_checking_a_regressor_imports_no_torch() -> None:
    code = "import sys; from models.config import SklearnStage; SklearnStage(kind='sklearn', regressor='Ridge'); "
    assert not subprocess.run([sys.executable, "-c", code + "sys.exit('torch' in sys.modules)"], cwd=PROJECT).returncode


def test_the_seed_goes_where_there_is_chance_and_the_users_own_stands() -> None:
    assert build_regressor("ExtraTreesRegressor", {}, seed=5).random_state == 5
    assert build_regressor("ExtraTreesRegressor", {"random_state": 7}, seed=5).random_state == 7


def test_a_gaussian_process_finds_the_noise_of_a_law() -> None:
    """With scikit-learn's default kernel it goes through every noisy label."""
    rng = np.random.default_rng(0)
    x = np.linspace(0, 6, 60)[:, None]
    y = np.sin(x[:, 0])
    noisy = y + 0.3 * rng.normal(size=60)
    y_pred = build_regressor("GaussianProcessRegressor", {}, seed=0).fit(x, noisy).predict(x)
    assert np.sqrt(np.mean((y_pred - y) ** 2)) < 0.2


def test_each_target_is_fitted_on_its_own_labels_in_its_own_units(tmp_path: Path) -> None:
    x = np.arange(10.0)[:, None]
    y = np.column_stack([2 * x[:, 0], 1e6 - 100 * x[:, 0]])
    y[6:, 1] = np.nan
    fit_targets(pipeline_of("LinearRegression"), x, y, None, tmp_path, ["a", "b"])
    assert np.allclose(predict_targets(np.array([[20.0]]), tmp_path), [[40.0, 1e6 - 2000]])


def test_a_row_of_weight_zero_is_not_seen(tmp_path: Path) -> None:
    x, y = np.arange(6.0)[:, None], np.array([0.0, 1, 2, 3, 4, 500])[:, None]
    weights = np.array([1.0, 1, 1, 1, 1, 0])
    fit_targets(pipeline_of("LinearRegression"), x, y, weights, tmp_path, ["y"])
    assert predict_targets(x, tmp_path)[5, 0] == pytest.approx(5)


def test_weights_are_refused_where_the_regressor_would_not_see_them(tmp_path: Path) -> None:
    x = np.arange(6.0)[:, None]
    with pytest.raises(ConfigError, match="sample_weight.*KNeighborsRegressor"):
        fit_targets(pipeline_of("KNeighborsRegressor"), x, x, np.ones(6), tmp_path, ["y"])


def test_what_scikit_learn_refuses_is_told_with_the_target(tmp_path: Path) -> None:
    x = np.arange(3.0)[:, None]
    with pytest.raises(ConfigError, match="RidgeCV must take the rows of target 'y'.*n_splits"):
        fit_targets(pipeline_of("RidgeCV", cv=5), x, x, None, tmp_path, ["y"])


@pytest.mark.parametrize("sizes", [["256"], [10.5], [[10], [5]]])
def test_a_parameter_that_fails_in_the_fit_is_told_too(tmp_path: Path, sizes: list[Any]) -> None:
    x = np.arange(6.0)[:, None]
    with pytest.raises(ConfigError, match="MLPRegressor must take the rows of target 'y'; scikit-learn says"):
        fit_targets(pipeline_of("MLPRegressor", hidden_layer_sizes=sizes), x, x, None, tmp_path, ["y"])


@pytest.mark.filterwarnings("error")
def test_a_network_that_ends_by_its_number_of_steps_does_so_without_a_word(tmp_path: Path) -> None:
    x = np.arange(6.0)[:, None]
    fit_targets(pipeline_of("MLPRegressor", max_iter=2), x, x, None, tmp_path, ["y"])


@pytest.mark.parametrize("name", ["SVR", "KernelRidge", "KNeighborsRegressor", "Ridge", "MLPRegressor",
                                  "GaussianProcessRegressor", "HistGradientBoostingRegressor"])  # fmt: skip
def test_what_is_read_back_predicts_the_same(name: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    fitted = build_regressor(name, {}, seed=0).fit(x, x[:, 0])
    save(fitted, tmp_path / "a.skops")
    assert np.array_equal(load(tmp_path / "a.skops").predict(x), fitted.predict(x))


def test_equal_regressors_give_equal_bytes_in_another_process(tmp_path: Path) -> None:
    """skops names parts by memory address, and scikit-learn's vectoriser remembers one."""
    code = """
import sys; from pathlib import Path; from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline; from models.stages.estimators import build_regressor, save
texts = ["red blue", "red", "blue"]
save(make_pipeline(TfidfVectorizer(), build_regressor("SVR", {}, 0)).fit(texts, [0.0, 1.0, 2.0]), Path(sys.argv[1]))
"""
    for name in ("a", "b"):
        environment = {**os.environ, "PYTHONHASHSEED": str(ord(name))}
        subprocess.run([sys.executable, "-c", code, tmp_path / name], cwd=PROJECT, check=True, env=environment)
    assert sha256_of(tmp_path / "a") == sha256_of(tmp_path / "b")
    assert isinstance(load(tmp_path / "a")[0], TfidfVectorizer)


class Foreign(Ridge):
    """Not of scikit-learn."""


def test_a_file_with_a_foreign_type_is_neither_written_nor_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Foreign"):
        save(Foreign(), tmp_path / "a.skops")
    skops.io.dump(Foreign(), tmp_path / "a.skops")
    with pytest.raises(DataError, match=r"a\.skops"):
        load(tmp_path / "a.skops")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.skops").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"a\.skops"):
        load(tmp_path / "a.skops")
