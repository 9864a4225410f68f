"""A class of the user's own: what it may get wrong is said with its file and line."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from competition.errors import ConfigError
from competition.task import Task
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


def predicted(folder: Path, old: str = "", new: str = "", task: Task = Task(["y", "z"])) -> np.ndarray:  # noqa: B008
    (folder / "own.py").write_text(CLASS.replace(old, new) if old else CLASS)
    config = CustomStage(kind="custom", code=f"{folder / 'own.py'}:Mine")
    stage = build_stage(config, context(folder, task=task))
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


@pytest.mark.parametrize(
    ("problem_type", "value", "says"),
    [
        ("binary", "[0.5]", None),
        ("binary", "[1.5]", r"probabilities of y, which lie in 0 to 1.* of row 'r0' it returned \[1\.5\]"),
        ("multiclass", "[0.3, 0.3, 0.4]", None),
        ("multiclass", "[0.3, 0.3, 0.3]", r"of y=a, y=b, y=c.* sum to 1; of row 'r0' it returned \[0\.3, 0\.3, 0\.3\]"),
    ],
)
def test_probabilities_lie_in_0_to_1_and_sum_to_1(tmp_path: Path, problem_type: Any, value: str, says: Any) -> None:
    task = Task(["y"], None, problem_type, ["a", "b", "c"][: 3 if problem_type == "multiclass" else 2])
    with pytest.raises(ConfigError, match=says) if says else nullcontext():
        assert predicted(tmp_path, "[0.5] * self.n_outputs", value, task).shape == (3, len(task.outputs))
