"""Every test of this folder that asks for `server` talks to a stand-in of the platform, and no time passes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from competition.paths import Paths
from submissions.leaderboard.ledger import Submission
from tests.kaggle_server import KaggleServer
from tests.submissions.fakes import fake_competition, prepare_and_fake_jobs, run_steps


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KaggleServer]:
    """A running server with the competition `tides`; the client's home is in `tmp_path`."""
    with KaggleServer() as server:
        (tmp_path / "home" / ".kaggle").mkdir(parents=True)
        for name, value in server.environment(tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        server.competitions["tides"] = {"files": {}, "limit": 5}
        yield server


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were slept, by which alone the clock goes on."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(time, "monotonic", lambda: sum(slept))
    return slept


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a competition that is on Kaggle."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORK_DIR", str(folder / "work"))
        path = fake_competition(folder, competition={"kaggle": "tides"})
        prepare_and_fake_jobs(path)
        run_steps(path)
    return folder


@pytest.fixture
def paths(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A copy of it; its YAML is `own/mixed.yaml`."""
    shutil.copytree(made, tmp_path / "own")
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "own" / "work"))
    return Paths.of("mixed")


def one(name: str, day: int = 1, **fields: object) -> Submission:
    """A row of the ledger."""
    base = {"status": "submitted", "file_digest": f"of {name}", "message": f"try {name}"}
    return Submission.model_validate({"submission": name, "time": f"2026-11-{day:02d}T10:00:00Z", **base, **fields})
