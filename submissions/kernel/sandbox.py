"""A sandbox like the machine of a notebook: read-only inputs, only the packages of its image, no network.

`no_network.py` makes every Python process of the sandbox refuse connections.
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

from core.errors import DataError, SubmissionError
from core.paths import child_path, display_path
from submissions.kernel.wheels import PYTHON, versions_of

NO_NETWORK = Path(__file__).with_name("no_network.py")


@dataclass(frozen=True)
class Sandbox:
    """Folders of a sandbox on disk."""

    root: Path
    input = child_path("input")  # what the platform mounts as /kaggle/input
    working = child_path("working")  # what the notebook may write to


def make_sandbox(root: Path, packages: Iterable[str], without: set[str]) -> Sandbox:
    """Return an empty sandbox with some of the installed packages and their requirements.

    Args:
        packages: names of the packages.
        without: packages to leave out, also among the requirements.
    """
    sandbox = Sandbox(root)
    for folder in (sandbox.input, sandbox.working, root / "home"):
        folder.mkdir(parents=True)
    venv.create(root / "image", symlinks=True)
    site = root / "image" / "lib" / f"python{PYTHON}" / "site-packages"
    for package in versions_of([*packages, "pip"], without):
        for name in {file.parts[0] for file in metadata.files(package) or []} - {"..", "__pycache__"}:
            if not (site / name).exists():
                (site / name).symlink_to(str(metadata.distribution(package).locate_file(name)))
    shutil.copy(NO_NETWORK, site)  # a sitecustomize.py would be hidden by that of some systems
    (site / "no_network.pth").write_text(f"import {NO_NETWORK.stem}\n")
    return sandbox


def run_notebook(sandbox: Sandbox, notebook: Path, minutes: float, log: Path) -> tuple[float, float]:
    """Run the cells of a notebook from top to bottom, with their output in `log`.

    Args:
        minutes: maximum time of the notebook.

    Returns:
        Its minutes, and the memory of its largest process in GB.

    Raises:
        SubmissionError: if it takes too long.
        DataError: if it fails.
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
    variables |= {"KAGGLE_KERNEL_RUN_TYPE": "Batch"}  # then setup.sh uses the current interpreter
    command = [str(python), "-u", "-P", "-c", code]
    started = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=sandbox.working, env=variables, stdout=output, stderr=output, start_new_session=True
        )
        try:
            status = process.wait(60 * minutes)
        except subprocess.TimeoutExpired:
            raise SubmissionError(
                f"The notebook was stopped after --minutes {minutes:g}. Blend fewer or cheaper stages, or "
                "allow more minutes."
            ) from None
        finally:
            with suppress(ProcessLookupError):  # all of its processes have ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status:
        last = (log.read_text().strip() or "no output").splitlines()[-1]
        raise DataError(f"The notebook fails: {last} (its output: {display_path(log)})")
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    return (time.monotonic() - started) / 60, memory
