"""The names of outputs, how they become the sample's columns, and code of the user's own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from competition.task import Task, class_names, class_numbers, from_submission_columns, to_submission_columns
from core.errors import ConfigError
from core.user_code import load_user_code
from tests.folds.made import competition


def test_outputs_are_the_targets_or_the_classes_of_a_multiclass_one() -> None:
    task = Task(["colour"], problem_type="multiclass", classes=["red", "green"])
    assert task.outputs == ["colour=red", "colour=green"]
    assert task.columns_in_sample == ["colour"]
    assert Task(["a", "b"], problem_type="multilabel").outputs == Task(["a", "b"]).outputs == ["a", "b"]


def task(
    problem_type: str, metric: str, classes: list[str], columns: list[str] | None = None, **roles: Any
) -> Task:
    targets = roles.pop("targets", ["y"])
    settings = {
        "problem_type": problem_type,
        "metric": metric,
        "classes": classes,
        "submission_columns": columns,
    }
    return competition(targets=targets, **settings, **roles).task


P = np.array([[0.2, 0.7, 0.1], [0.5, 0.25, 0.25]])
LAYOUTS = {
    "numbers": (task("regression", "rmse", []), [[1.5], [-2.0]], {"y": [1.5, -2.0]}),
    "the probability of the second": (task("binary", "roc_auc", ["no", "yes"]), [[0.25], [1.0]], {"y": [0.25, 1]}),
    "a probability of each of two": (
        task("binary", "log_loss", ["no", "yes"], ["p0", "p1"]), [[0.25], [1.0]], {"p0": [0.75, 0], "p1": [0.25, 1]},
    ),
    "names": (task("multiclass", "accuracy", ["a", "b", "c"]), [[2.0], [0.0]], {"y": ["c", "a"]}),
    "probabilities": (
        task("multiclass", "log_loss", ["a", "b", "c"], ["A", "B", "C"]), P,
        {"A": [0.2, 0.5], "B": [0.7, 0.25], "C": [0.1, 0.25]},
    ),
    "a column of 0 and 1 for each class": (
        task("multiclass", "f1_macro", ["a", "b", "c"], ["A", "B", "C"]), [[2.0], [0.0]],
        {"A": [0, 1], "B": [0, 0], "C": [1, 0]},
    ),
    "probabilities for MAP@k": (
        task("multiclass", "map_at_2", ["a", "b", "c"], ["A", "B", "C"]), P,
        {"A": [0.2, 0.5], "B": [0.7, 0.25], "C": [0.1, 0.25]},
    ),
    "grades": (task("ordinal", "quadratic_kappa", ["1", "2", "5"]), [[2.0], [1.0]], {"y": ["5", "2"]}),
    "several labels": (
        task("multilabel", "f1_micro", ["0", "1"], ["Y", "Z"], targets=["y", "z"]), [[1.0, 0.0], [0, 1]],
        {"Y": ["1", "0"], "Z": ["0", "1"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_scored_is_written_in_the_layout_of_the_sample_and_read_back(layout: str) -> None:
    task, scored, expected = LAYOUTS[layout]
    table = to_submission_columns(task, np.array(scored))
    assert table.to_dict("list") == expected
    np.testing.assert_array_equal(from_submission_columns(task, table.astype(str)), scored)


def test_the_most_probable_classes_are_written_in_their_order_and_read_back_as_it() -> None:
    named = task("multiclass", "map_at_2", ["a", "b", "c"])
    table = to_submission_columns(named, P)
    assert table.to_dict("list") == {"y": ["b a", "a b"]}  # of equal ones the first
    np.testing.assert_array_equal(from_submission_columns(named, table), [[0.5, 1, 0], [1, 0.5, 0]])
    assert to_submission_columns(task("multiclass", "map_at_5", ["a", "b", "c"]), P)["y"].tolist() == [
        "b a c",
        "a b c",
    ]


def test_a_cell_that_no_submission_has_is_read_as_nan() -> None:
    names = task("multiclass", "accuracy", ["a", "b"])
    np.testing.assert_array_equal(
        from_submission_columns(names, pd.DataFrame({"y": ["b", "d", ""]})), [[1], [np.nan], [np.nan]]
    )
    numbers = task("binary", "roc_auc", ["no", "yes"])
    np.testing.assert_array_equal(
        from_submission_columns(numbers, pd.DataFrame({"y": ["0.5", "yes"]})), [[0.5], [np.nan]]
    )


def test_labels_are_distinguished_as_numbers_booleans_and_names() -> None:
    def read(cells: list[str], classes: list[str]) -> tuple[list[float], list[bool]]:
        numbers, wrong = class_numbers(pd.Series(cells), classes)
        return numbers.fillna(-1).tolist(), wrong.tolist()

    assert read(["1.0", " 0", "2", "", "NA"], ["0", "1"]) == (
        [1, 0, -1, -1, -1],
        [False, False, True, False, False],
    )
    assert read(["True", "false", "TRUE", "truth"], ["false", "true"]) == (
        [1, 0, 1, -1],
        [False, False, False, True],
    )
    assert read(["Yes", "yes"], ["no", "yes"]) == ([-1, 1], [True, False])
    assert class_names(pd.DataFrame({"y": ["10", "9.0", "1.5", "9", ""]})) == ["1.5", "9", "10"]
    assert class_names(pd.DataFrame({"y": ["b", "a ", "NA"], "z": ["c", "nan", "b"]})) == [
        "NA",
        "a",
        "b",
        "c",
    ]


ANNOTATED = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar, Literal

@dataclass
class Record:
    shared: ClassVar[int] = 1
    value: Literal["a", "b"] = "a"
"""


def test_a_users_file_may_postpone_its_annotations_share_its_name_and_change(tmp_path: Path) -> None:
    files = [tmp_path / folder / "mine.py" for folder in ("a", "b")]
    for file, content in zip(files, (ANNOTATED, "Record = 'of b'"), strict=True):
        file.parent.mkdir()
        file.write_text(content)
    record, other = (load_user_code("code", f"{file}:Record", "a class") for file in files)
    assert (record().value, other) == ("a", "of b")
    files[0].write_text("Record = 'changed'\n")
    assert load_user_code("code", f"{files[0]}:Record", "a class") == "changed"
    with pytest.raises(ConfigError, match="must define other"):
        load_user_code("code", f"{files[0]}:other", "other")


def test_each_competition_imports_its_helpers_as_they_are_now(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        (folder / "tools").mkdir(parents=True)
        (folder / "mine.py").write_text(
            "from helpers import VALUE\n\ndef late():\n    from tools import deep\n    return deep.VALUE\n"
        )
        (folder / "helpers.py").write_text("from tools.deep import VALUE\n")
        (folder / "tools" / "deep.py").write_text(f"VALUE = 'deep of {folder.name}'\n")

    def values(folder: Path) -> list[str]:
        named = f"{folder / 'mine.py'}:"
        return [load_user_code("code", f"{named}VALUE", "it"), load_user_code("code", f"{named}late", "it")()]

    assert [values(folder) for folder in folders] == [["deep of a"] * 2, ["deep of b"] * 2]
    (folders[1] / "tools" / "deep.py").write_text("VALUE = 'edited'\n")
    assert values(folders[1]) == ["edited"] * 2


def test_a_module_next_to_a_users_file_takes_no_librarys_place(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("dumps = None\n")
    (tmp_path / "mine.py").write_text("import json\n")
    assert load_user_code("code", f"{tmp_path / 'mine.py'}:json", "it") is json
