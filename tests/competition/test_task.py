"""The names of outputs, how they become the sample's columns, and code of the user's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from competition.config import load_competition
from competition.errors import ConfigError
from competition.task import Task, task_of, to_sample
from competition.user_code import load_user_code
from tests.competition.small import write_small


def test_the_outputs_of_a_regression_are_its_targets_and_the_sample_has_its_own_names(tmp_path: Path) -> None:
    task = task_of(load_competition(str(write_small(tmp_path, targets=["y", "z"], submission_columns=["Y", "Z"]))))
    assert task.outputs == task.targets == ["y", "z"]
    table = to_sample(task, np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert table.to_dict("list") == {"Y": [1.0, 3.0], "Z": [2.0, 4.0]}


def test_a_multiclass_target_has_an_output_per_class() -> None:
    task = Task(["colour"], problem_type="multiclass", classes=["red", "green"])
    assert task.outputs == ["colour=red", "colour=green"]
    assert task.columns_in_sample == ["colour"]
    assert Task(["a", "b"], problem_type="multilabel").outputs == ["a", "b"]


ANNOTATED = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar, Literal
from pydantic import BaseModel

@dataclass
class Record:
    shared: ClassVar[int] = 1
    value: Literal["a", "b"] = "a"

class Settings(BaseModel):
    mode: Literal["fast", "slow"] = "fast"
"""


def test_a_users_file_may_postpone_its_annotations_share_its_name_and_change(tmp_path: Path) -> None:
    files = [tmp_path / folder / "mine.py" for folder in ("a", "b")]
    for file, content in zip(files, (ANNOTATED, "Record = 'of b'"), strict=True):
        file.parent.mkdir()
        file.write_text(content)
    record, other = (load_user_code("code", f"{file}:Record", "a class") for file in files)
    assert (record().value, other) == ("a", "of b")
    assert load_user_code("code", f"{files[0]}:Settings", "a class")(mode="slow").mode == "slow"
    files[0].write_text("Record = 'changed'\n")
    assert load_user_code("code", f"{files[0]}:Record", "a class") == "changed"
    with pytest.raises(ConfigError, match="must define other"):
        load_user_code("code", f"{files[0]}:other", "other")
