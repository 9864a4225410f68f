"""Code and versions of libraries in the keys of jobs."""

import ast
import pickle
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core import modules
from core.errors import ConfigError
from core.files import PROJECT
from models.jobs.plan import key_of_settings, made_by, modules_of, user_files
from models.registry import KINDS, make_stage
from tests.models import made
from tests.models.jobs.common import GNN, TREES, planned, upgrade
from tests.models.jobs.user_stages import Memoriser

REQUIRED: dict[str, dict[str, Any]] = {"file": {"folder": "oof"}, "sklearn": {"estimator": "sklearn.svm.SVR"}}
"""Settings that a kind requires."""
STAGES = {kind: make_stage({"kind": kind, **REQUIRED.get(kind, {})}) for kind in KINDS}
CONTEXT = made.context(Path("unused"), smiles=["SMILES"], text=["note"], numeric=["pH"], categorical=["site"])
FEATURES = {"baseline", "lightgbm", "sklearn", "gp"}
UNIMOL = {"unimol", "unimol2"}
KNOWN = {"gnn", "bert", "file"} | FEATURES | UNIMOL
"""Kinds whose libraries are listed below; that of a new kind may be any."""


@pytest.mark.parametrize(
    ("library", "trained_by_it"),
    [
        ("lightgbm", {"lightgbm"}),
        ("scikit-learn", {"baseline", "sklearn", "gp"}),
        ("scipy", {"baseline", "sklearn", "gp"}),
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
        return {kind: made_by(stage, CONTEXT) for kind, stage in STAGES.items()}

    before = made()
    upgrade(monkeypatch, library, f"{metadata.version(library).partition('+')[0]}+cu130")
    assert made() == before
    upgrade(monkeypatch, library, "999.1.0")
    after = made()
    assert {kind for kind in KNOWN if after[kind] != before[kind]} == trained_by_it


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
    for package in modules.PACKAGES:
        shutil.copytree(
            PROJECT / package,
            tmp_path / package,
            ignore=lambda _, names: [name for name in names if "." in name and not name.endswith(".py")],
        )
    roots = [tmp_path / module.relative_to(PROJECT) for module in modules_of(STAGES[kind], CONTEXT)]
    monkeypatch.setattr(modules, "PROJECT", tmp_path)
    before = modules.closure(*roots)
    names = {file.relative_to(tmp_path).as_posix() for file in before}
    assert names >= REACHED
    assert names.isdisjoint(OUTSIDE)
    assert ("core/user_tables.py" in names) == (kind == "file")
    for file in before:
        text = file.read_text()
        file.write_text(edited(text))
        assert modules.closure(*roots) != before, file
        file.write_text(text)


MINILM, MINIMOL, CHEMELEON = {"encoder": "minilm"}, {"encoder": "minimol"}, {"encoder": "chemeleon"}
READERS = {
    "gnn": {"kind": "gnn"},
    "gnn with features": {"kind": "gnn", "molecule_features": ["maccs"]},
    "bert": {"kind": "bert"},
    "trees": {"kind": "lightgbm"},
    "texts": {"kind": "sklearn", "features": [MINILM]},
    "molecules": {"kind": "sklearn", "features": [MINIMOL], "tfidf_features": 0},
    "messages": {"kind": "gp", "kernels": [CHEMELEON]},
    "kernels": {"kind": "gp"},
}
"""Stages that read different features."""


@pytest.mark.parametrize(
    ("file", "readers"),
    [
        ("inputs/fingerprints", {"gnn with features", "trees", "kernels"}),
        ("inputs/ngrams", {"trees", "texts"}),
        ("inputs/minimol", {"molecules"}),
        ("inputs/texts", {"bert", "texts"}),
        ("inputs/tokenization", {"bert", "texts"}),
        ("networks/frozen_texts", {"texts"}),
        ("networks/frozen_molecules", {"messages"}),
        ("networks/message_passing", {"gnn", "gnn with features", "messages"}),
        ("features", READERS.keys() - {"gnn", "bert"}),
        ("training/trainer", {"gnn", "gnn with features", "bert"}),
    ],
)
def test_an_edit_of_some_features_trains_those_stages_again_that_read_them(file, readers):
    path = PROJECT / "models" / f"{file}.py"
    reached = {
        name: modules.closure(*modules_of(make_stage(block), CONTEXT)) for name, block in READERS.items()
    }
    assert {name for name, files in reached.items() if path in files} == readers


def test_a_setting_of_a_stage_of_the_user_is_in_its_key_whatever_its_name():
    class Mine(Memoriser):
        folder: str

    first, second = (
        key_of_settings(Mine(kind="mine", folder=name), CONTEXT.task) for name in ("data_1", "data_2")
    )
    assert first != second


def test_texts_and_columns_that_a_competition_does_not_have_are_in_no_key():
    without = made.context(Path("unused"), smiles=["SMILES"])
    files = modules.closure(*modules_of(make_stage(READERS["trees"]), without))
    assert PROJECT / "models/inputs/ngrams.py" not in files
    assert PROJECT / "models/inputs/fingerprints.py" in files


@pytest.mark.parametrize(
    "block",
    [
        {**GNN, "epochs": 1, "molecule_features": ["maccs"]},
        {"kind": "bert", "layers": 1, "width": 8, "heads": 1, "epochs": 1, "columns": ["note"]},
        {**TREES, "features": ["descriptors"], "target_transform": "quantile"},
        {"kind": "sklearn", "features": ["maccs", MINIMOL], "tfidf_features": 9},
        {"kind": "gp", "kernels": ["ecfp4"]},
    ],
    ids=lambda block: block["kind"],
)
def test_every_file_that_a_job_executes_is_in_its_key(block, tmp_path):
    """The rows of a job, its fit, and its predictions are traced in a process that has computed nothing before."""
    plan = planned(tmp_path, stages={"one": block})
    code = f"""
import pickle, sys
from pathlib import Path

entered = set()

def record(frame, event, _):
    is_body = frame.f_code.co_name[0] == "<" or frame.f_code.co_name[0].isupper()
    if event == "call" and not is_body:
        entered.add(frame.f_code.co_filename)

plan = pickle.loads(Path({str(tmp_path / "plan.pickle")!r}).read_bytes())
from models import targets
from models.jobs import compute
job, stage = plan.jobs[0], plan.stages["one"]
folder = Path({str(tmp_path / "job")!r})
tables = plan.tables
sys.setprofile(record)
rows = compute.rows_of_job(job, stage, tables)
targets.fit(stage, rows.train, folder, rows.context)
compute.predict(stage, rows.held_out.without_labels(), folder, rows.context)
sys.setprofile(None)
print(*sorted(entered), sep="\\n")
"""
    (tmp_path / "plan.pickle").write_bytes(pickle.dumps(plan))
    (tmp_path / "job").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, check=True, capture_output=True, text=True
    )
    executed = {Path(file) for file in done.stdout.split() if file.startswith(f"{PROJECT}/")}
    executed = {file for file in executed if ".venv" not in file.parts}
    in_key = {PROJECT / name for name in plan.made_by["one"]}
    assert len(executed) > 8
    assert executed - in_key == set()


def test_code_that_is_no_python_and_two_files_of_one_name_are_refused(tmp_path):
    (tmp_path / "mine.py").write_text("def f(:\n")
    with pytest.raises(ConfigError, match=r"mine\.py cannot be read as Python"):
        made_by(make_stage({"kind": "gnn", "loss": f"{tmp_path}/mine.py:f"}), CONTEXT)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text("f = None\n")
    settings = {"kind": f"{tmp_path}/a/mine.py:f", "loss": f"{tmp_path}/b/mine.py:f"}
    with pytest.raises(ConfigError, match=r"two files that are called 'mine\.py'"):
        user_files(SimpleNamespace(model_dump=lambda: settings))
