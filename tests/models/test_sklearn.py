"""The stage of scikit-learn regressors: what they see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from competition.errors import DataError
from competition.tables import Rows
from competition.task import Task
from models.config import SklearnStage
from models.registry import build_stage
from models.stage import Context
from models.stages.estimators import load

RED = ["red apple", "green apple", "blue pear", "red pear"] * 10


def fit(
    folder: Path, y: Any, columns: dict[str, Any], regressor: str = "Ridge", weights: Any = None, **roles: list[str]
) -> Any:
    context = Context(
        **{"smiles": [], "text": [], "numeric": [], "categorical": [], **roles}, task=Task(["y"]), seed=3, cache=folder
    )
    stage = build_stage(SklearnStage(kind="sklearn", regressor=regressor), context)
    stage.fit(replace(rows(columns, y), weights=weights), None, folder)
    return stage


def rows(columns: dict[str, Any], y: Any = None) -> Rows:
    table = pd.DataFrame(columns)
    return Rows([str(i) for i in range(len(table))], table, None if y is None else np.c_[y])


def test_missing_numbers_are_filled_with_the_median_of_the_training_rows(tmp_path: Path) -> None:
    x = np.array([0.0, 1, 2, 3, 4, np.nan])
    stage = fit(tmp_path, [0.0, 1, 2, 3, 4, 2], {"x": x}, "LinearRegression", numeric=["x"])
    assert stage.predict(rows({"x": [np.nan, 3.0]}), tmp_path)[:, 0] == pytest.approx([2, 3])


def test_a_number_far_outside_the_training_range_counts_as_its_end(tmp_path: Path) -> None:
    x = np.arange(10.0)
    stage = fit(tmp_path, x, {"x": x}, numeric=["x"])
    y_pred = stage.predict(rows({"x": [9.0, 1e6]}), tmp_path)[:, 0]
    assert y_pred[0] == y_pred[1]


def test_of_two_answers_to_one_question_the_heavier_row_is_believed(tmp_path: Path) -> None:
    x, y = [0.0, 1.0] * 10, np.repeat([0.0, 10.0], 10)
    stage = fit(tmp_path, y, {"x": x}, weights=np.where(y == 10, 9.0, 1.0), numeric=["x"])
    assert stage.predict(rows({"x": [0.0]}), tmp_path)[0, 0] == pytest.approx(9, abs=0.3)


def test_categories_and_words_are_seen_and_new_ones_are_no_error(tmp_path: Path) -> None:
    site = ["a", "b"] * 20
    y = [10.0 * ("red" in note) + 5.0 * (s == "a") for note, s in zip(RED, site, strict=True)]
    stage = fit(tmp_path, y, {"note": RED, "site": site}, "LinearRegression", text=["note"], categorical=["site"])
    test = {"note": ["red pear", "blue pear", "violet plum"], "site": ["b", "a", "c"]}
    y_pred = stage.predict(rows(test), tmp_path)[:, 0]
    assert y_pred[:2] == pytest.approx([10, 5], abs=1)
    assert np.isfinite(y_pred).all()


@pytest.mark.parametrize(("regressor", "sparse"), [("Ridge", True), ("BayesianRidge", False)])
def test_words_stay_sparse_where_the_regressor_takes_that(regressor: str, sparse: bool, tmp_path: Path) -> None:
    fit(tmp_path, np.arange(40.0), {"note": RED}, regressor, text=["note"])
    features = load(tmp_path / "target_0.skops")["features"]
    assert hasattr(features.transform(pd.DataFrame({"text_0": RED})), "toarray") == sparse


def test_text_without_a_shared_word_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'note'"):
        fit(tmp_path, [1.0, 2.0, 3.0], {"note": ["one", "two", "three"]}, text=["note"])


def test_a_rare_part_of_a_molecule_does_not_outweigh_what_is_common(tmp_path: Path) -> None:
    """One molecule of 40 has bromine; it is still predicted by its chain, not as a stranger to all others."""
    smiles = ["C" * n + "O" * k for n in range(2, 22) for k in (0, 1)]
    y = [float(s.count("C")) for s in smiles]
    stage = fit(tmp_path, y, {"SMILES": smiles}, "SVR", smiles=["SMILES"])
    assert stage.predict(rows({"SMILES": ["C" * 18 + "Br"]}), tmp_path)[0, 0] > np.mean(y) + 2
