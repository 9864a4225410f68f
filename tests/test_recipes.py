"""The recipes of docs/recipes.md work as they stand: they are checked, trained and blended in one run."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from competition.config import load_competition
from competition.dataset import Dataset
from competition.prepare import prepare
from competition.task import Task
from core.files import PROJECT
from core.user_code import load_user_code
from models.context import Context
from pipeline import commands
from tests.conftest import mixed_tables, write_competition

PAGE = (PROJECT / "docs" / "recipes.md").read_text()


def block(language: str, word: str) -> str:
    """Return the only block of the page in a language that contains a word."""
    (text,) = [text for text in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if word in text]
    return str(text)


def test_both_recipes_run_and_have_at_most_40_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, word in (("others.py", "class Others"), ("assay.py", "def make")):
        code = block("python", word)
        assert len([line for line in code.splitlines() if line.strip()]) <= 40
        (tmp_path / name).write_text(code)
    assay = pd.DataFrame({"SMILES": ["C" * n + "O" for n in range(9, 30)], "logS": -np.arange(9.0, 30.0)})
    assay.to_csv(tmp_path / "solubility.csv", index=False)
    trees = {"kind": "lightgbm", "features": ["maccs"], "max_trees": 20}
    stages = {"trees": trees, **yaml.safe_load(block("yaml", "others.py:Others"))["stages"]}
    settings = yaml.safe_load(block("yaml", "assay.py:make"))["competition"]
    path = write_competition(tmp_path, *mixed_tables(), stages=stages, competition=settings)
    features = prepare(load_competition(str(path))).test["feature predicted logS"]
    assert features.between(-30, -8).all()
    assert commands.main(["full", str(path)]) == 0
    run = json.loads(next((tmp_path / "work").glob("mixed/submissions/*/run.json")).read_text())
    assert [stage["name"] for stage in run["stages"]] == ["others", "trees"]


class Memory:
    """Predicts the labels of the rows that it was fitted on, and 0 for others."""

    def __init__(self, x: Any, y: Any) -> None:
        self.labels = dict(zip(map(tuple, x), y, strict=True))

    def predict(self, x: Any) -> Any:
        return np.array([self.labels.get(tuple(row), 0.0) for row in x])

    def save_model(self, file: Path) -> None:
        """Nothing is predicted later."""


def test_predictions_of_other_targets_come_from_trees_that_did_not_see_the_row(tmp_path: Path) -> None:
    (tmp_path / "others.py").write_text(block("python", "class Others"))
    others = load_user_code("stages.others", f"{tmp_path / 'others.py'}:Others", "a stage")
    fitted = []

    def fit(x: Any, y: Any, seed: int) -> Memory:
        fitted.append(x)
        return Memory(x, y)

    others.fit.__globals__["fitted"] = fit
    smiles = ["C" * n + end for n in range(1, 7) for end in "ON"]
    train = Dataset(list("abcdefghijkl"), pd.DataFrame({"SMILES": smiles}), np.arange(1.0, 25).reshape(12, 2))
    context = Context(["SMILES"], [], [], [], Task(["a", "b"]), 0, tmp_path, fold_ids=np.arange(12) % 3)
    others(kind="others.py:Others").fit(train, tmp_path, context)
    *_, features_of_a, features_of_b = fitted
    assert features_of_a.shape == features_of_b.shape == (12, 1025)
    assert not features_of_a[:, 1024].any() and not features_of_b[:, 1024].any()
