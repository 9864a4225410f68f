"""Stages of users: their settings are fields, and errors are reported with file and line."""

import numpy as np
import pytest

from competition.task import Task
from core.errors import ConfigError
from models.registry import make_stage
from submissions.config import load_config
from tests.conftest import mixed_tables, write_competition
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
WITH_STD = f"""{CLASS}
    def predict_std(self, rows, folder, context):
        return [[0.5 for _ in context.task.outputs] for _ in rows.ids]
"""
ROWS = rows(np.zeros((3, 2)), s=["C", "CC", "CCC"])
REGRESSION = Task(["y", "z"])
BINARY = Task(["y"], None, "binary", ["a", "b"])
MULTICLASS = Task(["y"], None, "multiclass", ["a", "b", "c"])
ROW_PREDICTION = "[self.value] * len(context.task.outputs)"


def write(folder, code, **settings):
    """Return a stage of a file with this code."""
    (folder / "user.py").write_text(code)
    return make_stage({"kind": f"{folder / 'user.py'}:Mine", **settings})


@pytest.mark.parametrize(
    ("task", "old", "new", "message"),
    [
        (REGRESSION, '(folder / "model").touch()', "raise KeyError(1)", r"raised KeyError in line 8: 1\.$"),
        (REGRESSION, ROW_PREDICTION, "[0.5]", r"finite numbers of shape \(3, 2\).*; got shape \(3, 1\)"),
        (REGRESSION, "self.value", "float('nan')", "6 numbers that are not finite"),
        (REGRESSION, ROW_PREDICTION, "'high'", r"user\.py:Mine must return numbers from predict; ValueError"),
        (BINARY, ROW_PREDICTION, "[1.5]", r"of y, from 0 to 1.*; got \[1\.5\] for row 'r0'"),
        (MULTICLASS, ROW_PREDICTION, "[0.3] * 3", r"of y=a, y=b, y=c.* sum 1.*; got \[0\.3, .*for row 'r0'"),
        (REGRESSION, "[0.5 for _ in context.task.outputs]", "0.5", "predict_std of .*shape"),
    ],
)
def test_an_error_of_a_class_is_one_sentence(tmp_path, task, old, new, message):
    stage = write(tmp_path, WITH_STD.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        mine = fitted(stage, context(tmp_path, task=task), ROWS, tmp_path)
        mine.predict(ROWS.without_labels(), tmp_path)
        mine.predict_std(ROWS.without_labels(), tmp_path)


@pytest.mark.parametrize(
    ("task", "prediction", "std"),
    [(REGRESSION, [0.5, 7], [[0.5, 0.5]] * 3), (BINARY, [0.5], None), (MULTICLASS, [0.3, 0.3, 0.4], None)],
)
def test_numbers_and_probabilities_of_a_class_are_its_predictions(tmp_path, task, prediction, std):
    stage = write(tmp_path, WITH_STD.replace(ROW_PREDICTION, str(prediction)))
    mine = fitted(stage, context(tmp_path, task=task), ROWS, tmp_path)
    np.testing.assert_allclose(mine.predict(ROWS.without_labels(), tmp_path), [prediction] * 3)
    np.testing.assert_equal(mine.predict_std(ROWS.without_labels(), tmp_path), std)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("class Mine(Stage)", "class Mine", r"user\.py:Mine must inherit Stage"),
        ("def predict(", "def predicted(", r"user\.py:Mine has no method predict; add it"),
        ("class Mine(Stage)", "class Other(Stage)", r"must define a class that inherits models\.api\.Stage"),
        (
            "train, folder, context",
            "train, folder",
            r"defines fit\(self, train, folder\); write `def fit\(self, train, folder, context\):`",
        ),
        ("float = 0.5", "float = valeu", r"NameError in line 5"),
    ],
)
def test_what_is_not_a_stage_is_refused_with_the_line_to_write(tmp_path, old, new, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path, CLASS.replace(old, new))


def test_errors_of_settings_name_the_key_in_the_yaml(tmp_path):
    (tmp_path / "user.py").write_text(CLASS)
    block = {"kind": "user.py:Mine", "value": "high", "rate": 1}
    path = write_competition(tmp_path, *mixed_tables(), stages={"mine": block})
    with pytest.raises(ConfigError, match=r"(?s)stages\.mine\.value: .*valid number.*stages\.mine\.rate: "):
        load_config(str(path))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("rows.ids", None),
        ("rows.inputs.index", None),
        (
            "rows.inputs['s']",
            r"user\.py:Mine must .* index of the table, 'CCC', 'CC', 'C', does not name its rows, 0, 1, 2\.",
        ),
    ],
)
def test_predictions_in_a_table_are_matched_by_its_index(tmp_path, index, message):
    code = CLASS.replace("from models", "import numpy as np\nimport pandas as pd\nfrom models").replace(
        f"[{ROW_PREDICTION} for _ in rows.ids]",
        f"pd.DataFrame(np.arange(6.0).reshape(3, 2), index={index})[::-1]",
    )
    mine = fitted(write(tmp_path, code), context(tmp_path, task=REGRESSION), ROWS, tmp_path)
    if message is None:
        assert mine.predict(ROWS.without_labels(), tmp_path).tolist() == [[0, 1], [2, 3], [4, 5]]
        return
    with pytest.raises(ConfigError, match=message):
        mine.predict(ROWS.without_labels(), tmp_path)


def test_columns_of_predictions_with_the_names_of_the_targets_are_brought_into_their_order(tmp_path):
    code = CLASS.replace("from models", "import numpy as np\nimport pandas as pd\nfrom models").replace(
        f"[{ROW_PREDICTION} for _ in rows.ids]",
        "pd.DataFrame({name: np.full(len(rows), number) for name, number in (('z', 1.0), ('y', 0.0))})",
    )
    mine = fitted(write(tmp_path, code), context(tmp_path, task=REGRESSION), ROWS, tmp_path)
    assert mine.predict(ROWS.without_labels(), tmp_path).tolist() == [[0, 1]] * 3
