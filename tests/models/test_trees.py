"""Trees: what they see, and where the number of trees comes from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.errors import DataError
from competition.files import read_json
from competition.tables import Rows
from models.config import LightgbmStage
from models.features import descriptors, morgan
from models.lightgbm import Lightgbm
from models.stage import Context


def rows(n: int, **columns: list) -> Rows:
    return Rows([str(i) for i in range(n)], pd.DataFrame(columns), None)


def build(tmp_path: Path, **context: list[str]) -> Lightgbm:
    roles = {"smiles": [], "text": [], "numeric": [], "categorical": [], **context}
    config = LightgbmStage.model_validate({"kind": "lightgbm", "max_trees": 200, "patience": 20})
    return Lightgbm(config, Context(**roles, targets=["y"], seed=3, cache=tmp_path / "cache"))


def test_morgan_counts_of_ethane_by_hand() -> None:
    """Two methyl carbons: one environment of radius 0 counted twice, one of radius 1 counted twice less the double."""
    counts = morgan("CC", 1024)
    assert counts.shape == (1, 1024)
    assert sorted(counts[counts > 0].tolist()) == [1.0, 2.0]


def test_descriptors_are_finite_or_nan_and_cut() -> None:
    values = descriptors("C" * 60)
    assert not np.isinf(values).any()
    assert np.nanmax(np.abs(values)) <= 1e6


def test_a_category_that_no_training_row_has_is_missing_and_not_an_error(tmp_path: Path) -> None:
    stage = build(tmp_path, numeric=["x"], categorical=["site"])
    site = ["a", "b", "c"] * 40
    y = np.array([{"a": 0.0, "b": 5.0, "c": 10.0}[s] for s in site])[:, None]
    train = Rows([str(i) for i in range(120)], pd.DataFrame({"x": np.zeros(120), "site": site}), y)
    stage.fit(train, None, tmp_path)
    y_pred = stage.predict(rows(4, x=[0.0] * 4, site=["a", "b", "c", "unseen"]), tmp_path)
    assert y_pred[:3, 0] == pytest.approx([0, 5, 10], abs=1.5)
    assert np.isfinite(y_pred).all()


def test_random_labels_get_few_trees_and_a_law_gets_many(tmp_path: Path) -> None:
    """The number of trees is found on rows that the trees of the search have not seen."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    n_trees = {}
    for name, y in (("noise", rng.normal(size=400)), ("law", np.sin(2 * x))):
        folder = tmp_path / name
        folder.mkdir()
        train = Rows([str(i) for i in range(400)], pd.DataFrame({"x": x}), y[:, None])
        build(tmp_path, numeric=["x"]).fit(train, None, folder)
        n_trees[name] = read_json(folder / "training.json")["n_trees"][0]
    assert n_trees["noise"] < 30 < n_trees["law"]


def test_text_without_a_shared_word_is_refused_by_name(tmp_path: Path) -> None:
    train = Rows(["a", "b", "c"], pd.DataFrame({"note": ["one", "two", "three"]}), np.zeros((3, 1)))
    with pytest.raises(DataError, match="'note'"):
        build(tmp_path, text=["note"]).fit(train, None, tmp_path)


def test_two_labels_are_enough_to_fit(tmp_path: Path) -> None:
    y = np.array([[1.0], [3.0], [np.nan], [np.nan]])
    train = Rows(list("abcd"), pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0]}), y)
    stage = build(tmp_path, numeric=["x"])
    stage.fit(train, None, tmp_path)
    assert np.isfinite(stage.predict(train.without_labels(), tmp_path)).all()
