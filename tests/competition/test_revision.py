"""A revision tells two states of the code apart, with git and without."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from competition import revision as module
from competition.revision import revision


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def small_project(folder: Path) -> Path:
    for name in ("competition/a.py", "competition/configs/mine.yaml", "run.sh"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"# {name}\n")
    return folder


def test_the_revision_is_gits_and_says_when_code_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = small_project(tmp_path / "project")
    monkeypatch.setattr(module, "PROJECT", project)
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-qm", "all")
    clean = revision()
    assert git(project, "rev-parse", "HEAD").startswith(clean)
    (project / "competition/configs/mine.yaml").write_text("other: settings")  # the run's digest has the settings
    (project / "notes.txt").write_text("not code")
    assert revision() == clean
    (project / "competition/new.py").write_text("")
    assert revision() == f"{clean}-dirty"


def test_without_git_the_revision_is_a_digest_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init", "-q")  # of somebody else, around a copy of the project that it does not track
    project = small_project(tmp_path / "copy")
    monkeypatch.setattr(module, "PROJECT", project)
    before = revision()
    assert re.fullmatch("code-[0-9a-f]{10}", before)
    monkeypatch.setenv("PATH", str(tmp_path))  # no git at all
    assert revision() == before
    (project / "competition/a.py").write_text("changed")
    assert revision() != before
