"""User-defined stages: their errors are reported with file and line."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from competition.task import Task
from core.errors import ConfigError
from models.jobs.plan import code_files
from models.stages.custom import CustomConfig, load_custom
from tests.models.made import context, fitted, rows

CLASS = """
class Mine:
    def __init__(self, settings, context):
        self.n_outputs = len(context.task.outputs)

    def fit(self, train, folder):
        self.fitted = True

    def predict(self, rows, folder):
        return [[0.5] * self.n_outputs for _ in rows.ids]
"""
ROWS = rows(np.zeros((3, 2)), s=["C", "CC", "CCC"])
REGRESSION = Task(["y", "z"])
BINARY = Task(["y"], None, "binary", ["a", "b"])
MULTICLASS = Task(["y"], None, "multiclass", ["a", "b", "c"])
ROW_PREDICTION = "[0.5] * self.n_outputs"


@pytest.mark.parametrize(
    ("task", "old", "new", "message"),
    [
        (
            REGRESSION,
            "self.fitted = True",
            "raise KeyError(1)",
            r"user\.py:Mine raised KeyError in line 7: 1\.$",
        ),
        (
            REGRESSION,
            ROW_PREDICTION,
            "[0.5]",
            r"finite numbers of shape \(3, 2\).*; got shape \(3, 1\)",
        ),
        (REGRESSION, "0.5", "float('nan')", "6 numbers that are not finite"),
        (REGRESSION, ROW_PREDICTION, "'high'", r"user\.py:Mine must return numbers from predict; ValueError"),
        (
            REGRESSION,
            "def fit(",
            "Settings = dict\n    def fit(",
            r"Settings of .*user\.py:Mine must be a pydantic model",
        ),
        (REGRESSION, "def fit(", "def train(", r"must be a class with fit\(train, folder\)"),
        (
            REGRESSION,
            "train, folder",
            "train, valid, folder",
            r"defined as fit\(self, train, valid, folder\)\. Write `def fit\(self, train, folder\):`",
        ),
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
    (tmp_path / "user.py").write_text(CLASS.replace(old, new))
    config = CustomConfig(kind="custom", code=f"{tmp_path / 'user.py'}:Mine")
    with pytest.raises(ConfigError, match=message) if message else nullcontext():
        stage = fitted(config, context(tmp_path, task=task), ROWS, tmp_path)
        assert stage.predict(ROWS.without_labels(), tmp_path).shape == (3, len(task.outputs))


def test_the_key_of_a_class_depends_on_the_code_that_calls_it(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(CLASS)
    config = CustomConfig(kind="custom", code=f"{tmp_path / 'user.py'}:Mine")
    assert {"user.py", "models/stages/custom.py"} <= code_files(config).keys()


def test_errors_of_settings_name_the_key_in_the_yaml_and_not_the_file(tmp_path: Path) -> None:
    settings = "from core.settings import StrictModel\n\nclass Settings(StrictModel):\n    k: int = 1\n"
    (tmp_path / "user.py").write_text(
        settings + CLASS.replace("class Mine:", "class Mine:\n    Settings = Settings")
    )
    config = CustomConfig(
        kind="custom", code=f"{tmp_path / 'user.py'}:Mine", settings={"k": "one", "rate": 1}
    )
    with pytest.raises(
        ConfigError, match=r"^settings\.k: .* \(got 'one'\)\nsettings\.rate: unknown key; try k$"
    ):
        load_custom(config)


@pytest.mark.parametrize(
    ("returned", "message"), [("[0.5] * len(rows.ids)", None), ("[0.5]", "predict_std of .*shape")]
)
def test_standard_deviations_of_a_class_are_checked_if_it_has_them(
    tmp_path: Path, returned: str, message: str | None
) -> None:
    file = tmp_path / "user.py"
    file.write_text(CLASS)
    config = CustomConfig(kind="custom", code=f"{file}:Mine")
    stage = fitted(config, context(tmp_path), ROWS, tmp_path)
    assert stage.predict_std(ROWS.without_labels(), tmp_path) is None
    file.write_text(f"{CLASS}\n    def predict_std(self, rows, folder):\n        return {returned}\n")
    stage = fitted(config, context(tmp_path), ROWS, tmp_path)
    with pytest.raises(ConfigError, match=message) if message else nullcontext():
        assert stage.predict_std(ROWS.without_labels(), tmp_path).tolist() == [[0.5]] * len(ROWS)
