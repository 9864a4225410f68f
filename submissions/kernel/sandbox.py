"""A notebook's machine: inputs without write permission, only the image's packages, and no network, since
every Python of it refuses to connect (`no_network.py`).
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import time
import venv
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from competition.errors import DataError, SubmissionError
from competition.paths import child_path, display_path
from submissions.kernel.wheels import PYTHON, versions_of

NO_NETWORK = Path(__file__).with_name("no_network.py")


@dataclass(frozen=True)
class Sandbox:
    """Folders of a sandbox on disk."""

    root: Path
    input = child_path("input")  # what the platform mounts as /kaggle/input
    working = child_path("working")  # what the notebook may write to


def make_sandbox(root: Path, packages: Iterable[str], without: set[str]) -> Sandbox:
    """An empty sandbox with some of the packages that are here and what they need, but for those `without`."""
    sandbox = Sandbox(root)
    for folder in (sandbox.input, sandbox.working, root / "home"):
        folder.mkdir(parents=True)
    venv.create(root / "image", symlinks=True)
    site = root / "image" / "lib" / f"python{PYTHON}" / "site-packages"
    for package in versions_of([*packages, "pip"], without):
        for name in {file.parts[0] for file in metadata.files(package) or []} - {"..", "__pycache__"}:
            if not (site / name).exists():
                (site / name).symlink_to(str(metadata.distribution(package).locate_file(name)))
    shutil.copy(NO_NETWORK, site)  # no sitecustomize.py, since some systems have one of their own before it
    (site / "no_network.pth").write_text(f"import {NO_NETWORK.stem}\n")
    return sandbox


def run_notebook(sandbox: Sandbox, notebook: Path, minutes: float, log: Path) -> tuple[float, float]:
    """Run the cells of a notebook from top to bottom; all that they print goes to `log`.

    Args:
        minutes: that it may take.

    Returns:
        The minutes that it took, and the GB of memory of its largest process.
    """
    for path in [sandbox.input, *sandbox.input.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    python = sandbox.root / "image" / "bin" / "python"
    variables = {
        name: os.environ[name] for name in ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH") if name in os.environ
    }
    variables |= {"PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin", "HOME": str(sandbox.root / "home")}
    variables |= {"KAGGLE_INPUT": str(sandbox.input), "KAGGLE_WORKING": str(sandbox.working)}
    variables |= {"KAGGLE_KERNEL_RUN_TYPE": "Batch"}  # by which setup.sh uses the interpreter that is there
    command, started = [str(python), "-u", "-P", "-c", code], time.monotonic()
    with log.open("w") as said:
        process = subprocess.Popen(
            command, cwd=sandbox.working, env=variables, stdout=said, stderr=said, start_new_session=True
        )
        try:
            status = process.wait(60 * minutes)
        except subprocess.TimeoutExpired:
            raise SubmissionError(
                f"The notebook was stopped, since it needs more than --minutes {minutes:g} allows. Blend "
                f"fewer or "
                "cheaper stages, or allow more."
            ) from None
        finally:
            with suppress(ProcessLookupError):  # none of what it started is left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status:
        last = (log.read_text().strip() or "it says nothing").splitlines()[-1]
        raise DataError(f"The notebook fails: {last} (all that it printed: {display_path(log)})")
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    return (time.monotonic() - started) / 60, memory
