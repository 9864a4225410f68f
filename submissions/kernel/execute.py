"""Runs a notebook from top to bottom in a Jupyter kernel, in the sandbox: `python execute.py NOTEBOOK`.

Imports nothing of ours, since nothing of ours is there. It prints one JSON object per line: `reached` with the
addresses that the network leads to, `cell` for each that is done, `failed` with all that a failing cell printed.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import tempfile
import time
from typing import Any

ADDRESSES = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Of networks that are kept for documents. To connect a datagram socket sends nothing, but needs a way to go."""


def say(**fields: Any) -> None:
    """Print fields as one line."""
    print(json.dumps(fields), flush=True)


def reached() -> list[str]:
    """Those of ADDRESSES to which there is a way."""
    found = []
    for family, address in ADDRESSES:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((address, 9))
            found.append(address)
        except OSError:
            pass
    return found


def is_failed(cell: Any) -> bool:
    """Whether a cell ended with an exception."""
    return any(output["output_type"] == "error" for output in cell.get("outputs", []))


def text_of(cell: Any) -> str:
    """What a cell printed, and its traceback, without colours."""
    parts = [output.get("text") or "\n".join(output.get("traceback", [])) for output in cell.get("outputs", [])]
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(parts))


def execute(notebook: str) -> int:
    """Run all cells of a file; returns the exit status."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError
    from traitlets.config import Config

    document = nbformat.read(notebook, as_version=4)
    cells = [cell for cell in document.cells if cell.cell_type == "code"]
    clock = [time.monotonic()]

    def done(cell: Any, cell_index: int, **_: Any) -> None:
        started, clock[0] = clock[0], time.monotonic()
        if not is_failed(cell):
            number = next(i for i, known in enumerate(cells, 1) if known is cell)
            say(cell=number, cells=len(cells), seconds=clock[0] - started, text=text_of(cell))

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # the path of a Unix socket has some hundred characters
        config = Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}})
        client = NotebookClient(document, timeout=None, config=config, on_cell_executed=done, startup_timeout=120)
        try:
            client.execute()
        except CellExecutionError:
            say(failed=text_of(next(cell for cell in cells if is_failed(cell))))
            return 1
        except DeadKernelError:
            say(failed="KernelDied: the Jupyter kernel ended by itself")
            return 1
    return 0


if __name__ == "__main__":
    say(reached=reached())
    sys.exit(execute(sys.argv[1]))
