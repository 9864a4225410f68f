"""`setup.sh` on a machine without an environment of its own: requirements are installed once, and when they
change, by uv or by pip.
"""

import os
import shutil
import signal
import subprocess
import sys
import time

from core.files import PROJECT

PYTHON = f"""#!/usr/bin/env bash
[ "$1" = -c ] && exec {sys.executable} "$@"
venv="$(dirname "$0")/.."
echo "$@" >>"$venv/log"
sleep "$(cat "$venv/pause" 2>/dev/null || echo 0)"
[ ! -e "$venv/broken" ]
"""
"""Notes what it is called with."""
UV = """#!/usr/bin/env bash
echo uv "$@" >>"$(dirname "$0")/../.venv/log"
"""


def fake_project(folder):
    """Return the `.venv` of a folder with `setup.sh`, requirements and a fake Python."""
    shutil.copy(PROJECT / "setup.sh", folder)
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)
    for name in ("constraints", "requirements", "requirements-weights", "requirements-test"):
        (folder / f"{name}.txt").write_text("a==1\n")
    return folder / ".venv"


def start_setup(folder, *more):
    environment = {
        key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "CONDA_PREFIX")
    }
    environment["PATH"] = f"{folder}/bin:/usr/bin:/bin"
    line = f'set -euo pipefail; here={folder}; . "$here/setup.sh"; setup {" ".join(more)}'
    return subprocess.Popen(
        ["bash", "-c", line], env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    )


def test_requirements_are_installed_once_and_again_when_they_change(tmp_path):
    venv = fake_project(tmp_path)

    def installed(base, *more):
        """How often pip was called, once with requirements.txt and once with the weights where all is
        installed.
        """
        (tmp_path / "requirements.txt").write_text(base)
        log = venv / "log"
        log.unlink(missing_ok=True)
        start_setup(tmp_path, *more).wait()
        return len(log.read_text().splitlines()) if log.exists() else 0

    assert installed("a==1\n") == 2
    assert installed("a==1\n") == 0
    assert installed("a==1\n", "requirements-test.txt") == 2
    assert installed("a==1\n", "requirements-test.txt") == installed("a==1\n") == 0
    assert installed("a==2\n") == 2
    assert installed("a==1\n") == 2  # the environment has the other version now
    assert installed("a==1\n", "requirements-test.txt") == 0
    (venv / "broken").touch()  # pip is interrupted
    assert installed("a==3\n") == 1
    (venv / "broken").unlink()
    assert installed("a==1\n") == 2
    (tmp_path / "constraints.txt").write_text("b==2\n")
    assert installed("a==1\n") == 2


def test_uv_installs_where_it_is_installed(tmp_path):
    venv = fake_project(tmp_path)
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(UV)
    uv.chmod(0o755)
    start_setup(tmp_path).wait()
    calls = (venv / "log").read_text().splitlines()
    assert [call.split()[:3] for call in calls] == [["uv", "pip", "install"]] * 2
    assert calls[0].endswith("-r " + str(tmp_path / "requirements.txt"))


def test_an_environment_whose_python_is_gone_is_made_again(tmp_path):
    venv = fake_project(tmp_path)
    start_setup(tmp_path).wait()
    python = venv / "bin" / "python"
    python.rename(tmp_path / "kept")
    python.symlink_to(tmp_path / "removed version")
    system = tmp_path / "bin" / "python3.13"
    system.parent.mkdir()
    system.write_text(
        f'#!/usr/bin/env bash\n[ "$1" = -c ] && exec {sys.executable} "$@"\ncp {tmp_path}/kept "$3/bin/python"\n'
    )
    system.chmod(0o755)
    (venv / "log").unlink()
    assert start_setup(tmp_path).wait() == 0
    assert python.exists() and not python.is_symlink()
    assert len((venv / "log").read_text().splitlines()) == 2  # both files of requirements are installed


def test_of_two_installations_at_once_one_waits_and_none_waits_for_one_that_was_killed(
    tmp_path,
):
    venv = fake_project(tmp_path)
    (venv / "pause").write_text("0.5")
    both = [start_setup(tmp_path), start_setup(tmp_path)]
    assert [process.wait() for process in both] == [0, 0]
    assert len((venv / "log").read_text().splitlines()) == 2  # of one installation
    (venv / "pause").write_text("60")
    killed = start_setup(tmp_path, "requirements-test.txt")
    while len((venv / "log").read_text().splitlines()) < 3:
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    (venv / "pause").write_text("0")
    assert start_setup(tmp_path).wait(timeout=20) == 0
    assert len((venv / "log").read_text().splitlines()) == 5
