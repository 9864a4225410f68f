"""The sandbox: what a notebook can see, reach and use. With namespaces where the system gives them, and without."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from competition.errors import SubmissionError
from submissions.kernel import execute
from submissions.kernel.limits import Limits
from submissions.kernel.sandbox import Box, open_box, run

SECRET = "secret"


@pytest.fixture(params=["as the system allows", "without namespaces"])
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Box:
    """A box with an input file; the second one without namespaces wherever the tests run."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "environment")], check=True)
    opened = open_box(tmp_path / "box", tmp_path / "environment", {})
    (tmp_path / "box" / "kaggle" / "input" / "data.csv").write_text("id\n")
    (tmp_path / "outside.txt").write_text(SECRET)
    return opened if request.param == "as the system allows" else Box(opened.folder, opened.environment, {}, False)


def inside(box: Box, code: str, limits: Limits | None = None) -> list[str]:
    """What Python code prints in the box; it must end well."""
    lines: list[str] = []
    status, _ = run(box, [str(box.environment / "bin" / "python"), "-c", code], limits or Limits(), lines.append)
    assert status == 0, lines
    return lines


def test_a_notebook_works_where_the_platform_has_its_files(box: Box) -> None:
    code = "import os; print(os.getcwd()); open('submission.csv', 'w').write('id'); print(os.environ['HOME'])"
    where, home = inside(box, code)
    assert where == f"{box.kaggle}/working"
    assert where == "/kaggle/working" or not box.namespaces
    assert (box.folder / "kaggle" / "working" / "submission.csv").read_text() == "id"
    assert inside(box, f"import os; print(os.listdir({home!r}), os.path.exists('{box.kaggle}/input/data.csv'))") == [
        "[] True"
    ]


def test_no_address_is_reached(box: Box) -> None:
    code = Path(execute.__file__).read_text().partition("\nif __name__")[0] + "\nprint(reached())"
    assert inside(box, code) == ["[]"]
    code = "import socket\ntry: socket.create_connection(('localhost', 9), 1)\nexcept OSError as error: print(error)"
    assert "unreachable" in inside(box, code)[0]


def test_a_child_process_reaches_no_address_either(box: Box) -> None:
    child = "import socket; socket.socket().connect(('127.0.0.1', 9))"
    code = f"import subprocess, sys; print(subprocess.run([sys.executable, '-c', {child!r}], stderr=-1).stderr)"
    assert "unreachable" in inside(box, code)[-1]


def test_inputs_are_read_only_and_writable_again_where_they_lie(box: Box) -> None:
    code = f"import os; print(oct(os.stat('{box.kaggle}/input/data.csv').st_mode & 0o222))"
    if box.namespaces:
        code = f"try: open('{box.kaggle}/input/data.csv', 'w')\nexcept OSError as error: print(error.strerror)"
    assert inside(box, code)[0] in ("Read-only file system", "0o0")
    (box.folder / "kaggle" / "input" / "data.csv").write_text("changed\n")
    assert (box.folder / "kaggle" / "input" / "data.csv").stat().st_mode & 0o200


def test_neither_home_nor_checkout_nor_products_are_seen(tmp_path: Path, box: Box) -> None:
    paths = [str(tmp_path / "outside.txt"), str(Path(__file__))]
    seen = json.loads(inside(box, f"import json, os; print(json.dumps([os.path.exists(p) for p in {paths}]))")[0])
    assert seen == [not box.namespaces] * 2  # without namespaces there is nothing to hide them with
    code = "import os, sys; print(os.path.expanduser('~') == os.environ['HOME'], 'WORK_DIR' in os.environ, sys.path)"
    line = inside(box, code)[0]
    assert line.startswith("True False") and str(Path(sys.prefix) / "lib") not in line


def test_only_the_interpreter_s_own_folder_is_seen_of_a_home_that_holds_it(box: Box) -> None:
    if box.namespaces and Path(sys.base_prefix).is_relative_to(Path.home()):
        names = inside(box, f"import os; print(os.listdir({str(Path.home())!r}))")
        assert names == [str([Path(sys.base_prefix).relative_to(Path.home()).parts[0]])]


def test_a_notebook_that_runs_too_long_is_ended_with_all_it_started(box: Box) -> None:
    child = "import time\nwhile True:\n open('alive', 'a').write('x'); time.sleep(0.02)"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)"
    with pytest.raises(SubmissionError, match=r"must end within 1\.5 s and was stopped"):
        inside(box, code + "; time.sleep(60)", Limits(seconds=1.5))
    alive = box.folder / "kaggle" / "working" / "alive"
    size = alive.stat().st_size
    assert size > 0
    time.sleep(0.2)
    assert alive.stat().st_size == size


def test_what_a_finished_notebook_left_running_is_ended_too(box: Box) -> None:
    child = "import time\nwhile True:\n open('alive', 'a').write('x'); time.sleep(0.02)"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(0.5)"
    inside(box, code)
    alive = box.folder / "kaggle" / "working" / "alive"
    size = alive.stat().st_size
    time.sleep(0.2)
    assert alive.stat().st_size == size > 0


def test_memory_of_all_processes_together_has_a_limit(box: Box) -> None:
    def children(n: int, seconds: float) -> str:
        child = f"import time; x = bytearray(b'1') * 120_000_000; time.sleep({seconds})"
        started = f"subprocess.Popen([sys.executable, '-c', {child!r}])"
        return f"import subprocess, sys; [c.wait() for c in [{started} for _ in range({n})]]"

    _, peak = run(box, [str(box.environment / "bin" / "python"), "-c", children(1, 0.5)], Limits(), print)
    assert 120e6 < peak < 200e6
    with pytest.raises(SubmissionError, match=r"must work with 0\.2 GB of memory and was stopped, since it used 0\.2"):
        inside(box, children(2, 60), Limits(memory=200e6))


def test_the_working_folder_has_a_limit(box: Box) -> None:
    code = "import time; open('large', 'wb').write(bytes(5_000_000)); time.sleep(60)"
    with pytest.raises(SubmissionError, match=r"at most 0\.001 GB into its working folder .* held 0\.005 GB"):
        inside(box, code, Limits(disk=1e6))


def test_without_the_tool_for_namespaces_the_box_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("submissions.kernel.sandbox.NAMESPACES", ["no-such-tool"])
    assert not open_box(tmp_path, Path(sys.prefix), {}).namespaces
    monkeypatch.setattr("submissions.kernel.sandbox.NAMESPACES", ["false"])
    assert not open_box(tmp_path, Path(sys.prefix), {}).namespaces


def test_variables_of_this_machine_do_not_reach_the_notebook(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_KEY", SECRET)
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    line = inside(box, "import os; print(dict(os.environ))")[0]
    assert SECRET not in line and "PYTHONPATH" not in line
    assert "KAGGLE_IS_COMPETITION_RERUN" in line
