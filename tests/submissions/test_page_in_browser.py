"""The page in a real browser: its plots are drawn, and it says no error and asks for nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.submissions.pages import made

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND",
]

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")


def test_the_page_draws_its_plots_without_an_error_or_a_request(tmp_path: Path) -> None:
    file = tmp_path / "index.html"
    file.write_text(made(tmp_path).html, encoding="utf-8")
    for size in ("1280,900", "390,844"):
        done = subprocess.run(
            [
                str(BROWSER),
                *QUIET,
                "--enable-logging=stderr",
                f"--log-net-log={tmp_path / 'net.json'}",
                f"--user-data-dir={tmp_path / 'profile'}",
                f"--window-size={size}",
                "--virtual-time-budget=3000",
                "--dump-dom",
                file.as_uri(),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert "CONSOLE" not in done.stderr, done.stderr
        drawn = re.findall(r"<canvas[^>]* data-points=\"(\d+)\"", done.stdout)
        assert len(drawn) == 4  # two targets, truth and residual of each
        assert all(int(n) > 50 for n in drawn)
        events = [event.get("params", {}) for event in json.loads((tmp_path / "net.json").read_text())["events"]]
        # What the browser asks on its own account, and does not get, has no origin.
        assert [part["url"] for part in events if part.get("initiator", "not an origin") != "not an origin"] == []
