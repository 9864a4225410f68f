"""Boosted trees: what they see, where the number of trees comes from, weights and objectives.

What stages of one model per target share is held to estimators of scikit-learn, too.
"""

from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import torch

from competition.task import Task
from core.errors import ConfigError, DataError
from core.files import read_json, write_json
from models.job_folder import read_notes
from models.stages.lightgbm import Lightgbm, mean_n_trees
from models.stages.sklearn import Sklearn
from tests.models.made import context, fitted, rows

SETTINGS = {
    "lightgbm": Lightgbm(kind="lightgbm", max_trees=100, learning_rate=0.1),
    "sklearn": Sklearn(kind="sklearn", estimator="sklearn.ensemble.ExtraTreesRegressor"),
}
of_all = pytest.mark.parametrize("kind", SETTINGS)


def fit(kind, folder, train, settings=None, **context_changes):
    return fitted(
        SETTINGS[kind].model_copy(update=settings or {}), context(folder, **context_changes), train, folder
    )


def models_of(folder):
    return read_json(folder / "training.json")["models"]


@of_all
def test_categories_and_words_are_seen_and_new_ones_are_no_error(kind, tmp_path):
    site = ["a", "b", "c"] * 40
    note = ["red apple", "green apple", "blue pear", "red pear"] * 30
    inputs = pd.DataFrame({"site": site, "note": note})
    y = inputs["site"].map({"a": 0, "b": 5, "c": 10}) + 20 * inputs["note"].str.contains("red")
    stage = fit(kind, tmp_path, rows(y, **inputs), text=["note"], categorical=["site"])
    test = rows(site=["a", "b", "c", "unseen"], note=["blue pear", "red pear", "green apple", "violet plum"])
    assert stage.predict(test, tmp_path)[:3, 0] == pytest.approx([0, 25, 10], abs=2)


@of_all
def test_a_category_of_many_values_is_seen_in_a_small_table(kind, tmp_path):
    sites = [f"s{k}" for k in range(8)]
    inputs = pd.DataFrame({"site": sites * 15, "x": np.random.default_rng(0).normal(size=120)})
    y = inputs["site"].map(dict(zip(sites, (0, 9, 2, 7, 1, 8, 3, 6), strict=True)))
    stage = fit(kind, tmp_path, rows(y.astype(float), **inputs), numeric=["x"], categorical=["site"])
    test = rows(site=["s0", "s1", "s4", "s5"], x=[0.0] * 4)
    assert stage.predict(test, tmp_path)[:, 0] == pytest.approx([0, 9, 1, 8], abs=1)


def test_importances_name_the_number_the_word_and_the_descriptor_that_labels_depend_on(tmp_path):
    rng = np.random.default_rng(0)
    n = 200
    inputs = {
        "SMILES": rng.choice(["CCO", "CCCCCC", "c1ccccc1", "CC(=O)O", "CCN", "CCCCCCCCCC"], n),
        "note": rng.choice(["red apple", "green apple", "blue pear", "red pear"], n),
        "x": rng.normal(size=n),
        "noise": rng.normal(size=n),
        "site": rng.choice(["a", "b"], n),
    }
    roles = {"smiles": ["SMILES"], "text": ["note"], "numeric": ["x", "noise"], "categorical": ["site"]}
    labels = {
        "x": inputs["x"],
        "site": inputs["site"] == "b",
        "note: ": np.char.find(inputs["note"], "red") >= 0,
        "SMILES: ": np.char.count(np.char.upper(inputs["SMILES"]), "C"),
    }
    for number, (start, y) in enumerate(labels.items()):
        folder = tmp_path / str(number)
        train = rows(y, **inputs)
        stage = fit("lightgbm", folder, train, {"features": ["morgan", "descriptors"]}, **roles)
        shares = stage.importances(train.take(np.array([0])), folder)
        assert shares.sum() == pytest.approx(1)
        assert shares[shares.index.str.startswith(start)].sum() > 0.6
    assert {"SMILES: morgan", "SMILES: descriptors MolLogP"} <= {*shares.index}


def test_random_labels_get_few_trees_and_a_law_gets_many(tmp_path):
    """The number of trees is found on rows that the trees of the search have not seen."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    n_trees = {}
    for name, y in (("noise", rng.normal(size=400)), ("law", np.sin(2 * x))):
        fit("lightgbm", tmp_path / name, rows(y, x=x), {"max_trees": 200}, numeric=["x"])
        n_trees[name] = models_of(tmp_path / name)[0]["n_trees"]
    assert n_trees["noise"] < 20 < n_trees["law"]


@of_all
def test_of_two_answers_to_one_question_the_heavier_row_is_believed(kind, tmp_path):
    x, y = np.tile([0.0, 1.0], 100), np.repeat([0.0, 10.0], 100)
    stage = fit(kind, tmp_path, rows(y, np.where(y == 10, 9.0, 1.0), x=x), numeric=["x"])
    assert stage.predict(rows(x=[0.0]), tmp_path)[0, 0] == pytest.approx(9, abs=1)


QUANTILE = {"objective": "quantile", "alpha": 0.9}
COUNTS = {"objective": "poisson"}


@pytest.mark.parametrize(
    ("parameters", "absolute", "expected"),
    [({}, False, 1.0), ({}, True, 0.81), (QUANTILE, False, np.log(10)), (COUNTS, False, 1.0)],
)
def test_the_objective_fits_the_metric_unless_it_is_set(tmp_path, parameters, absolute, expected):
    """Labels of an exponential distribution: mean 1, nine tenths below log 10; few trees are on the way from the mean
    to the minimum of Huber's loss, .73; counts stay positive.
    """
    y, x = np.random.default_rng(0).exponential(size=2000), np.tile([0.0, 1.0], 1000)
    task = Task(["y"], minimizes_absolute_error=absolute)
    stage = fit("lightgbm", tmp_path, rows(y, x=x), {"parameters": parameters}, numeric=["x"], task=task)
    assert stage.predict(rows(x=[0.0, 1.0]), tmp_path)[:, 0] == pytest.approx([expected] * 2, rel=0.12)


BINARY = Task(["y"], None, "binary", ["no", "yes"])
MULTILABEL = Task(["y", "z"], None, "multilabel", ["0", "1"])
MULTICLASS = Task(["y"], None, "multiclass", ["a", "b", "c", "d"])


@pytest.mark.parametrize(
    ("task", "parameters", "message"),
    [
        (Task(["y"]), {"learning_rate": 1}, "a setting of the stage"),
        (Task(["y"]), {"device_type": "gpu"}, "by the stage"),
        (Task(["y"]), {"early_stopping_round": 50}, "It stops early after 100 trees without a lower error"),
        (Task(["y"]), {"num_leavs": 3}, "num_leaves"),
        (Task(["y"]), {"reg_lambda": 1}, "lambda_l2"),
        (Task(["y"]), {"objective": "nothing"}, "lightgbm rejects the rows, or its parameters"),
        (BINARY, {"objective": "huber"}, "huber does not fit; problem type binary requires"),
        (MULTICLASS, {"objective": "binary"}, "problem type multiclass requires multiclass"),
        (Task(["y"]), {"objective": "binary"}, "binary does not fit; regression"),
    ],
)
def test_parameters_of_the_stage_of_nobody_or_of_another_problem_type_are_refused(
    task, parameters, message, tmp_path
):
    x = np.arange(60.0)
    with pytest.raises((ValueError, ConfigError), match=message):
        stage = Lightgbm.model_validate({"kind": "lightgbm", "parameters": parameters})
        fitted(stage, context(tmp_path, numeric=["x"], task=task), rows(x > 30, x=x), tmp_path)


class Reached(Exception):
    """The call of a library."""


@pytest.mark.parametrize(("gpu", "has_card"), [(0.0, True), (0.5, False), (0.5, True)])
def test_trees_are_grown_on_a_card_where_gpu_is_above_zero_and_there_is_one(
    tmp_path, monkeypatch, gpu, has_card
):
    seen: dict[str, Any] = {}

    def called(parameters, *others, **settings):
        seen.update(parameters)
        raise Reached

    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_card)
    monkeypatch.setattr(lightgbm, "train", called)
    with pytest.raises(Reached):
        fit("lightgbm", tmp_path, rows(np.arange(40.0), x=np.arange(40.0)), {"gpu": gpu}, numeric=["x"])
    assert seen["device_type"] == ("gpu" if gpu > 0 and has_card else "cpu")
    assert bool(read_notes(tmp_path)) == (gpu > 0 and not has_card)


@of_all
def test_a_small_variance_far_from_zero_is_learned(kind, tmp_path):
    """Total energies: float32 has no digits left for 1e-3 at 1e6."""
    x = np.random.default_rng(0).normal(size=200)
    stage = fit(kind, tmp_path, rows(1e6 + 1e-3 * np.sign(x), x=x), numeric=["x"])
    assert stage.predict(rows(x=[-1.0, 1.0]), tmp_path)[:, 0] - 1e6 == pytest.approx([-1e-3, 1e-3], abs=1e-4)


@pytest.mark.parametrize("y", [[1.0, 3.0, np.nan, np.nan], [2.0, 2.0, 2.0, 2.0]])
def test_two_labels_or_equal_ones_are_enough(y, tmp_path):
    train = rows(y, x=[0.0, 1.0, 2.0, 3.0])
    y_pred = fit("lightgbm", tmp_path, train, numeric=["x"]).predict(train, tmp_path)
    assert (np.nanmin(y) - 1e-6 <= y_pred).all() and (y_pred <= np.nanmax(y) + 1e-6).all()


@pytest.mark.parametrize(
    ("y", "columns", "message"),
    [
        ([1.0, np.nan, np.nan], {"numeric": ["x"]}, "'y' must have labels"),
        ([0.0, 1.0, 2.0], {"text": ["note"]}, "each n-gram of note is in one"),
    ],
)
def test_one_label_or_no_shared_sign_is_refused(y, columns, message, tmp_path):
    with pytest.raises(DataError, match=message):
        fit("lightgbm", tmp_path, rows(y, x=[0.0, 1.0, 2.0], note=["\u4e00", "\u4e8c", "\u4e09"]), **columns)


def test_probabilities_are_shares_of_classes_and_that_of_a_class_without_a_row_is_0(tmp_path):
    """At x = 0 the classes b, c and d are drawn with 1/2, 3/8 and 1/8, at x = 1 with 0, 1/4 and 3/4; a never
    is.
    """
    x = np.repeat([0.0, 1.0], 800)
    y = np.r_[np.tile([1, 1, 1, 1, 2, 2, 2, 3], 100), np.tile([2, 3, 3, 3], 200)]
    stage = fit("lightgbm", tmp_path, rows(y, x=x), numeric=["x"], task=MULTICLASS)
    y_pred = stage.predict(rows(x=[0.0, 1.0]), tmp_path)
    assert y_pred == pytest.approx(np.array([[0, 0.5, 0.375, 0.125], [0, 0, 0.25, 0.75]]), abs=0.04)


def test_a_label_is_learned_from_its_rows_and_one_class_is_a_constant(tmp_path):
    """One of ten is 1, whatever x."""
    x = np.tile([0.0, 1.0], 500)
    rare, constant = np.isin(np.arange(1000) % 20, [0, 1]), np.where(x == 0, 1.0, np.nan)
    stage = fit("lightgbm", tmp_path, rows(np.c_[rare, constant], x=x), numeric=["x"], task=MULTILABEL)
    expected = np.array([[0.1, 1.0], [0.1, 1.0]])
    assert stage.predict(rows(x=[0.0, 1.0]), tmp_path) == pytest.approx(expected, abs=0.03)


def test_a_refit_has_the_mean_number_of_trees_of_the_folds_without_those_of_a_single_class(tmp_path):
    folders = [tmp_path / f"{fold}" for fold in range(4)]
    models = [{"classes": [0]}, *({"n_trees": n_trees} for n_trees in (10, 20, 33))]
    for folder, model in zip(folders, models, strict=True):
        write_json(folder / "training.json", {"models": [{"n_trees": 5}, model]})
    assert mean_n_trees(folders, 0) == 5
    assert mean_n_trees(folders, 1) == 21
    assert mean_n_trees(folders[:1], 1) is None
