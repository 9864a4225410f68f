"""A notebook's machine: no network, read-only inputs, only the image's packages, limits on time, memory and disk.

Where the system gives namespaces to its users (`unshare`), the notebook sees no network device, its inputs are mounted
read-only, and our code and products are hidden. Elsewhere (many containers) every Python of the sandbox refuses to
connect, and write permission is taken from the inputs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import venv
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from competition.errors import SubmissionError
from submissions.kernel.wheels import versions_of

EXECUTE, NO_NETWORK = (Path(__file__).with_name(name) for name in ("execute.py", "no_network.py"))
UNSHARE = ["unshare", "--map-root-user", "--net", "--mount"]
TOOLS = ["ipykernel", "nbclient", "pip"]
"""What runs a notebook and installs its packages; every image has them."""
LIMITS = {"minutes": 30.0, "memory": 30.0, "disk": 20.0}
"""The most that a notebook may use: minutes, GB of all its processes together, GB in its working folder."""


@dataclass(frozen=True)
class Sandbox:
    """A sandbox on disk; `namespaces` says whether they guard it."""

    root: Path
    namespaces: bool

    @property
    def input(self) -> Path:
        """What the platform mounts as /kaggle/input."""
        return self.root / "input"

    @property
    def working(self) -> Path:
        """What the notebook may write to."""
        return self.root / "working"


def make_sandbox(root: Path, packages: Iterable[str], without: set[str]) -> Sandbox:
    """An empty sandbox, in whose environment this interpreter has some of its packages and what they need.

    Args:
        without: packages that the notebook installs itself.
    """
    namespaces = False
    with suppress(FileNotFoundError):
        namespaces = not subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode
    sandbox = Sandbox(root, namespaces)
    for folder in (sandbox.input, sandbox.working, root / "home"):
        folder.mkdir(parents=True)
    venv.create(root / "image", symlinks=True)
    site = next((root / "image").glob("lib/python*/site-packages"))
    versions = versions_of(packages, without) | versions_of(TOOLS, set())
    for package, version in versions.items():
        files = (metadata.files(package) or []) if version else []
        for name in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            if not (site / name).exists():
                (site / name).symlink_to(str(metadata.distribution(package).locate_file(name)))
    if not namespaces:
        shutil.copy(NO_NETWORK, site / "sitecustomize.py")
    return sandbox


def run_notebook(
    sandbox: Sandbox, notebook: Path, hidden: list[Path], limits: dict[str, float], log: Path
) -> tuple[int, dict[str, float]]:
    """Run a notebook with what is in `sandbox.input`; all that it prints goes to `log`.

    Args:
        hidden: folders that the notebook shall not see, where there are namespaces.
        limits: as LIMITS.

    Returns:
        Its exit status, and the most that it used of what has limits.

    Raises:
        SubmissionError: if it breaks a limit; it is ended then.
    """
    python = sandbox.root / "image" / "bin" / "python"
    command = [str(python), str(shutil.copy(EXECUTE, sandbox.root)), str(notebook)]
    if sandbox.namespaces:
        command = [*UNSHARE, *command, str(sandbox.input), *map(str, hidden)]
    else:
        for path in [sandbox.input, *sandbox.input.rglob("*")]:
            path.chmod(path.stat().st_mode & ~0o222)
    kept = {name: os.environ[name] for name in ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH") if name in os.environ}
    variables = {
        "PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": str(sandbox.root / "home"),
        "LANG": "C.UTF-8",
        "PYTHONNOUSERSITE": "1",
        "KAGGLE_INPUT": str(sandbox.input),
        "KAGGLE_WORKING": str(sandbox.working),
        "KAGGLE_KERNEL_RUN_TYPE": "Batch",
    }
    used, started = dict.fromkeys(limits, 0.0), time.monotonic()
    with log.open("w") as said:
        process = psutil.Popen(command, cwd=sandbox.working, env=kept | variables, stdout=said, stderr=said)
        known = {process}
        try:
            while process.poll() is None:
                time.sleep(0.2)
                known |= _children(process)
                now = (time.monotonic() - started) / 60, sum(map(_memory, known)), _size(sandbox.working)
                used = {what: max(used[what], value) for what, value in zip(limits, now, strict=True)}
                for what, allowed in limits.items():
                    if used[what] > allowed:
                        unit = "minutes" if what == "minutes" else f"GB of {what}"
                        raise SubmissionError(
                            f"The notebook was stopped, since it used more than {allowed:g} {unit}. Blend fewer or "
                            f"cheaper stages, or allow more with --{what}."
                        )
        finally:
            for one in known | _children(process):
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            process.wait()
    return int(process.returncode), used


def _children(process: psutil.Process) -> set[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return set(process.children(recursive=True))
    return set()


def _memory(process: psutil.Process) -> float:
    """GB that a process holds; pages that it shares count in parts."""
    with suppress(psutil.Error):  # it has ended since
        return float(process.memory_full_info().pss / 1e9)
    return 0.0


def _size(folder: Path) -> float:
    """GB of the files in a folder that others are writing to."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9
