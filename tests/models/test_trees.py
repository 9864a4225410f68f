"""Trees of both libraries: what they see, where the number of trees comes from, weights, and the search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from competition.errors import ConfigError, DataError
from competition.files import read_json
from competition.tables import Rows
from competition.task import Task
from models.config import CatboostStage, LightgbmStage
from models.registry import build_stage
from models.stage import Context

SETTINGS = {
    "lightgbm": LightgbmStage(kind="lightgbm", max_trees=200, patience=20),
    "catboost": CatboostStage(kind="catboost", max_trees=200, patience=20, rsm=1.0, learning_rate=0.1),
}
pytestmark = pytest.mark.parametrize("kind", SETTINGS)


def rows(y: Any = None, weights: Any = None, **columns: Any) -> Rows:
    table = pd.DataFrame(columns)
    return Rows([str(i) for i in range(len(table))], table, None if y is None else np.c_[y], weights)


def build(kind: str, tmp_path: Path, settings: dict[str, Any] | None = None, **context: Any) -> Any:
    roles = {"smiles": [], "text": [], "numeric": [], "categorical": [], **context}
    config = SETTINGS[kind].model_copy(update=settings or {})
    return build_stage(config, Context(**roles, task=Task(["y"]), seed=3, cache=tmp_path / "cache"))


def fit_predict(stage: Any, train: Rows, test: Rows, folder: Path) -> np.ndarray:
    folder.mkdir(exist_ok=True)
    stage.fit(train, None, folder)
    return stage.predict(test, folder)[:, 0]


def test_a_category_that_no_training_row_has_is_no_error(kind: str, tmp_path: Path) -> None:
    site = ["a", "b", "c"] * 40
    y = [{"a": 0.0, "b": 5.0, "c": 10.0}[s] for s in site]
    stage = build(kind, tmp_path, numeric=["x"], categorical=["site"])
    test = rows(x=[0.0] * 4, site=["a", "b", "c", "unseen"])
    y_pred = fit_predict(stage, rows(y, x=np.zeros(120), site=site), test, tmp_path)
    assert y_pred[:3] == pytest.approx([0, 5, 10], abs=1.5)
    assert np.isfinite(y_pred).all()


def test_a_law_in_the_words_is_found(kind: str, tmp_path: Path) -> None:
    notes = ["red apple", "green apple", "blue pear", "red pear"] * 30
    y = [10.0 * ("red" in note) for note in notes]
    y_pred = fit_predict(build(kind, tmp_path, text=["note"]), rows(y, note=notes), rows(note=notes[:4]), tmp_path)
    assert y_pred == pytest.approx([10, 0, 0, 10], abs=1)


def test_random_labels_get_few_trees_and_a_law_gets_many(kind: str, tmp_path: Path) -> None:
    """The number of trees is found on rows that the trees of the search have not seen."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    n_trees = {}
    for name, y in (("noise", rng.normal(size=400)), ("law", np.sin(2 * x))):
        fit_predict(build(kind, tmp_path, numeric=["x"]), rows(y, x=x), rows(x=x), tmp_path / name)
        n_trees[name] = read_json(tmp_path / name / "training.json")["n_trees"][0]
    assert n_trees["noise"] < 30 < n_trees["law"]


def test_of_two_answers_to_one_question_the_heavier_row_is_believed(kind: str, tmp_path: Path) -> None:
    x, y = np.tile([0.0, 1.0], 100), np.repeat([0.0, 10.0], 100)
    stage = build(kind, tmp_path, numeric=["x"])
    heavy = np.where(y == 10, 9.0, 1.0)
    even = fit_predict(stage, rows(y, x=x), rows(x=[0.0]), tmp_path / "even")
    weighted = fit_predict(stage, rows(y, heavy, x=x), rows(x=[0.0]), tmp_path / "weighted")
    assert even == pytest.approx([5], abs=1.5)
    assert weighted == pytest.approx([9], abs=1)


QUANTILE = {"lightgbm": {"objective": "quantile", "alpha": 0.9}, "catboost": {"loss_function": "Quantile:alpha=0.9"}}


@pytest.mark.parametrize("of", ["squared", "absolute", "own"])
def test_the_objective_fits_the_metric_unless_it_is_named(kind: str, tmp_path: Path, of: str) -> None:
    """Labels of an exponential distribution: mean 1, median log 2, nine tenths below log 10."""
    y, x = np.random.default_rng(0).exponential(size=2000), np.tile([0.0, 1.0], 1000)
    settings = {"parameters": QUANTILE[kind], "learning_rate": 0.1} if of == "own" else {}
    stage = build(kind, tmp_path, settings, numeric=["x"], absolute_errors=of == "absolute")
    y_pred = fit_predict(stage, rows(y, x=x), rows(x=[0.0, 1.0]), tmp_path)
    expected = {"squared": 1.0, "absolute": np.log(2), "own": np.log(10)}[of]
    assert y_pred == pytest.approx([expected] * 2, rel=0.12)


def test_a_parameter_of_the_job_of_the_stage_or_of_nobody_is_refused(kind: str, tmp_path: Path) -> None:
    config = type(SETTINGS[kind])
    for name, words in (("learning_rate", "setting of the stage"), ("seed", "by the job"), ("max_dept", "max_depth")):
        with pytest.raises(ValueError, match=words):
            config.model_validate({"kind": kind, "parameters": {name: 1}})
    assert config.model_validate({"kind": kind, "parameters": QUANTILE[kind]}).parameters == QUANTILE[kind]
    x, wrong = np.arange(60.0), {"lightgbm": {"objective": "nothing"}, "catboost": {"max_depth": 3}}[kind]
    with pytest.raises(ConfigError, match=f"{kind} refuses the stage's parameters"):
        build(kind, tmp_path, {"parameters": wrong}, numeric=["x"]).fit(rows(x, x=x), None, tmp_path)


def test_a_small_spread_far_from_zero_is_learned(kind: str, tmp_path: Path) -> None:
    """Total energies: float32 has no digits left for 1e-3 at 1e6."""
    x = np.random.default_rng(0).normal(size=200)
    y = 1e6 + 1e-3 * np.sign(x)
    y_pred = fit_predict(build(kind, tmp_path, numeric=["x"]), rows(y, x=x), rows(x=[-1.0, 1.0]), tmp_path)
    assert y_pred - 1e6 == pytest.approx([-1e-3, 1e-3], abs=1e-4)


def test_the_search_finds_what_suits_the_data_and_writes_it_down(kind: str, tmp_path: Path) -> None:
    """One of 40 columns has the law, so seeing few columns at once is bad, and the settings of the YAML are that."""
    rng = np.random.default_rng(0)
    x = pd.DataFrame(rng.normal(size=(150, 40)), columns=[f"x{i}" for i in range(40)])
    train = rows(np.sign(x["x0"]), **x)
    few = {"lightgbm": "feature_fraction", "catboost": "rsm"}[kind]
    stage = build(kind, tmp_path, {"search_trials": 6, few: 0.05, "max_trees": 30}, numeric=list(x))
    fit_predict(stage, train, train, tmp_path / "a")
    fit_predict(stage, train, train, tmp_path / "b")
    training = read_json(tmp_path / "a" / "training.json")
    assert training["found"][0].keys() == stage.ranges.keys()
    assert training["found"][0][few] > 0.1
    assert training == read_json(tmp_path / "b" / "training.json")


def test_without_a_search_the_settings_are_those_of_the_yaml(kind: str, tmp_path: Path) -> None:
    x = np.arange(50.0)
    fit_predict(build(kind, tmp_path, numeric=["x"]), rows(x, x=x), rows(x=x), tmp_path)
    assert read_json(tmp_path / "training.json")["found"] == [{}]


def test_progress_counts_trials_and_ends_at_all(kind: str, tmp_path: Path) -> None:
    x, said = np.arange(60.0), []
    context = Context([], [], ["x"], [], Task(["y"]), 3, tmp_path, lambda *steps: said.append(steps))
    stage = build_stage(SETTINGS[kind].model_copy(update={"search_trials": 2, "max_trees": 5}), context)
    stage.fit(rows(x, x=x), None, tmp_path)
    assert said == [(1, 3), (2, 3), (3, 3)]


def test_text_without_a_shared_word_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'note'"):
        build(kind, tmp_path, text=["note"]).fit(rows([0.0] * 3, note=["one", "two", "three"]), None, tmp_path)


@pytest.mark.parametrize("y", [[1.0, 3.0, np.nan, np.nan], [2.0, 2.0, 2.0, 2.0]])
def test_two_labels_or_equal_ones_are_enough_to_fit(kind: str, tmp_path: Path, y: list[float]) -> None:
    train = rows(y, x=[0.0, 1.0, 2.0, 3.0])
    assert np.isfinite(fit_predict(build(kind, tmp_path, numeric=["x"]), train, train, tmp_path)).all()


def test_one_label_is_refused_by_the_name_of_the_target(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'y'"):
        build(kind, tmp_path, numeric=["x"]).fit(rows([1.0, np.nan, np.nan], x=[0.0, 1.0, 2.0]), None, tmp_path)
