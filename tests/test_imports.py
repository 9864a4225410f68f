"""The shape of the code: imports go one way, and files are short."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from core.code_digest import executed
from core.files import PROJECT
from models.registry import KINDS

ROOMS = ["core", "competition", "folds", "models", "submissions", "pipeline", "studies"]
MODELS = ["models.inputs", "models.training", "models.stages", "models.jobs"]
NETWORKS = ["models.networks", *MODELS[1:]]
LATE = {"models.training.settings": {"models.training.neural", "models.training.network"}}
"""Imports inside of methods of the base class of neural stages: they call the training loop, which reads its fields."""
FILES = sorted(
    file for room in ROOMS for file in (PROJECT / room).rglob("*.py") if file.parent.name != "configs"
)


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")


def imported(file: Path) -> set[str]:
    """Modules of ours that a file imports, inside functions too, but not those for type annotations alone."""
    names: set[str] = set()
    for node in executed(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


IMPORTS = {module_of(file): imported(file) for file in FILES}


def below(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")


@pytest.mark.parametrize(
    "rooms",
    [[*ROOMS, "tests", "benchmarks"], MODELS, NETWORKS],
    ids=["rooms", "folders of models", "networks"],
)
def test_a_room_imports_only_rooms_to_its_left(rooms: list[str]) -> None:
    for module, names in IMPORTS.items():
        for i, room in enumerate(rooms):
            later = [name for name in names if any(below(name, other) for other in rooms[i + 1 :])]
            assert not (below(module, room) and later), f"{module} imports {later}"


def test_stages_do_not_import_each_other() -> None:
    modules = {f"models.stages.{kind}" for kind in KINDS}
    for module in modules:
        assert not IMPORTS[module] & (modules - {module}), module


def test_no_imports_go_in_a_circle() -> None:
    try:
        TopologicalSorter(
            {name: names & IMPORTS.keys() - {name} - LATE.get(name, set()) for name, names in IMPORTS.items()}
        ).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_file_is_longer_than_450_lines() -> None:
    lengths = {module_of(file): file.read_text(encoding="utf-8").count("\n") for file in FILES}
    assert {module: length for module, length in lengths.items() if length > 450} == {}


def test_commands_that_answer_in_seconds_do_not_import_slow_libraries() -> None:
    quick = "pipeline.commands, folds.diagnose, models.jobs.train, pipeline.check, pipeline.full, pipeline.new.new"
    slow = {"torch", "transformers", "sklearn", "scipy.stats", "matplotlib", "lightgbm"}
    code = f"import sys, {quick}; print(*{slow} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == []
