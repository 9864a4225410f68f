"""Imports go left to right only: competition, folds, models, submissions; stages never import each other."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from competition.paths import PROJECT

ROOMS = ["competition", "folds", "models", "submissions", "studies"]
STAGES = {"unimol", "unimol2", "gnn", "bert", "embedding", "lightgbm", "catboost", "sklearn"}


def imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_to_its_left(room: str) -> None:
    forbidden = set(ROOMS[ROOMS.index(room) + 1 :]) | {"tests"}
    for file in (PROJECT / room).rglob("*.py"):
        assert not {name.split(".")[0] for name in imported(file)} & forbidden, file


def test_stages_do_not_import_each_other() -> None:
    for stage in STAGES:
        others = {f"models.stages.{other}" for other in STAGES - {stage}}
        assert not imported(PROJECT / "models" / "stages" / f"{stage}.py") & others, stage


@pytest.mark.parametrize(
    "command",
    ["submissions.check", "competition.prepare", "folds.make", "folds.show", "models.jobs.train", "submissions.new"],
)
def test_commands_that_answer_in_seconds_do_not_import_torch(command: str) -> None:
    code = f"import sys, {command}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False).returncode == 0
