"""A class of the user's own: what it may get wrong is said with its file and line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from competition.errors import ConfigError
from models.registry import build_stage
from models.settings import CustomStage
from tests.models.made import context, rows

CLASSES = """
class Good:
    def __init__(self, settings, context):
        self.n_outputs = len(context.task.outputs)

    def fit(self, train, valid, folder):
        pass

    def predict(self, rows, folder):
        return [[0.5] * self.n_outputs for _ in rows.ids]

class Fails(Good):
    def fit(self, train, valid, folder):
        raise KeyError("boom")

class Quits(Good):
    def fit(self, train, valid, folder):
        raise SystemExit(0)

class Narrow(Good):
    def predict(self, rows, folder):
        return [[0.5] for _ in rows.ids]

class Unfinite(Good):
    def predict(self, rows, folder):
        return [[float("nan")] * 2 for _ in rows.ids]

class Words(Good):
    def predict(self, rows, folder):
        return ["high" for _ in rows.ids]

class Short(Good):
    def fit(self, train):
        pass

class Bare:
    fit = predict = Good.fit
"""
ROWS = rows(np.zeros((3, 2)), s=["C", "CC", "CCC"])


def predicted(folder: Path, name: str) -> np.ndarray:
    (folder / "own.py").write_text(CLASSES)
    config = CustomStage(kind="custom", code=f"{folder / 'own.py'}:{name}")
    stage = build_stage(config, context(folder, ("y", "z"), smiles=["s"]))
    stage.fit(ROWS, None, folder)
    return stage.predict(ROWS.without_labels(), folder)


def test_a_list_of_numbers_is_a_prediction(tmp_path: Path) -> None:
    assert np.array_equal(predicted(tmp_path, "Good"), np.full((3, 2), 0.5))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Fails", r"fit of .*own\.py:Fails raised KeyError in line 14: 'boom'"),
        ("Quits", "raised SystemExit in line 18"),
        ("Narrow", r"must return numbers of shape \(3, 2\).* it returned the shape \(3, 1\)"),
        ("Unfinite", "6 of them are not finite"),
        ("Words", "predict of .* raised ValueError"),
        ("Short", r"must be a class with fit\(self, train, valid, folder\)"),
        ("Bare", r"must be a class with __init__\(self, settings, context\)"),
        ("Absent", "must define a class"),
    ],
)
def test_what_a_class_does_wrong_is_one_sentence(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        predicted(tmp_path, name)
