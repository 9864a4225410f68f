"""Trees of both libraries: what they see, where the number of trees comes from, weights, objectives, and the
search.

What stages of one model per target share is held to estimators of scikit-learn, too.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
import torch
from catboost import CatBoostRegressor

from competition.dataset import Dataset
from competition.task import Task
from core.errors import ConfigError, DataError
from core.files import read_json
from models.stage import read_notes
from models.stages.catboost import Catboost
from models.stages.lightgbm import Lightgbm
from models.stages.sklearn import Sklearn
from models.stages.trees import Trees
from tests.models.made import context, fitted, rows

SETTINGS = {
    "lightgbm": Lightgbm(kind="lightgbm", max_trees=100, learning_rate=0.1),
    "catboost": Catboost(kind="catboost", max_trees=100, learning_rate=0.2, parameters={"rsm": 1.0}),
    "sklearn": Sklearn(kind="sklearn", estimator="sklearn.ensemble.ExtraTreesRegressor"),
}
of_all = pytest.mark.parametrize("kind", SETTINGS)


@pytest.fixture(params=["lightgbm", "catboost"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def fit(
    kind: str, folder: Path, train: Dataset, settings: dict[str, Any] | None = None, **context_changes: Any
) -> Any:
    return fitted(
        SETTINGS[kind].model_copy(update=settings or {}), context(folder, **context_changes), train, folder
    )


def models_of(folder: Path) -> Any:
    return read_json(folder / "training.json")["models"]


@of_all
def test_categories_and_words_are_seen_and_new_ones_are_no_error(kind: str, tmp_path: Path) -> None:
    site = ["a", "b", "c"] * 40
    notes = ["red apple", "green apple", "blue pear", "red pear"] * 30
    y = [
        {"a": 0.0, "b": 5.0, "c": 10.0}[s] + 20.0 * ("red" in note)
        for s, note in zip(site, notes, strict=True)
    ]
    stage = fit(kind, tmp_path, rows(y, site=site, note=notes), text=["note"], categorical=["site"])
    test = rows(site=["a", "b", "c", "unseen"], note=["blue pear", "red pear", "green apple", "violet plum"])
    y_pred = stage.predict(test, tmp_path)[:, 0]
    assert y_pred[:3] == pytest.approx([0, 25, 10], abs=2)
    assert np.isfinite(y_pred).all()


def test_random_labels_get_few_trees_and_a_law_gets_many(kind: str, tmp_path: Path) -> None:
    """The number of trees is found on rows that the trees of the search have not seen."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    n_trees = {}
    for name, y in (("noise", rng.normal(size=400)), ("law", np.sin(2 * x))):
        fit(kind, tmp_path / name, rows(y, x=x), {"max_trees": 200}, numeric=["x"])
        n_trees[name] = models_of(tmp_path / name)[0]["n_trees"]
    assert n_trees["noise"] < 20 < n_trees["law"]


@of_all
def test_of_two_answers_to_one_question_the_heavier_row_is_believed(kind: str, tmp_path: Path) -> None:
    x, y = np.tile([0.0, 1.0], 100), np.repeat([0.0, 10.0], 100)
    answers = {}
    for name, weights in (("even", None), ("uneven", np.where(y == 10, 9.0, 1.0))):
        stage = fit(kind, tmp_path / name, rows(y, weights, x=x), numeric=["x"])
        answers[name] = stage.predict(rows(x=[0.0]), tmp_path / name)[0, 0]
    assert answers == pytest.approx({"even": 5, "uneven": 9}, abs=1)


QUANTILE = {
    "lightgbm": {"objective": "quantile", "alpha": 0.9},
    "catboost": {"loss_function": "Quantile:alpha=0.9"},
}
COUNTS = {"lightgbm": {"objective": "poisson"}, "catboost": {"loss_function": "Poisson"}}


@pytest.mark.parametrize(
    ("stage_class", "absolute", "expected"),
    [({}, False, 1.0), ({}, True, 0.81), (QUANTILE, False, np.log(10)), (COUNTS, False, 1.0)],
)
def test_the_objective_fits_the_metric_unless_it_is_set(
    kind: str, tmp_path: Path, stage_class: dict[str, Any], absolute: bool, expected: float
) -> None:
    """Labels of an exponential distribution: mean 1, nine tenths below log 10; few trees are on the way from the mean
    to the minimum of Huber's loss, .73; counts stay positive.
    """
    y, x = np.random.default_rng(0).exponential(size=2000), np.tile([0.0, 1.0], 1000)
    task = Task(["y"], minimizes_absolute_error=absolute)
    stage = fit(
        kind, tmp_path, rows(y, x=x), {"parameters": stage_class.get(kind, {})}, numeric=["x"], task=task
    )
    assert stage.predict(rows(x=[0.0, 1.0]), tmp_path)[:, 0] == pytest.approx([expected] * 2, rel=0.12)


def test_a_parameter_of_the_job_of_the_stage_or_of_nobody_is_refused(kind: str, tmp_path: Path) -> None:
    config = type(SETTINGS[kind])
    for name, words in (
        ("learning_rate", "by the stage"),
        ("seed", "by the stage"),
        ("max_dept", "max_depth"),
    ):
        with pytest.raises(ValueError, match=words):
            config.model_validate({"kind": kind, "parameters": {name: 1}})
    if kind == "lightgbm":  # which would ignore a second name of a parameter; CatBoost refuses it
        with pytest.raises(ValueError, match="no parameter 'reg_lambda'; try .*lambda_l2"):
            config.model_validate({"kind": kind, "parameters": {"reg_lambda": 1}})
    assert config.model_validate({"kind": kind, "parameters": QUANTILE[kind]}).parameters == QUANTILE[kind]
    x, wrong = np.arange(60.0), {"lightgbm": {"objective": "nothing"}, "catboost": {"max_depth": 3}}[kind]
    with pytest.raises(ConfigError, match=f"{kind} rejects the rows, or its parameters"):
        fit(kind, tmp_path, rows(x, x=x), {"parameters": wrong}, numeric=["x"])


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The settings of the device that the libraries are called with; they then train on the cores."""
    calls: list[dict[str, Any]] = []
    train, names = lightgbm.train, ("device_type", "task_type", "devices", "gpu_ram_part", "rsm")

    def on_cores(parameters: dict[str, Any]) -> dict[str, Any]:
        calls.append({name: parameters[name] for name in names if name in parameters})
        return {name: value for name, value in parameters.items() if name not in names}

    monkeypatch.setattr(
        lightgbm, "train", lambda parameters, *others, **stop: train(on_cores(parameters), *others)
    )
    monkeypatch.setattr(catboost, "CatBoostRegressor", lambda **p: CatBoostRegressor(**on_cores(p)))
    return calls


@pytest.mark.parametrize(("gpu", "has_card"), [(0.0, True), (0.5, False), (0.5, True)])
def test_trees_are_grown_on_a_card_where_gpu_is_above_zero_and_there_is_one(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: list[Any], gpu: float, has_card: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_card)
    x = np.arange(40.0)
    train, folder, context_changes = rows(x, x=x), tmp_path / "job", context(tmp_path, numeric=["x"])
    config = SETTINGS[kind].model_copy(update={"gpu": gpu, "max_trees": 3})
    monkeypatch.setattr(type(config), "best_n_trees", lambda *samples: (3, 0.0))
    fitted(config, context_changes, train, folder)
    cores = {"lightgbm": {"device_type": "cpu"}, "catboost": {"rsm": 1.0}}
    card = {
        "lightgbm": {"device_type": "gpu"},
        "catboost": {"task_type": "GPU", "devices": "0", "gpu_ram_part": 0.475},
    }
    assert devices == [(card if gpu and has_card else cores)[kind]]
    assert bool(read_notes(folder)) == (gpu > 0 and not has_card)


@of_all
def test_a_small_variance_far_from_zero_is_learned(kind: str, tmp_path: Path) -> None:
    """Total energies: float32 has no digits left for 1e-3 at 1e6."""
    x = np.random.default_rng(0).normal(size=200)
    stage = fit(kind, tmp_path, rows(1e6 + 1e-3 * np.sign(x), x=x), numeric=["x"])
    assert stage.predict(rows(x=[-1.0, 1.0]), tmp_path)[:, 0] - 1e6 == pytest.approx([-1e-3, 1e-3], abs=1e-4)


def test_the_search_finds_what_suits_the_data(kind: str, tmp_path: Path) -> None:
    """One of 40 columns has the law, so seeing few columns at once is bad, and the settings of the YAML are
    that.
    """
    x = pd.DataFrame(np.random.default_rng(0).normal(size=(150, 40)), columns=[f"x{i}" for i in range(40)])
    few = {"lightgbm": "feature_fraction", "catboost": "rsm"}[kind]
    settings = {"search_trials": 6, "parameters": {few: 0.05}, "max_trees": 20}
    fit(kind, tmp_path, rows(np.sign(x["x0"]), **x), settings, numeric=list(x))
    (chosen,) = models_of(tmp_path)
    assert chosen["found"].keys() == type(SETTINGS[kind]).ranges.keys()
    assert chosen["found"][few] > 0.1


def test_two_labels_or_equal_ones_are_enough_and_one_label_or_no_shared_word_is_refused(
    kind: str, tmp_path: Path
) -> None:
    for y in ([1.0, 3.0, np.nan, np.nan], [2.0, 2.0, 2.0, 2.0]):
        train = rows(y, x=[0.0, 1.0, 2.0, 3.0])
        assert np.isfinite(fit(kind, tmp_path, train, numeric=["x"]).predict(train, tmp_path)).all()
    with pytest.raises(DataError, match="'y'"):
        fit(kind, tmp_path, rows([1.0, np.nan, np.nan], x=[0.0, 1.0, 2.0]), numeric=["x"])
    with pytest.raises(DataError, match="each word of note is in one"):
        fit(kind, tmp_path, rows([0.0] * 3, note=["one", "two", "three"]), text=["note"])


BINARY, MULTILABEL = (
    Task(["y"], None, "binary", ["no", "yes"]),
    Task(["y", "z"], None, "multilabel", ["0", "1"]),
)
MULTICLASS = Task(["y"], None, "multiclass", ["a", "b", "c", "d"])


def test_probabilities_are_shares_of_classes_and_that_of_a_class_without_a_row_is_0(
    kind: str, tmp_path: Path
) -> None:
    """At x = 0 the classes b, c and d are drawn with 1/2, 3/8 and 1/8, at x = 1 with 0, 1/4 and 3/4; a never
    is.
    """
    x, y = (
        np.repeat([0.0, 1.0], 800),
        np.r_[np.tile([1, 1, 1, 1, 2, 2, 2, 3], 100), np.tile([2, 3, 3, 3], 200)],
    )
    stage = fit(kind, tmp_path, rows(y, x=x), numeric=["x"], task=MULTICLASS)
    y_pred = stage.predict(rows(x=[0.0, 1.0]), tmp_path)
    assert y_pred == pytest.approx(np.array([[0, 0.5, 0.375, 0.125], [0, 0, 0.25, 0.75]]), abs=0.04)
    assert (y_pred[:, 0] == 0).all()


def test_a_label_is_learned_from_its_rows_balanced_if_configured_and_one_class_is_a_constant(
    kind: str, tmp_path: Path
) -> None:
    """One of ten is 1, whatever x: a tenth, or the half where both classes weigh the same."""
    x = np.tile([0.0, 1.0], 500)
    y = np.c_[
        np.where(x == 0, np.arange(1000) % 20 == 0, np.arange(1000) % 20 == 1), np.where(x == 0, 1.0, np.nan)
    ]
    for class_weights, share in (("none", 0.1), ("balanced", 0.5)):
        settings, context_changes = {"class_weights": class_weights}, {"numeric": ["x"], "task": MULTILABEL}
        stage = fit(kind, tmp_path / class_weights, rows(y, x=x), settings, **context_changes)
        expected = np.array([[share, 1.0], [share, 1.0]])
        assert stage.predict(rows(x=[0.0, 1.0]), tmp_path / class_weights) == pytest.approx(
            expected, abs=0.03
        )


def test_trees_are_counted_and_settings_searched_on_rows_of_every_class_and_a_refit_takes_both_over(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six of 300 rows are 1; the other label has one class in one of two folds, which then has nothing to
    hand on.
    """
    stage_class: Any = type(SETTINGS[kind])
    x, context_changes = np.arange(300.0), {"numeric": ["x"], "task": MULTILABEL}
    rare = (x % 50 == 0).astype(float)
    settings = {"search_trials": 1, "max_trees": 10}
    with mock.patch.object(
        stage_class, "best_n_trees", autospec=True, side_effect=stage_class.best_n_trees
    ) as counted:
        fit(kind, tmp_path / "0", rows(np.c_[rare, x * 0], x=x), settings, **context_changes)
    seen = [(call.args[1].y.sum(), call.args[2].y.sum()) for call in counted.call_args_list]
    assert seen == [(4, 2), (4, 2), (4, 2), (5, 1)]
    fit(kind, tmp_path / "1", rows(np.c_[rare, x > 99], x=x), settings, **context_changes)
    monkeypatch.delattr(Trees, "choose")
    folds = [tmp_path / "0", tmp_path / "1"]
    fit(
        kind,
        tmp_path / "all",
        rows(np.c_[rare, x > 99], x=x),
        settings,
        fold_model_dirs=folds,
        **context_changes,
    )
    assert models_of(tmp_path / "all")[1]["n_trees"] == models_of(tmp_path / "1")[1]["n_trees"]


@pytest.mark.parametrize(
    ("task", "lightgbm", "catboost", "message"),
    [
        (BINARY, "huber", "MAE", "objective (huber|MAE) does not fit; problem type binary requires"),
        (MULTICLASS, "binary", "Logloss", "requires (multiclass or softmax|MultiClass)"),
        (
            Task(["y"]),
            "binary",
            "Focal:focal_alpha=0.5;focal_gamma=2",
            "(binary|Focal) does not fit; regression requires",
        ),
        (BINARY, "cross_entropy", "Focal:focal_alpha=0.5;focal_gamma=2", None),
    ],
)
def test_an_objective_of_another_problem_type_is_refused(
    kind: str, tmp_path: Path, task: Task, lightgbm: str, catboost: str, message: str | None
) -> None:
    x = np.arange(100.0)
    objective = {
        "parameters": {"lightgbm": {"application": lightgbm}, "catboost": {"objective": catboost}}[kind]
    }
    with pytest.raises(ConfigError, match=message) if message else nullcontext():
        stage = fit(kind, tmp_path, rows(x > 49, x=x), objective, numeric=["x"], task=task)
        assert stage.predict(rows(x=[10.0, 90.0]), tmp_path)[:, 0] == pytest.approx([0.1, 0.9], abs=0.15)
