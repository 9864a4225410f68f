"""A notebook's machine: no network, inputs without write permission, only the image's packages, limits on what it uses.

Where the system gives namespaces to its users (`unshare`), the notebook has no network device, and nobody's rights but
the owner's, so that permissions hold for root, too. Elsewhere, as in many containers, its Pythons refuse to connect.
"""

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

from competition.errors import DataError, SubmissionError
from competition.paths import Below, shown
from submissions.kernel.wheels import PYTHON, versions_of

EXECUTE, NO_NETWORK = (Path(__file__).with_name(name) for name in ("execute.py", "no_network.py"))
UNSHARE = ["unshare", "--user", "--net"]
TOOLS = ["ipykernel", "nbclient", "pip"]
"""What runs a notebook and installs its packages; every image has them."""
LIMITS = {"minutes": 30.0, "memory": 30.0, "disk": 20.0}
"""The most that a notebook may use: minutes, GB of all its processes together, GB in its working folder."""


@dataclass(frozen=True)
class Sandbox:
    """A sandbox on disk."""

    root: Path
    namespaces: bool  # whether the system guards it

    input = Below("input")  # what the platform mounts as /kaggle/input
    working = Below("working")  # what the notebook may write to


def make_sandbox(root: Path, packages: Iterable[str], without: set[str]) -> Sandbox:
    """An empty sandbox with some of the packages that are here and what they need, but for those `without`."""
    probe = [*UNSHARE, "true"]
    namespaces = bool(shutil.which(probe[0])) and not subprocess.run(probe, capture_output=True).returncode
    sandbox = Sandbox(root, namespaces)
    for folder in (sandbox.input, sandbox.working, root / "home"):
        folder.mkdir(parents=True)
    venv.create(root / "image", symlinks=True)
    site = root / "image" / "lib" / f"python{PYTHON}" / "site-packages"
    for package in versions_of(packages, without) | versions_of(TOOLS, set()):
        for name in {file.parts[0] for file in metadata.files(package) or []} - {"..", "__pycache__"}:
            if not (site / name).exists():
                (site / name).symlink_to(str(metadata.distribution(package).locate_file(name)))
    if not namespaces:
        shutil.copy(NO_NETWORK, site)  # no sitecustomize.py, since some systems have one of their own before it
        (site / "no_network.pth").write_text(f"import {NO_NETWORK.stem}\n")
    return sandbox


def run_notebook(sandbox: Sandbox, notebook: Path, limits: dict[str, float], log: Path) -> dict[str, float]:
    """Run a notebook, which may use as much as LIMITS names; all that it prints goes to `log`; returns what it used."""
    for path in [sandbox.input, *sandbox.input.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    python = sandbox.root / "image" / "bin" / "python"
    variables = {name: os.environ[name] for name in ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH") if name in os.environ}
    variables |= {"PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin", "HOME": str(sandbox.root / "home")}
    variables |= {"KAGGLE_INPUT": str(sandbox.input), "KAGGLE_WORKING": str(sandbox.working)}
    variables |= {"KAGGLE_KERNEL_RUN_TYPE": "Batch"}  # by which setup.sh uses the interpreter that is there
    command = [*(UNSHARE if sandbox.namespaces else []), python, "-P", EXECUTE, notebook]
    used, started, known = dict.fromkeys(limits, 0.0), time.monotonic(), set[psutil.Process]()
    with log.open("w") as said:
        process = psutil.Popen(command, cwd=sandbox.working, env=variables, stdout=said, stderr=said)
        try:
            while process.poll() is None:
                time.sleep(0.2)
                with suppress(psutil.NoSuchProcess):  # children are remembered, since they may outlive their parents
                    known |= {process, *process.children(recursive=True)}
                now = {"minutes": (time.monotonic() - started) / 60, "memory": 0.0, "disk": 0.0}
                for one in known:
                    with suppress(psutil.Error):  # it has ended since
                        now["memory"] += one.memory_full_info().pss / 1e9  # pages that it shares count in parts
                for file in sandbox.working.rglob("*"):
                    with suppress(FileNotFoundError):  # it has come and gone
                        now["disk"] += file.stat().st_size / 1e9
                used = {what: max(most, now[what]) for what, most in used.items()}
                if broken := [what for what in limits if used[what] > limits[what]]:
                    raise SubmissionError(
                        f"The notebook was stopped, since it needs more than --{broken[0]} {limits[broken[0]]:g} "
                        "allows. Blend fewer or cheaper stages, or allow more."
                    )
        finally:
            for one in known:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            process.wait()
    if process.returncode:
        last = (log.read_text().strip() or "it says nothing").splitlines()[-1]
        raise DataError(f"The notebook fails: {last} (all that it printed: {shown(log)})")
    return used
