"""Code and versions of libraries in the keys of jobs."""

import ast
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from competition.config import load_competition
from competition.dataset import FOLD, GROUP
from core import code_digest
from core.files import PROJECT, write_json, write_table
from core.paths import Paths
from models.jobs.plan import JobPlan, make_plan, modules_of
from models.registry import KINDS, make_stage
from submissions.config import load_config
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
    return make_plan(load_competition(path), load_config(path).stages)


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


SETTINGS: dict[str, dict[str, Any]] = {"file": {"folder": "oof"}, "sklearn": {"estimator": "sklearn.svm.SVR"}}
"""Settings that a kind requires."""
OUTSIDE = [
    "core/cli.py", "core/paths.py", "core/plots.py", "core/text.py", "competition/config.py", "competition/prepare.py",
    "models/jobs/budget.py", "models/jobs/plan.py", "models/jobs/scheduler.py", "models/jobs/train.py",
]  # fmt: skip
"""Files that change no prediction, however they are edited."""


def edited(text: str) -> str:
    """Return code with another operator in its first comparison or calculation; else another first constant."""
    tree = ast.parse(text)
    nodes = list(ast.walk(tree))
    calculations = [node for node in nodes if isinstance(node, ast.Compare | ast.BinOp)]
    if calculations:
        first = calculations[0]
        if isinstance(first, ast.Compare):
            first.ops[0] = ast.NotIn() if isinstance(first.ops[0], ast.In) else ast.In()
        else:
            first.op = ast.Sub() if isinstance(first.op, ast.Add) else ast.Add()
    else:
        docstrings = {ast.get_docstring(node, clean=False) for node in nodes if isinstance(node, DOCUMENTED)}
        constants = [
            node for node in nodes if isinstance(node, ast.Constant) and node.value not in docstrings
        ]
        constants[0].value = "edited"
    return ast.unparse(tree)


DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_of_any_file_that_a_kind_reaches_changes_its_key(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no file is reached that changes no prediction."""
    for package in code_digest.PACKAGES:
        shutil.copytree(
            PROJECT / package,
            tmp_path / package,
            ignore=lambda _, names: [name for name in names if "." in name and not name.endswith(".py")],
        )
    modules = modules_of(make_stage({"kind": kind, **SETTINGS.get(kind, {})}))
    roots = [tmp_path / module.relative_to(PROJECT) for module in modules]
    monkeypatch.setattr(code_digest, "PROJECT", tmp_path)
    before = code_digest.closure(*roots)
    names = {file.relative_to(tmp_path).as_posix() for file in before}
    assert {
        "competition/dataset.py",
        "models/jobs/compute.py",
        "models/targets.py",
        "models/stage.py",
    } <= names
    assert names.isdisjoint(OUTSIDE)
    for file in before:
        text = file.read_text()
        file.write_text(edited(text))
        assert code_digest.closure(*roots) != before, file
        file.write_text(text)
