"""Versions of libraries in the keys of jobs."""

from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from competition.config import load_competition
from competition.dataset import FOLD, GROUP
from core.files import write_json, write_table
from core.paths import Paths
from models.config import load_stages
from models.jobs.plan import JobPlan, make_plan
from tests.conftest import write_competition


def one_of_each_kind(folder: Path, **changes: Any) -> JobPlan:
    """The plan of a fixed competition with a stage of each kind; `changes` are settings of the stage
    lightgbm.
    """
    train = pd.DataFrame({"id": list("abcd"), "SMILES": ["C", "CC", "CO", "N"], "note": ["x", "y", "x", "y"]})
    train = train.assign(pH=[7.0, 6.5, None, 7.5], site=["s", "t", "s", "t"], lumo=[0.1, 0.2, 0.3, 0.4])
    train = train.assign(mu=[1.0, None, 3.0, 4.0])
    test = train.drop(columns=["lumo", "mu"]).assign(id=list("efgh"))
    for name, table in (
        ("oof", train[["id", "lumo", "mu"]]),
        ("test", test[["id"]].assign(lumo=0.0, mu=0.0)),
    ):
        write_table(folder / "theirs" / f"{name}.csv", table)
    (folder / "mine.py").write_text(
        "from models.api import Stage\n\nclass Mine(Stage):\n    neighbours: int\n"
    )
    kinds = ("catboost", "sklearn", "gnn", "bert", "unimol", "unimol2")
    stages = {
        "lightgbm": {"kind": "lightgbm", **changes},
        **{kind: {"kind": kind} for kind in kinds},
        "file": {"kind": "file", "folder": "theirs"},
        "own": {"kind": "mine.py:Mine", "neighbours": 3},
    }
    path = str(write_competition(folder, train, test, stages=stages))
    paths = Paths("mixed")
    write_table(paths.train, train.assign(**{FOLD: [0, 1, 0, 1], GROUP: [0, 1, 2, 3]}))
    write_table(paths.test, test)
    write_json(paths.prepare_report, {"folds": {"time_ordered": False}})
    return make_plan(load_competition(path), load_stages(path))


def settings_parts(made: JobPlan) -> dict[str, str]:
    return {stage: key.partition("-")[0] for stage, key in made.keys.items()}


def upgrade(monkeypatch: pytest.MonkeyPatch, library: str, version: str) -> None:
    """From now on, a library has this version."""
    installed = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: version if name == library else installed(name))


@pytest.mark.parametrize(
    ("library", "trained_by_it"),
    [
        ("lightgbm", {"lightgbm"}),
        ("catboost", {"catboost"}),
        ("scikit-learn", {"sklearn"}),
        ("torch", {"gnn", "bert", "unimol", "unimol2"}),
        ("chemprop", {"gnn"}),
        ("transformers", {"bert"}),
        ("tokenizers", {"bert"}),
        ("unimol_tools", {"unimol", "unimol2"}),
        ("numpy", {"lightgbm", "catboost", "sklearn"}),
        ("rdkit", {"lightgbm", "catboost", "sklearn", "gnn", "unimol", "unimol2"}),
    ],
)
def test_another_version_of_a_library_changes_the_code_part_of_the_stages_that_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, trained_by_it: set[str]
) -> None:
    before = one_of_each_kind(tmp_path)
    upgrade(monkeypatch, library, f"{metadata.version(library).partition('+')[0]}+cu130")
    assert one_of_each_kind(tmp_path).keys == before.keys  # the same version, built for a GPU
    upgrade(monkeypatch, library, "999.1.0")
    after = one_of_each_kind(tmp_path)
    assert settings_parts(after) == settings_parts(before)
    assert {stage for stage in after.keys if after.keys[stage] != before.keys[stage]} == trained_by_it
