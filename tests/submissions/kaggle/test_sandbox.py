"""The sandbox: what a notebook can see, reach and use."""

import json
import os
import time
from pathlib import Path

from core.files import write_json
from submissions.kaggle.verify import INPUT, WORKING, make_sandbox, run_notebook

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


def run(sandbox, code):
    """Run a notebook of one cell."""
    notebook = sandbox / "notebook.ipynb"
    write_json(
        notebook, {"cells": [{"cell_type": "markdown", "source": "?"}, {"cell_type": "code", "source": code}]}
    )
    return run_notebook(sandbox, notebook, sandbox / "log")


def test_a_notebook_has_its_inputs_read_only_and_neither_network_nor_project_nor_secrets(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("KAGGLE_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    sandbox = tmp_path / "sandbox"
    make_sandbox(sandbox, ["tqdm", "PyYAML", "scikit-learn"], {"threadpoolctl"})
    (sandbox / INPUT / "data.csv").write_text("id")
    took, memory = run(sandbox, CELL)
    log = json.loads((sandbox / "log").read_text().strip().splitlines()[-1])
    assert 0 < took < 1 and memory > 0.01
    assert (sandbox / WORKING / "submission.csv").read_text() == "id"
    assert "unreachable" in log["connect"] and "unreachable" in log["child"]
    assert log["input"] == "id" and log["mode"] == "0o0"
    assert log["write"] == "Permission denied" or os.getuid() == 0
    assert log["packages"] == ["tqdm", "yaml", "numpy"] and log["variables"] == []
    assert not {".cache", ".kaggle"} & set(log["home"])


def test_nothing_that_a_notebook_started_outlives_it(tmp_path):
    sandbox = tmp_path / "sandbox"
    make_sandbox(sandbox, [], set())
    beat = "import time\nwhile True:\n open('alive', 'a').write('x'); time.sleep(0.02)"
    code = (
        f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {beat!r}]); time.sleep(1.5)"
    )
    run(sandbox, code)
    size = (sandbox / WORKING / "alive").stat().st_size
    time.sleep(0.2)
    assert (sandbox / WORKING / "alive").stat().st_size == size > 0
