"""What runs in the sandbox: `python execute.py NOTEBOOK`, all cells under Jupyter; prints what they print.

It imports nothing of ours, since nothing of ours is there.
"""

import re
import sys
import tempfile

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets.config import Config


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
    sys.exit(execute(sys.argv[1]))
