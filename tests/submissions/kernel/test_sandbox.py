"""The sandbox: what a notebook can see, reach and use. With namespaces where the system gives them, and without."""

import json
import os
import time
from pathlib import Path

import nbformat
import pytest

from competition.errors import SubmissionError
from submissions.kernel import sandbox as module
from submissions.kernel.sandbox import LIMITS, Sandbox, make_sandbox, run_notebook

CELL = """
import json, os, socket, subprocess, sys
from importlib.util import find_spec

def tried(act):
    try:
        return str(act())
    except OSError as error:
        return error.strerror

child = "import socket; socket.socket().connect(('127.0.0.1', 9))"
print(json.dumps({
    "connect": tried(lambda: socket.create_connection(("localhost", 9), 1)),
    "child": subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stderr,
    "input": tried(lambda: open(os.environ["KAGGLE_INPUT"] + "/data.csv").read()),
    "mode": oct(os.stat(os.environ["KAGGLE_INPUT"] + "/data.csv").st_mode & 0o222),
    "write": tried(lambda: open(os.environ["KAGGLE_INPUT"] + "/data.csv", "a").write("x")),
    "packages": [name for name in ("tqdm", "yaml", "numpy", "pandas", "threadpoolctl") if find_spec(name)],
    "variables": [name for name in ("KAGGLE_KEY", "PYTHONPATH", "WORK_DIR") if name in os.environ],
    "home": os.listdir(os.path.expanduser("~")),
}))
open("submission.csv", "w").write("id")
"""


@pytest.mark.parametrize("namespaces", [True, False])
def test_a_notebook_has_its_inputs_read_only_and_neither_network_nor_project_nor_secrets(
    namespaces: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not namespaces:
        monkeypatch.setattr(module, "UNSHARE", ["no-such-tool"])
    monkeypatch.setenv("KAGGLE_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    sandbox = make_sandbox(tmp_path / "sandbox", ["tqdm", "PyYAML", "scikit-learn"], {"threadpoolctl"})
    if sandbox.namespaces is not namespaces:
        pytest.skip("this system gives no namespaces")
    (sandbox.input / "data.csv").write_text("id")
    cells = [nbformat.v4.new_code_cell(CELL)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "notebook.ipynb")

    used = run_notebook(sandbox, tmp_path / "notebook.ipynb", LIMITS, tmp_path / "log")
    said = json.loads((tmp_path / "log").read_text().strip().splitlines()[-1])
    assert 0.01 < used["memory"] < 2
    assert (sandbox.working / "submission.csv").read_text() == "id"
    assert "unreachable" in said["connect"] and "unreachable" in said["child"]
    assert said["input"] == "id"
    assert said["write"] == "Permission denied" if namespaces or os.getuid() else said["mode"] == "0o0"
    assert said["packages"] == ["tqdm", "yaml", "numpy"] and said["variables"] == []
    assert not {".cache", ".kaggle"} & set(said["home"])


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A sandbox without namespaces, whose notebook is a script of Python."""
    monkeypatch.setattr(module, "UNSHARE", ["no-such-tool"])
    (tmp_path / "execute.py").write_text("import runpy, sys\nrunpy.run_path(sys.argv[1])\n")
    monkeypatch.setattr(module, "EXECUTE", tmp_path / "execute.py")
    return make_sandbox(tmp_path / "sandbox", [], set())


def run(sandbox: Sandbox, code: str, **limits: float) -> dict[str, float]:
    (sandbox.root / "script.py").write_text(f"import subprocess, sys, time\n{code}\n")
    return run_notebook(sandbox, sandbox.root / "script.py", LIMITS | limits, sandbox.root / "log")


CHILD = "subprocess.Popen([sys.executable, '-c', {!r}], start_new_session=True)"
BEAT = "import time\nwhile True:\n open('alive', 'a').write('x'); time.sleep(0.02)"
HOLD = "import time; x = bytearray(b'1') * 120_000_000; time.sleep({})"


def test_nothing_that_a_notebook_started_outlives_it(bare: Sandbox) -> None:
    run(bare, f"{CHILD.format(BEAT)}; time.sleep(1.5)")
    size = (bare.working / "alive").stat().st_size
    time.sleep(0.2)
    assert (bare.working / "alive").stat().st_size == size > 0


def test_memory_of_all_processes_together_the_working_folder_and_the_time_have_limits(bare: Sandbox) -> None:
    both = f"[child.wait() for child in [{CHILD.format(HOLD.format(1))} for _ in range(2)]]"
    assert 0.24 < run(bare, both)["memory"] < 0.4
    with pytest.raises(SubmissionError, match=r"more than --memory 0\.2 allows"):
        run(bare, both.replace("sleep(1)", "sleep(60)"), memory=0.2)
    with pytest.raises(SubmissionError, match=r"more than --disk 0\.001 allows"):
        run(bare, "open('large', 'wb').write(bytes(5_000_000)); time.sleep(60)", disk=1e-3)
    with pytest.raises(SubmissionError, match=r"more than --minutes 0\.01 allows"):
        run(bare, "time.sleep(60)", minutes=0.01)
