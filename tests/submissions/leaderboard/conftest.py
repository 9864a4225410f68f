"""Every test of this folder that asks for `server` talks to a stand-in of the platform, and no time passes."""

import time

import pytest

from core.paths import Paths
from submissions.leaderboard.ledger import Submission
from tests.kaggle_server import KaggleServer
from tests.submissions.fakes import with_setting


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A running server with the competition `tides`; the client's home is in `tmp_path`."""
    with KaggleServer() as server:
        (tmp_path / "home" / ".kaggle").mkdir(parents=True)
        server.connect(tmp_path / "home", monkeypatch)
        server.competitions["tides"] = {"files": {}, "limit": 5}
        yield server


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """The seconds that were slept, by which alone the clock goes on."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(time, "monotonic", lambda: sum(slept))
    return slept


@pytest.fixture
def paths(done):
    """The products of a finished run of a competition that is on Kaggle."""
    with_setting(done, "competition", kaggle="tides")
    return Paths.for_competition(str(done))


def one(name, day=1, **fields):
    """A row of the ledger."""
    base = {"status": "submitted", "file_digest": f"of {name}", "message": f"try {name}"}
    return Submission.model_validate(
        {"submission": name, "time": f"2026-11-{day:02d}T10:00:00Z", **base, **fields}
    )
