"""Stages of users: their settings are fields, and errors are reported with file and line."""

import pickle
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from competition.task import Task
from core.errors import ConfigError
from models.registry import Stages, make_stage
from tests.models.made import context, fitted, rows

CLASS = """
from models.api import Stage

class Mine(Stage):
    value: float = 0.5

    def fit(self, train, folder, context):
        (folder / "model").touch()

    def predict(self, rows, folder, context):
        return [[self.value] * len(context.task.outputs) for _ in rows.ids]
"""
ROWS = rows(np.zeros((3, 2)), s=["C", "CC", "CCC"])
REGRESSION = Task(["y", "z"])
BINARY = Task(["y"], None, "binary", ["a", "b"])
MULTICLASS = Task(["y"], None, "multiclass", ["a", "b", "c"])
ROW_PREDICTION = "[self.value] * len(context.task.outputs)"


def write(folder: Path, code: str, **settings: Any) -> Any:
    """Return a stage of a file with this code."""
    (folder / "user.py").write_text(code)
    return make_stage({"kind": f"{folder / 'user.py'}:Mine", **settings})


@pytest.mark.parametrize(
    ("task", "old", "new", "message"),
    [
        (
            REGRESSION,
            '(folder / "model").touch()',
            "raise KeyError(1)",
            r"user\.py:Mine raised KeyError in line 8: 1\.$",
        ),
        (
            REGRESSION,
            ROW_PREDICTION,
            "[0.5]",
            r"finite numbers of shape \(3, 2\).*; got shape \(3, 1\)",
        ),
        (REGRESSION, "self.value", "float('nan')", "6 numbers that are not finite"),
        (REGRESSION, ROW_PREDICTION, "'high'", r"user\.py:Mine must return numbers from predict; ValueError"),
        (BINARY, ROW_PREDICTION, "[0.5]", None),
        (
            BINARY,
            ROW_PREDICTION,
            "[1.5]",
            r"probabilities of y, from 0 to 1.*; got \[1\.5\] for row 'r0'",
        ),
        (MULTICLASS, ROW_PREDICTION, "[0.3, 0.3, 0.4]", None),
        (
            MULTICLASS,
            ROW_PREDICTION,
            "[0.3, 0.3, 0.3]",
            r"of y=a, y=b, y=c.* sum 1.*; got \[0\.3, .*for row 'r0'",
        ),
    ],
)
def test_an_error_of_a_class_is_one_sentence(
    tmp_path: Path, task: Task, old: str, new: str, message: Any
) -> None:
    stage = write(tmp_path, CLASS.replace(old, new))
    with pytest.raises(ConfigError, match=message) if message else nullcontext():
        mine = fitted(stage, context(tmp_path, task=task), ROWS, tmp_path)
        assert mine.predict(ROWS.without_labels(), tmp_path).shape == (3, len(task.outputs))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("class Mine(Stage)", "class Mine", r"user\.py:Mine must inherit Stage"),
        ("class Mine(Stage)", "class Other(Stage)", r"must define a class that inherits models\.api\.Stage"),
        (
            "train, folder, context",
            "train, folder",
            r"defines fit\(self, train, folder\); write `def fit\(self, train, folder, context\):`",
        ),
        ("float = 0.5", "float = valeu", r"NameError in line 5"),
    ],
)
def test_what_is_not_a_stage_is_refused_with_the_line_to_write(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write(tmp_path, CLASS.replace(old, new))


def test_errors_of_settings_name_the_key_in_the_yaml(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(CLASS)
    block = {"kind": f"{tmp_path / 'user.py'}:Mine", "value": "high", "rate": 1}
    with pytest.raises(ValueError, match=r"(?s)mine\.value.*valid number.*mine\.rate"):
        TypeAdapter(Stages).validate_python({"mine": block})


def test_a_worker_gets_the_settings_of_a_stage_and_loads_its_file_itself(tmp_path: Path) -> None:
    stage = write(tmp_path, CLASS, value=0.25)
    file = tmp_path / "stage.pickle"
    file.write_bytes(pickle.dumps(stage))
    code = f"import pickle, pathlib; print(pickle.loads(pathlib.Path({str(file)!r}).read_bytes()).value)"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output == "0.25\n"


@pytest.mark.parametrize(
    ("returned", "message"), [("[0.5] * len(rows.ids)", None), ("[0.5]", "predict_std of .*shape")]
)
def test_standard_deviations_of_a_class_are_checked_if_it_has_them(
    tmp_path: Path, returned: str, message: str | None
) -> None:
    stage = fitted(write(tmp_path, CLASS), context(tmp_path), ROWS, tmp_path)
    assert stage.predict_std(ROWS.without_labels(), tmp_path) is None
    code = f"{CLASS}\n    def predict_std(self, rows, folder, context):\n        return {returned}\n"
    stage = fitted(write(tmp_path, code), context(tmp_path), ROWS, tmp_path)
    with pytest.raises(ConfigError, match=message) if message else nullcontext():
        assert stage.predict_std(ROWS.without_labels(), tmp_path).tolist() == [[0.5]] * len(ROWS)
