"""The range test of learning rates: what it suggests, and what it does not look at."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from competition.errors import ConfigError
from competition.files import read_table, write_table
from folds.table import read_folds
from models.jobs import lr
from tests.conftest import mixed_tables
from tests.models.jobs.common import GNN, TREES, planned

STAGES = {"graph": {**GNN, "epochs": 2, "batch_size": 8, "learning_rate": 1e-3}, "trees": TREES}


def kept_curves(monkeypatch: pytest.MonkeyPatch, steps: int) -> list[Any]:
    """What the tests from now on find, each of so many steps."""
    curves, range_test = list[Any](), lr.range_test
    monkeypatch.setattr(lr, "STEPS", steps)
    monkeypatch.setattr(lr, "range_test", lambda *a: curves.append(range_test(*a)) or curves[-1])
    return curves


def test_a_tenth_of_the_rate_with_the_smallest_loss_is_suggested_and_whether_the_loss_fell_is_said() -> None:
    rates = np.array([1e-4, 1e-3, 1e-2, 1e-1])
    assert lr.suggested(rates, np.array([1.0, 0.7, 0.4, 3.0])) == (pytest.approx(1e-3), True)
    for losses, fell in (([0.9, 0.7, 2.0], True), ([0.9, 1.1, 2.0], False)):
        assert lr.suggested(np.ones(15), np.array([1.0] * 12 + losses))[1] is fell
    assert lr.smoothed([1.0, 0.0]) == pytest.approx([1, 0.9 / 1.9])


def test_the_curve_is_drawn_and_held_out_rows_take_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    todo, curves = planned(tmp_path, stages=STAGES), kept_curves(monkeypatch, 30)

    def suggest() -> tuple[float, bool, Path]:
        return lr.suggest(todo, "graph", 1)

    chosen, fell, file = suggest()
    assert 1e-7 < chosen < 0.1
    assert fell == lr.suggested(*curves[0])[1]
    assert file.read_bytes().startswith(b"\x89PNG")
    table = read_table(todo.paths.train)
    held_out = read_folds(todo.paths.folds, list(table["id"])) == 0
    table.loc[held_out, ["lumo", "mu", "pH"]] = 1e6
    table.loc[held_out, "SMILES"] = "C"
    write_table(todo.paths.train, table)
    suggest()
    assert np.array_equal(curves[0][1], curves[1][1])


def test_grades_are_tested_as_the_stage_learns_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (train, test), curves = mixed_tables(), kept_curves(monkeypatch, 10)
    grades = {"targets": ["grade"], "problem_type": "ordinal", "metric": "quadratic_kappa"}
    stages = {"graph": {**STAGES["graph"], "ordinal": "cumulative"}}
    todo = planned(tmp_path, tables=(train.assign(grade=np.arange(60) % 3), test), competition=grades, stages=stages)
    lr.suggest(todo, "graph", 1)
    assert curves[0][1][0] == pytest.approx(np.log(2), abs=0.15)  # no knowledge of each label


def test_a_stage_that_is_not_neural_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned(tmp_path, stages=STAGES)
    monkeypatch.setattr(sys, "argv", ["lr", str(tmp_path / "mixed.yaml"), "trees"])
    with pytest.raises(ConfigError, match=r"'trees' is none of the neural stages of mixed \(graph\)"):
        lr.main()
