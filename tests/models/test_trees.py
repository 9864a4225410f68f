"""Trees of both libraries: what they see, where the number of trees comes from, weights, objectives, and the search."""

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
from tests.models.made import context, rows

SETTINGS = {
    "lightgbm": LightgbmStage(kind="lightgbm", max_trees=100, patience=10, learning_rate=0.1),
    "catboost": CatboostStage(kind="catboost", max_trees=100, patience=10, learning_rate=0.2, rsm=1.0),
}
pytestmark = pytest.mark.parametrize("kind", SETTINGS)


def fit(kind: str, folder: Path, train: Rows, settings: dict[str, Any] | None = None, **told: Any) -> Any:
    folder.mkdir(exist_ok=True)
    stage = build_stage(SETTINGS[kind].model_copy(update=settings or {}), context(folder, **told))
    stage.fit(train, None, folder)
    return stage


def models_of(folder: Path) -> Any:
    return read_json(folder / "training.json")["models"]


def test_categories_and_words_are_seen_and_new_ones_are_no_error(kind: str, tmp_path: Path) -> None:
    site = ["a", "b", "c"] * 40
    notes = ["red apple", "green apple", "blue pear", "red pear"] * 30
    y = [{"a": 0.0, "b": 5.0, "c": 10.0}[s] + 20.0 * ("red" in note) for s, note in zip(site, notes, strict=True)]
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


def test_of_two_answers_to_one_question_the_heavier_row_is_believed(kind: str, tmp_path: Path) -> None:
    x, y = np.tile([0.0, 1.0], 100), np.repeat([0.0, 10.0], 100)
    answers = {}
    for name, weights in (("even", None), ("uneven", np.where(y == 10, 9.0, 1.0))):
        stage = fit(kind, tmp_path / name, rows(y, weights, x=x), numeric=["x"])
        answers[name] = stage.predict(rows(x=[0.0]), tmp_path / name)[0, 0]
    assert answers == pytest.approx({"even": 5, "uneven": 9}, abs=1)


QUANTILE = {"lightgbm": {"objective": "quantile", "alpha": 0.9}, "catboost": {"loss_function": "Quantile:alpha=0.9"}}


@pytest.mark.parametrize(("of", "expected"), [("squared", 1.0), ("absolute", np.log(2)), ("own", np.log(10))])
def test_the_objective_fits_the_metric_unless_it_is_named(kind: str, tmp_path: Path, of: str, expected: float) -> None:
    """Labels of an exponential distribution: mean 1, median log 2, nine tenths below log 10."""
    y, x = np.random.default_rng(0).exponential(size=2000), np.tile([0.0, 1.0], 1000)
    settings = {"parameters": QUANTILE[kind]} if of == "own" else {}
    stage = fit(
        kind, tmp_path, rows(y, x=x), settings, numeric=["x"], task=Task(["y"], absolute_errors=of == "absolute")
    )
    assert stage.predict(rows(x=[0.0, 1.0]), tmp_path)[:, 0] == pytest.approx([expected] * 2, rel=0.12)


def test_a_parameter_of_the_job_of_the_stage_or_of_nobody_is_refused(kind: str, tmp_path: Path) -> None:
    config = type(SETTINGS[kind])
    for name, words in (("learning_rate", "by the stage"), ("seed", "by the stage"), ("max_dept", "max_depth")):
        with pytest.raises(ValueError, match=words):
            config.model_validate({"kind": kind, "parameters": {name: 1}})
    assert config.model_validate({"kind": kind, "parameters": QUANTILE[kind]}).parameters == QUANTILE[kind]
    x, wrong = np.arange(60.0), {"lightgbm": {"objective": "nothing"}, "catboost": {"max_depth": 3}}[kind]
    with pytest.raises(ConfigError, match=f"{kind} refuses the rows, or its parameters"):
        fit(kind, tmp_path, rows(x, x=x), {"parameters": wrong}, numeric=["x"])


def test_a_small_spread_far_from_zero_is_learned(kind: str, tmp_path: Path) -> None:
    """Total energies: float32 has no digits left for 1e-3 at 1e6."""
    x = np.random.default_rng(0).normal(size=200)
    stage = fit(kind, tmp_path, rows(1e6 + 1e-3 * np.sign(x), x=x), numeric=["x"])
    assert stage.predict(rows(x=[-1.0, 1.0]), tmp_path)[:, 0] - 1e6 == pytest.approx([-1e-3, 1e-3], abs=1e-4)


def test_the_search_finds_what_suits_the_data_and_says_how_far_it_is(kind: str, tmp_path: Path) -> None:
    """One of 40 columns has the law, so seeing few columns at once is bad, and the settings of the YAML are that."""
    x = pd.DataFrame(np.random.default_rng(0).normal(size=(150, 40)), columns=[f"x{i}" for i in range(40)])
    few, said = {"lightgbm": "feature_fraction", "catboost": "rsm"}[kind], list[tuple[int, int]]()
    settings = {"search_trials": 6, few: 0.05, "max_trees": 20}
    told = {"numeric": list(x), "progress": lambda *steps: said.append(steps)}
    stage = fit(kind, tmp_path, rows(np.sign(x["x0"]), **x), settings, **told)
    (chosen,) = models_of(tmp_path)
    assert chosen["found"].keys() == stage.ranges.keys()
    assert chosen["found"][few] > 0.1
    assert said == [(i, 7) for i in range(1, 8)]


def test_two_labels_or_equal_ones_are_enough_and_one_label_or_no_shared_word_is_refused_by_name(
    kind: str, tmp_path: Path
) -> None:
    for y in ([1.0, 3.0, np.nan, np.nan], [2.0, 2.0, 2.0, 2.0]):
        train = rows(y, x=[0.0, 1.0, 2.0, 3.0])
        assert np.isfinite(fit(kind, tmp_path, train, numeric=["x"]).predict(train, tmp_path)).all()
    with pytest.raises(DataError, match="'y'"):
        fit(kind, tmp_path, rows([1.0, np.nan, np.nan], x=[0.0, 1.0, 2.0]), numeric=["x"])
    with pytest.raises(DataError, match="'note'"):
        fit(kind, tmp_path, rows([0.0] * 3, note=["one", "two", "three"]), text=["note"])
