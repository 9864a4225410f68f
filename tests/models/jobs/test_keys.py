"""Code and versions of libraries in the keys of jobs."""

import ast
import shutil
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest

from core import code_digest
from core.errors import ConfigError
from core.files import PROJECT
from models.jobs.plan import made_by, modules_of, user_files
from models.registry import KINDS, make_stage
from tests.models.jobs.common import upgrade

REQUIRED: dict[str, dict[str, Any]] = {"file": {"folder": "oof"}, "sklearn": {"estimator": "sklearn.svm.SVR"}}
"""Settings that a kind requires."""
STAGES = {kind: make_stage({"kind": kind, **REQUIRED.get(kind, {})}) for kind in KINDS}
FEATURES = {"lightgbm", "catboost", "sklearn", "gp"}
UNIMOL = {"unimol", "unimol2"}


@pytest.mark.parametrize(
    ("library", "trained_by_it"),
    [
        ("lightgbm", {"lightgbm"}),
        ("catboost", {"catboost"}),
        ("scikit-learn", {"sklearn", "gp"}),
        ("torch", {"gnn", "bert"} | UNIMOL),
        ("chemprop", {"gnn"}),
        ("transformers", {"bert"}),
        ("tokenizers", {"bert"}),
        ("unimol_tools", UNIMOL),
        ("numpy", FEATURES),
        ("rdkit", {"gnn"} | UNIMOL | FEATURES),
    ],
)
def test_another_version_of_a_library_but_no_other_build_of_it_is_in_the_keys_of_what_it_trains(
    monkeypatch, library, trained_by_it
):
    def made():
        return {kind: made_by(stage) for kind, stage in STAGES.items()}

    before = made()
    upgrade(monkeypatch, library, f"{metadata.version(library).partition('+')[0]}+cu130")
    assert made() == before
    upgrade(monkeypatch, library, "999.1.0")
    assert {kind for kind, after in made().items() if after != before[kind]} == trained_by_it


REACHED = {"competition/dataset.py", "models/jobs/compute.py", "models/targets.py", "models/stage.py"}
OUTSIDE = [
    "core/cli.py", "core/paths.py", "core/plots.py", "core/text.py", "competition/config.py", "competition/prepare.py",
    "models/jobs/budget.py", "models/jobs/plan.py", "models/jobs/scheduler.py", "models/jobs/train.py",
]  # fmt: skip
"""Files that change no prediction, however they are edited."""
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


def edited(text):
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
        constants = [node for node in nodes if isinstance(node, ast.Constant)]
        next(node for node in constants if node.value not in docstrings).value = "edited"
    return ast.unparse(tree)


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_of_any_file_that_a_kind_reaches_changes_its_key(kind, tmp_path, monkeypatch):
    """And no file is reached that changes no prediction."""
    for package in code_digest.PACKAGES:
        shutil.copytree(
            PROJECT / package,
            tmp_path / package,
            ignore=lambda _, names: [name for name in names if "." in name and not name.endswith(".py")],
        )
    roots = [tmp_path / module.relative_to(PROJECT) for module in modules_of(STAGES[kind])]
    monkeypatch.setattr(code_digest, "PROJECT", tmp_path)
    before = code_digest.closure(*roots)
    names = {file.relative_to(tmp_path).as_posix() for file in before}
    assert names >= REACHED
    assert names.isdisjoint(OUTSIDE)
    for file in before:
        text = file.read_text()
        file.write_text(edited(text))
        assert code_digest.closure(*roots) != before, file
        file.write_text(text)


def test_code_that_is_no_python_and_two_files_of_one_name_are_refused(tmp_path):
    (tmp_path / "mine.py").write_text("def f(:\n")
    with pytest.raises(ConfigError, match=r"mine\.py cannot be read as Python"):
        made_by(make_stage({"kind": "gnn", "loss": f"{tmp_path}/mine.py:f"}))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text("f = None\n")
    settings = {"kind": f"{tmp_path}/a/mine.py:f", "loss": f"{tmp_path}/b/mine.py:f"}
    with pytest.raises(ConfigError, match=r"two files that are called 'mine\.py'"):
        user_files(SimpleNamespace(model_dump=lambda: settings))
