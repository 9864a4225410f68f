"""A class of the user's own: what it may get wrong is said with its file and line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from competition.errors import ConfigError
from models.config import CustomStage
from models.registry import build_stage
from tests.models.made import context, rows

CLASS = """
class Mine:
    def __init__(self, settings, context):
        self.n_outputs = len(context.task.outputs)

    def fit(self, train, valid, folder):
        self.fitted = True

    def predict(self, rows, folder):
        return [[0.5] * self.n_outputs for _ in rows.ids]
"""
ROWS = rows(np.zeros((3, 2)), s=["C", "CC", "CCC"])


def predicted(folder: Path, old: str = "", new: str = "") -> np.ndarray:
    (folder / "own.py").write_text(CLASS.replace(old, new) if old else CLASS)
    config = CustomStage(kind="custom", code=f"{folder / 'own.py'}:Mine")
    stage = build_stage(config, context(folder, ("y", "z"), smiles=["s"]))
    stage.fit(ROWS, None, folder)
    return stage.predict(ROWS.without_labels(), folder)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("self.fitted = True", "raise KeyError('boom')", r"own\.py:Mine raised KeyError in line 7: 'boom'"),
        ("[0.5] * self.n_outputs", "[0.5]", r"finite numbers of shape \(3, 2\).* it returned the shape \(3, 1\)"),
        ("0.5", "float('nan')", "6 not finite"),
        ("[0.5] * self.n_outputs", "'high'", "raised ValueError"),
        ("def fit(", "Settings = dict\n    def fit(", "Settings of .*own.py:Mine must be a pydantic model"),
        ("def fit(", "def train(", r"must be a class with fit\(train, valid, folder\)"),
        ("train, valid, folder", "train", r"raised TypeError: .*fit\(\) takes 2 positional arguments"),
    ],
)
def test_what_a_class_does_wrong_is_one_sentence(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        predicted(tmp_path, old, new)


def test_a_list_of_numbers_is_a_prediction(tmp_path: Path) -> None:
    assert np.array_equal(predicted(tmp_path), np.full((3, 2), 0.5))
