"""Training in a notebook: code and data are inputs, read-only; a second session goes on from the output of a first."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from competition.paths import PROJECT, Paths
from submissions.kernel.environment import make_environment
from submissions.kernel.limits import Limits
from submissions.kernel.packages import project_ranges
from submissions.kernel.sandbox import Box, open_box, run
from tests.submissions.fakes import fake_competition

CODE = ("run.sh", "setup.sh", "pyproject.toml", "competition", "folds", "models", "submissions")
STAGES = {"trees": {"kind": "lightgbm", "max_trees": 10}, "more": {"kind": "lightgbm", "max_trees": 5}}


@pytest.fixture(scope="module")
def competition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML of a small competition."""
    folder = tmp_path_factory.mktemp("competition")
    return fake_competition(folder, 90, 20, stages=STAGES, submissions={"bootstrap": 100, "default": "mean"})


def session(folder: Path, competition: Path, output: Path | None = None) -> Box:
    """A notebook's machine with code, competition and, where there is one, an earlier output attached."""
    packages = make_environment(folder / "environment", project_ranges(), set())[1]
    box = open_box(folder, folder / "environment", packages)
    inputs = box.folder / "kaggle" / "input"
    for name in CODE:
        source, target = PROJECT / name, inputs / "datasets" / "me" / "code" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        ignored = shutil.ignore_patterns("__pycache__", "data")
        shutil.copytree(source, target, ignore=ignored) if source.is_dir() else shutil.copy(source, target)
    shutil.copytree(competition.parent, inputs / "competitions" / "small", ignore=shutil.ignore_patterns("work"))
    if output is not None:
        shutil.copytree(output, inputs / "notebooks" / "me" / "first")
    return box


def said_by(box: Box, competition: Path, verb: str, *options: str) -> str:
    """What a verb of run.sh prints in the notebook."""
    said: list[str] = []
    inputs, work = box.kaggle / "input", box.kaggle / "working" / "work"
    command = ["env", f"WORK_DIR={work}", "bash", f"{inputs}/datasets/me/code/run.sh"]
    yaml = f"{inputs}/competitions/small/{competition.name}"
    status, _ = run(box, [*command, verb, yaml, "--workers", "1", *options], Limits(300), said.append)
    assert status == 0, "\n".join(said)
    return "\n".join(said)


def test_a_second_session_goes_on_from_the_output_of_the_first_to_the_same_bytes(
    competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = session(tmp_path / "first", competition)
    assert said_by(first, competition, "train", "--stage", "trees", "--fold", "0").count("valid") == 1
    output = first.folder / "kaggle" / "working"
    second = session(tmp_path / "second", competition, output)
    attached = str(second.kaggle / "input" / "notebooks" / "me")
    said = said_by(second, competition, "full", "--from", attached)
    assert f"from {attached}: 1 finished jobs" in said
    assert "stage trees  1 of 3 jobs are finished" in said and said.count("valid") == 5

    whole = session(tmp_path / "whole", competition)
    said_by(whole, competition, "full")
    results = []
    for box in (second, whole):
        monkeypatch.setenv("WORK_DIR", str(box.folder / "kaggle" / "working" / "work"))
        paths = Paths.of(competition.name)
        results.append((paths.run(paths.latest_run.read_text().strip()) / "submission.csv").read_bytes())
    assert results[0] == results[1]
