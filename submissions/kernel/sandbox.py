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
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from competition.errors import SubmissionError

EXECUTE, NO_NETWORK = (Path(__file__).with_name(name) for name in ("execute.py", "no_network.py"))
UNSHARE = ["unshare", "--map-root-user", "--net", "--mount"]
TOOLS = ("ipykernel", "nbclient", "pip")
"""What runs a notebook and installs its packages; every image has them."""


@dataclass(frozen=True)
class Limits:
    """What a notebook may use."""

    minutes: float = 30.0
    memory: float = 30.0
    """GB of all its processes together."""
    disk: float = 20.0
    """GB in its working folder."""


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

    @property
    def python(self) -> Path:
        """The interpreter, with the image's packages alone."""
        return self.root / "image" / "bin" / "python"

    @property
    def means(self) -> str:
        """What guards it, in words."""
        if self.namespaces:
            return "namespaces: no network device, inputs mounted read-only, this project's code and products hidden"
        return "permissions (no namespaces here): Python refuses to connect, inputs without write permission"


def make_sandbox(root: Path, packages: Iterable[str]) -> Sandbox:
    """An empty sandbox with an environment of this interpreter that has some of its packages, and what they need."""
    sandbox = Sandbox(root, has_namespaces())
    for folder in (sandbox.input, sandbox.working, root / "home"):
        folder.mkdir(parents=True)
    venv.create(sandbox.python.parents[1], symlinks=True)
    site = next(sandbox.python.parents[1].glob("lib/python*/site-packages"))
    for distribution in _with_requirements([*packages, *TOOLS]):
        for name in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            if not (site / name).exists():
                (site / name).symlink_to(str(distribution.locate_file(name)))
    if not sandbox.namespaces:
        shutil.copy(NO_NETWORK, site / "sitecustomize.py")
    return sandbox


def has_namespaces() -> bool:
    """Whether this system lets its users make them."""
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _with_requirements(names: Iterable[str]) -> list[metadata.Distribution]:
    """Installed distributions, with those that they need and that are installed."""
    found, waiting = dict[str, metadata.Distribution](), [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found or not (installed := list(metadata.distributions(name=name))):
            continue
        found[name] = installed[0]
        needs = map(Requirement, installed[0].requires or [])
        waiting += [canonicalize_name(n.name) for n in needs if n.marker is None or n.marker.evaluate({"extra": ""})]
    return list(found.values())


def run_notebook(sandbox: Sandbox, notebook: Path, hidden: list[Path], limits: Limits, log: Path) -> dict[str, float]:
    """Run a notebook with what is in `sandbox.input`; all that it prints goes to `log`.

    Args:
        hidden: folders that the notebook shall not see, where there are namespaces.

    Returns:
        What it used: `minutes`, `memory` and `disk` as in `Limits`; and `status`, its exit status.

    Raises:
        SubmissionError: if it breaks a limit; it is ended then.
    """
    script = shutil.copy(EXECUTE, sandbox.root)
    command = [str(sandbox.python), str(script), str(notebook)]
    if sandbox.namespaces:
        command = [*UNSHARE, *command, f"--read-only={sandbox.input}", "--hide", *map(str, hidden)]
    else:
        for path in [sandbox.input, *sandbox.input.rglob("*")]:
            path.chmod(path.stat().st_mode & ~0o222)
    with log.open("w") as said:
        process = psutil.Popen(
            command, cwd=sandbox.working, env=_variables(sandbox), stdout=said, stderr=subprocess.STDOUT
        )
        started, used, known = time.monotonic(), dict.fromkeys(vars(limits), 0.0), {process}
        try:
            while process.poll() is None:
                time.sleep(0.2)
                known.update(_children(process))
                used["minutes"] = (time.monotonic() - started) / 60
                used["memory"] = max(used["memory"], sum(map(_memory, known)))
                used["disk"] = _size(sandbox.working)
                for what, allowed in vars(limits).items():
                    if used[what] > allowed:
                        raise SubmissionError(
                            f"The notebook used {used[what]:.3g} of the {allowed:.3g} {_UNITS[what]} that it may use, "
                            f"and was stopped. Blend fewer or cheaper stages, or allow more with --{what}."
                        )
        finally:
            for one in known.union(_children(process)):
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            process.wait()
    return {**used, "status": process.returncode}


_UNITS = {"minutes": "minutes", "memory": "GB of memory", "disk": "GB in its working folder"}


def _variables(sandbox: Sandbox) -> dict[str, str]:
    """Environment variables of the platform, and nothing of this machine but which GPUs and libraries to use."""
    here = {name: os.environ[name] for name in ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH") if name in os.environ}
    return {
        **here,
        "PATH": f"{sandbox.python.parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": str(sandbox.root / "home"),
        "LANG": "C.UTF-8",
        "PYTHONNOUSERSITE": "1",
        "KAGGLE_INPUT": str(sandbox.input),
        "KAGGLE_WORKING": str(sandbox.working),
        "KAGGLE_KERNEL_RUN_TYPE": "Batch",
        "KAGGLE_IS_COMPETITION_RERUN": "1",
    }


def _children(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return list(process.children(recursive=True))
    return []


def _memory(process: psutil.Process) -> float:
    """GB that a process holds; pages that it shares count in parts."""
    with suppress(psutil.Error):  # it has ended since
        return float(process.memory_full_info().pss / 1e9)
    return 0.0


def _size(folder: Path) -> float:
    """GB of the files in a folder that others are writing to."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9
