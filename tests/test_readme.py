"""The README is true: its files exist, its verbs are those of run.sh, its YAML loads, its own stage runs."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import yaml

from competition.metrics import METRICS
from competition.paths import PROJECT
from competition.tables import Rows
from models.schedules import SCHEDULES
from models.stage import Context
from submissions.config import Config

README = (PROJECT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_list_of_files_is_the_tree() -> None:
    listed = set(re.findall(r"^\s*([a-z_]+/[a-z0-9_]+\.py)\b", README, flags=re.MULTILINE))
    there = {
        f"{room}/{file.name}"
        for room in ("competition", "folds", "models", "submissions")
        for file in (PROJECT / room).glob("*.py")
        if file.name != "__init__.py"
    }
    assert listed == there


def test_every_verb_that_is_named_is_one_of_run_sh() -> None:
    verbs = set(re.findall(r"^  ([a-z]+)\)", (PROJECT / "run.sh").read_text(), flags=re.MULTILINE)) | {"help"}
    named = set(re.findall(r"\./run\.sh ([a-z]+)", README))
    assert named
    assert named <= verbs
    assert verbs <= named


def test_every_other_file_that_is_named_exists() -> None:
    for name in re.findall(r"`((?:competition|folds|models|submissions|tests)/[\w./]+\.(?:py|yaml|md))`", README):
        assert (PROJECT / name).exists() or "NAME" in name or name.startswith("models/knn"), name


def test_the_first_yaml_loads_as_it_stands() -> None:
    config = Config.model_validate(yaml.safe_load(blocks("yaml")[0]))
    assert len(config.stages) >= 3


def test_all_metrics_and_schedules_are_listed() -> None:
    for name in [*METRICS, *SCHEDULES]:
        assert f"`{name}`" in README, name


def test_the_stage_of_ones_own_fits_and_predicts(tmp_path: Path) -> None:
    code = next(block for block in blocks("python") if "class Knn" in block)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    names: dict[str, Any] = {}
    exec(compile(code, "models/knn.py", "exec"), names)
    context = Context(["SMILES"], [], [], [], ["y"], 0, tmp_path)
    stage = names["Knn"](SimpleNamespace(neighbours=1), context)
    smiles = ["CCO", "c1ccccc1", "CC(=O)O"]
    train = Rows(["a", "b", "c"], pd.DataFrame({"SMILES": smiles}), np.array([[1.0], [2.0], [3.0]]))
    stage.fit(train, None, tmp_path)
    assert stage.predict(train.without_labels(), tmp_path)[:, 0].tolist() == [1.0, 2.0, 3.0]
