"""Every test of this folder that asks for `server` talks to a stand-in of the platform."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kaggle_server import KaggleServer


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KaggleServer]:
    """A running server with the competition `tides`; the client's home and temporary folder are in `tmp_path`."""
    with KaggleServer() as server:
        (tmp_path / "home" / ".kaggle").mkdir(parents=True)
        (tmp_path / "temporary").mkdir()
        for name, value in server.environment(tmp_path / "home").items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
        server.competitions["tides"] = {"files": {}, "limit": 5}
        yield server
