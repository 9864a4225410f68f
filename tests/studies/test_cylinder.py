"""The study of dropout on cylinders: its tables, its stages and what they measure."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.dataset import Dataset
from competition.task import Task
from models.context import Context
from models.registry import make_stage
from studies.cylinder import stages
from studies.run import STUDIES, load_study
from tests.models.made import build_stage

FOLDER = Path(stages.__file__).parent


def fitted(folder, kind, rate, seed=0):
    """Predictions of the training rows, and what the job measured."""
    table = stages.draw(60, seed=3)
    rows = Dataset([*map(str, range(60))], table[["radius", "height"]], table[["volume"]].to_numpy())
    settings = {"where": "each", "rate": rate, "epochs": 2, "learning_rate": 1e-3, "passes": 2}
    context = Context([], [], ["radius", "height"], [], Task(["y"]), seed, FOLDER)
    stage = build_stage(make_stage({"kind": f"{stages.__file__}:{kind}", **settings}), context)
    folder.mkdir()
    stage.fit(rows, folder)
    return stage.predict(rows.without_labels(), folder), json.loads((folder / "measures.json").read_text())


def test_the_committed_tables_are_drawn_cylinders_and_each_bin_has_about_an_eighth_of_them():
    table = stages.draw(2200, seed=0)[:2000]
    committed = pd.read_csv(FOLDER / "data" / "train.csv")
    np.testing.assert_allclose(committed[["radius", "height", "volume"]], table, atol=1e-5)
    assert np.allclose(table.volume, np.pi * table.radius**2 * table.height)
    assert load_study(STUDIES / "cylinder.yaml").data["bins"].bin_edges == stages.EDGES
    shares = np.bincount(np.digitize(table.volume, stages.EDGES)) / len(table)
    assert len(shares) == 8 and np.abs(shares - 1 / 8).max() < 0.02


@pytest.mark.parametrize("kind", ["Mlp", "Vgg"])
def test_at_rate_0_the_modes_are_the_same_and_a_seed_gives_the_same_job(tmp_path, kind):
    _, measures = fitted(tmp_path / "plain", kind, 0.0)
    assert measures["score_training"] == measures["score_evaluation"]
    assert measures["score_mc"] == pytest.approx(measures["score_evaluation"], rel=1e-9)
    first, second, other = (fitted(tmp_path / f"job{i}", kind, 0.5, seed) for i, seed in enumerate((0, 0, 1)))
    assert first[1]["score_training"] != first[1]["score_evaluation"]
    assert np.array_equal(first[0], second[0]) and first[1] == second[1]
    assert not np.array_equal(first[0], other[0])


def test_measures_of_volumes_are_as_computed_by_hand():
    """2 is in bin 0 as 1 is, and 8 in 3 as 9; 6 is in 2 and not 1, and 16 in 6 and not 7."""
    volume = np.array([[1.0], [5.0], [9.0], [25.0]])
    measures = stages.measure(volume, volume + [[1.0], [1.0], [-1.0], [-9.0]])
    deviation = 9.110433579144299  # of 1, 5, 9, 25: mean 10, squares 81 + 25 + 1 + 225 = 332, sqrt(83)
    assert measures["score"] == pytest.approx(np.sqrt(84 / 4))
    assert measures["accuracy"] == 0.5
    assert measures["bias"] == pytest.approx(-2 / deviation)
    assert measures["bias_large"] == pytest.approx(-9 / deviation)
    # variance 1, mean 2, rate 0.5: (1 + 4) / 0.5 - 4 = 6
    assert stages.unit_ratio(0.5, np.array([2.0]), np.array([1.0])) == pytest.approx([6.0])
