"""Test of a packed notebook before it costs a submission: `./run.sh kernel [COMPETITION] --verify`.

The notebook runs from top to bottom in a sandbox, on rows with new ids, and must predict the same as
`./run.sh predict` on this machine. If the competition has molecules, one row has an invalid one. The output
of the notebook is in kernel/proof.log. The sandbox is like the machine of a notebook: read-only inputs, only
the packages of its image, no network.
"""

import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import tempfile
import time
import venv
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd

from competition.dataset import read_prepared
from competition.task import from_submission_columns
from core import cli
from core.errors import ConfigError, DataError, SubmissionError
from core.files import read_json, write_table
from core.paths import display_path
from core.user_tables import read_text_table
from submissions.kaggle.paths import Bundle, Kernel
from submissions.kaggle.wheels import IMAGE_PYTHON, PYTHON, download, image_packages, versions_of
from submissions.manifest import SUBMISSION_FILE
from submissions.predict import predict
from submissions.run import Run, latest_run
from submissions.submission_file import check_submission

NO_NETWORK = Path(__file__).with_name("no_network.py")
"""Module that makes every Python process of the sandbox refuse connections."""
INPUT = "input"
"""Folder of a sandbox that stands for /kaggle/input."""
WORKING = "working"
"""Folder of a sandbox that the notebook may write to."""
TOLERANCE = 1e-6
"""Largest difference of a prediction, in standard deviations of the training labels."""


def require_platform() -> None:
    """Raise a ConfigError on a machine that cannot install the wheels of the bundle."""
    system = platform.system(), platform.machine()
    if system != ("Linux", "x86_64"):
        raise ConfigError(
            f"--verify needs Linux on x86_64, for which the wheels of the notebook are; this is {' on '.join(system)}. "
            "Leave it out: the notebook is written without it, too."
        )


def verify_notebook(name: str, n_workers: int | None = None, n_rows: int = 200) -> None:
    """Run the notebook of the latest run as the platform would, and compare its predictions.

    Args:
        n_workers: number of workers of the prediction on this machine.
        n_rows: maximum number of rows.

    Raises:
        SubmissionError: if the submission of the notebook is invalid or different.
    """
    run = latest_run(name)
    kernel = Kernel.of(run.paths)
    competition = run.config.competition
    with cli.locked(run.paths), tempfile.TemporaryDirectory(dir=kernel.root) as folder:
        shipped = {pin.partition("==")[0] for pin in kernel.bundle.requirements.read_text().split()}
        sandbox = Path(folder, "sandbox")
        make_sandbox(sandbox, image_packages(), shipped)
        print("running the notebook in a sandbox without a network ...", flush=True)
        tables = sandbox / INPUT / "competitions" / (competition.kaggle or run.paths.name)
        rows, sample = hidden_test(run, n_rows)
        write_table(tables / competition.test.name, rows)
        write_table(tables / competition.sample_submission.name, sample)
        bundle = Bundle(sandbox / INPUT / "datasets" / read_json(kernel.bundle.metadata)["id"])
        shutil.copytree(kernel.bundle.root, bundle.root)
        if PYTHON != IMAGE_PYTHON:  # the same packages for the Python of this machine
            shutil.rmtree(bundle.wheels)
            download(bundle.requirements, bundle.wheels, PYTHON)
        notebook = next(kernel.notebook.glob("*.ipynb"))
        duration, memory = run_notebook(sandbox, notebook, kernel.proof_log)
        submission = sandbox / WORKING / SUBMISSION_FILE
        check_submission(submission, sample, competition.id, run.task)
        hidden = tables / competition.test.name
        require_same_predictions(run, submission, predict(name, hidden, n_workers))
    print(
        f"verified on {len(rows)} hidden rows in {duration:.2g} minutes; the largest process took "
        f"{memory:.2g} GB"
    )


def hidden_test(run: Run, n_rows: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return rows of both tables under new ids, and their sample in another order; the same on each call."""
    competition = run.config.competition
    test = read_text_table(competition.test)
    sample = read_text_table(competition.sample_submission).head(0)
    rows = pd.concat([test, read_text_table(competition.train)])[test.columns].fillna("")
    rows = rows.sample(min(n_rows, len(rows)), random_state=competition.seed)
    rows[competition.id] = [f"hidden{i:05d}" for i in range(len(rows))]
    if competition.smiles:
        unreadable = {competition.id: "hidden_unreadable", competition.smiles[0]: "not a molecule"}
        rows = pd.concat([rows, rows.head(1).assign(**unreadable)])
    sample[competition.id] = rows[competition.id].sample(frac=1, random_state=competition.seed).to_numpy()
    return rows, sample.fillna("0")


def require_same_predictions(run: Run, notebook: Path, here: Path) -> None:
    """Compare the predictions or labels of the notebook with the ones of this machine.

    Args:
        notebook: submission of the notebook.
        here: predictions of this machine.

    Raises:
        SubmissionError: if they differ by more than the tolerance.
    """
    competition = run.config.competition
    task = run.task
    expected = read_text_table(here).set_index(competition.id)
    table = read_text_table(notebook).set_index(competition.id)
    y_expected = from_submission_columns(task, expected)
    y_notebook = from_submission_columns(task, table.loc[expected.index])
    labels = read_prepared(run.paths.train)[competition.targets].to_numpy(dtype=np.float64)
    deviations = np.nanstd(labels if task.scores_labels else task.one_hot(labels), axis=0)
    difference = np.abs(y_notebook - y_expected)  # both are written more precisely than the tolerance
    largest = difference.max(axis=0) / np.where(deviations, deviations, 1.0)
    if not (largest <= TOLERANCE).all():
        raise SubmissionError(
            f"The predictions of the notebook differ from ./run.sh predict by up to {largest.max():.3g} "
            f"standard deviations of the labels; the limit is {TOLERANCE:g}. Look for WARNINGs and other versions of "
            "packages in kernel/proof.log of the work folder; predictions of your own code must not depend on other "
            "rows."
        )
    print(f"{', '.join(map(str, table))}: the same as ./run.sh predict, to {TOLERANCE:g} standard deviations")


def make_sandbox(root: Path, packages: Iterable[str], without: set[str]) -> None:
    """Make an empty sandbox with some of the installed packages and their requirements.

    Args:
        packages: names of the packages.
        without: packages to leave out, also among the requirements.
    """
    for name in (INPUT, WORKING, "home"):
        (root / name).mkdir(parents=True)
    venv.create(root / "image", symlinks=True)
    site = root / "image" / "lib" / f"python{PYTHON}" / "site-packages"
    for package in versions_of([*packages, "pip"], without):
        for name in {file.parts[0] for file in metadata.files(package) or []} - {"..", "__pycache__"}:
            if not (site / name).exists():
                (site / name).symlink_to(str(metadata.distribution(package).locate_file(name)))
    shutil.copy(NO_NETWORK, site)  # some systems have a sitecustomize.py, which would hide another
    (site / "no_network.pth").write_text(f"import {NO_NETWORK.stem}\n")


def run_notebook(sandbox: Path, notebook: Path, log: Path) -> tuple[float, float]:
    """Run the cells of a notebook from top to bottom, with their output in `log`.

    Returns:
        Its minutes, and the memory of its largest process in GB.

    Raises:
        DataError: if it fails.
    """
    mounted = sandbox / INPUT
    working = sandbox / WORKING
    for path in [mounted, *mounted.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    python = sandbox / "image" / "bin" / "python"
    passed_on = ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
    variables = {
        **{name: os.environ[name] for name in passed_on if name in os.environ},
        "PATH": f"{python.parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(sandbox / "home"),
        "KAGGLE_INPUT": str(mounted),
        "KAGGLE_WORKING": str(working),
        "KAGGLE_KERNEL_RUN_TYPE": "Batch",  # then setup.sh uses the current interpreter
    }
    command = [str(python), "-u", "-P", "-c", code]
    started = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=working, env=variables, stdout=output, stderr=output, start_new_session=True
        )
        try:
            status = process.wait()
        finally:
            with suppress(ProcessLookupError):  # all of its processes have ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status:
        last = (log.read_text().strip() or "no output").splitlines()[-1]
        raise DataError(f"The notebook failed: {last} (output: {display_path(log)})")
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    return (time.monotonic() - started) / 60, memory
