"""What runs in the sandbox: `python execute.py NOTEBOOK [--read-only FOLDER] [--hide FOLDER ...]`.

Makes sure that there is no network, guards folders where it may mount, and runs the notebook under Jupyter. It imports
nothing of ours, since nothing of ours is there, and prints what the cells print.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
from typing import Any

NOWHERE = ("192.0.2.1", 9)
"""Of a network that is kept for documents: to connect a datagram socket sends nothing, but needs a way to go."""
FLAGS = {"nosuid": os.ST_NOSUID, "nodev": os.ST_NODEV, "noexec": os.ST_NOEXEC}


def reaches_network() -> bool:
    """Whether there is a way out of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(NOWHERE)
        except OSError:
            return False
    return True


def guard(read_only: str, hidden: list[str]) -> None:
    """Mount a folder read-only, and nothing over the hidden ones, for the processes of this namespace alone."""
    kept = [name for name, flag in FLAGS.items() if os.statvfs(read_only).f_flag & flag]  # or the system refuses
    subprocess.run(["mount", "--bind", read_only, read_only], check=True)
    subprocess.run(["mount", "-o", ",".join(["remount", "bind", "ro", *kept]), read_only], check=True)
    for folder in hidden:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)


def text_of(cell: Any) -> str:
    """What a cell printed, and its traceback, without colours."""
    parts = [output.get("text") or "\n".join(output.get("traceback", [])) for output in cell.get("outputs", [])]
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(parts))


def execute(notebook: str) -> None:
    """Run all cells of a file, from top to bottom; exit status 1 where one fails."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    from traitlets.config import Config

    document = nbformat.read(notebook, as_version=4)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # the path of a Unix socket has some hundred characters
        config = Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}})
        try:
            NotebookClient(document, timeout=None, config=config, startup_timeout=120).execute()
        except CellExecutionError:
            sys.exit(1)
        finally:
            for cell in document.cells:
                print(text_of(cell), flush=True)


def main() -> None:
    """Command line."""
    options = argparse.ArgumentParser()
    options.add_argument("notebook")
    options.add_argument("--read-only")
    options.add_argument("--hide", nargs="*", default=[])
    args = options.parse_args()
    if reaches_network():
        sys.exit("SubmissionError: the sandbox does not keep the notebook from the network.")
    if args.read_only:
        guard(args.read_only, args.hide)
    execute(args.notebook)


if __name__ == "__main__":
    main()
