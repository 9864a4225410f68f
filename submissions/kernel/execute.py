"""What runs in the sandbox: `python execute.py NOTEBOOK [INPUTS HIDDEN ...]`.

Mounts INPUTS read-only and nothing over the HIDDEN folders, where it is in namespaces of its own, and runs the notebook
under Jupyter. It imports nothing of ours, since nothing of ours is there, and prints what the cells print.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets.config import Config

FLAGS = {"nosuid": os.ST_NOSUID, "nodev": os.ST_NODEV, "noexec": os.ST_NOEXEC}


def guard(read_only: str, *hidden: str) -> None:
    """Mount a folder read-only, and empty ones over others, for the processes of this namespace alone."""
    kept = [name for name, flag in FLAGS.items() if os.statvfs(read_only).f_flag & flag]  # or the system refuses
    subprocess.run(["mount", "--bind", read_only, read_only], check=True)
    subprocess.run(["mount", "-o", ",".join(["remount", "bind", "ro", *kept]), read_only], check=True)
    for folder in hidden:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)


def execute(notebook: str) -> int:
    """Run all cells of a file, from top to bottom; returns the exit status."""
    document = nbformat.read(notebook, as_version=4)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # the path of a Unix socket has some hundred characters
        config = Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}})
        try:
            NotebookClient(document, timeout=None, config=config, startup_timeout=120).execute()
        except CellExecutionError:
            return 1
        finally:
            for output in [output for cell in document.cells for output in cell.get("outputs", [])]:
                text = output.get("text") or "\n".join(output.get("traceback", []))
                print(re.sub(r"\x1b\[[0-9;]*m", "", text), flush=True)
    return 0


if __name__ == "__main__":
    if sys.argv[2:]:
        guard(*sys.argv[2:])
    sys.exit(execute(sys.argv[1]))
