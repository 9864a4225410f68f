"""Proof of a packed notebook before it costs a submission: `./run.sh kernel [COMPETITION] --verify`.

Reads: kernel/dataset and kernel/notebook, the raw tables of the competition, the latest run.
Writes: kernel/proof.log, all that the notebook printed.

The notebook runs from top to bottom in a sandbox, on rows that it has never seen, one of which cannot be
read where there are molecules, and has to predict what `./run.sh predict` predicts for them here.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from competition import cli
from competition.errors import SubmissionError
from competition.files import read_json, read_table, read_text_table, write_table
from competition.paths import Bundle
from competition.task import from_sample
from submissions.kernel.sandbox import make_sandbox, run_notebook
from submissions.kernel.wheels import IMAGE_PYTHON, PYTHON, download, image_packages
from submissions.predict import predict
from submissions.run import SUBMISSION_FILE, Run, latest_run
from submissions.submission_file import DIGITS, check_submission

TOLERANCE = 1e-6
"""Largest difference of a prediction, in standard deviations of the training labels."""
UNREADABLE = "hidden_unreadable"
"""Id of the row that cannot be read."""


def verify_notebook(name: str, minutes: float, n_workers: int | None = None, n_rows: int = 200) -> None:
    """Run the notebook of the latest run, just packed, as the platform would, and compare what it predicts.

    Args:
        minutes: that the notebook may take.
        n_workers: of the prediction that the notebook's is compared with.
        n_rows: hidden ones, at most.
    """
    run = latest_run(name)
    kernel, competition = run.paths.kernel, run.config.competition
    with cli.locked(run.paths), tempfile.TemporaryDirectory(dir=kernel.root) as folder:
        shipped = {pin.partition("==")[0] for pin in kernel.bundle.requirements.read_text().split()}
        sandbox = make_sandbox(Path(folder, "sandbox"), image_packages(), shipped)
        print("running it in a sandbox, whose Python refuses to connect ...", flush=True)
        slug, dataset = competition.kaggle or run.paths.name, read_json(kernel.bundle.metadata)["id"]
        tables = sandbox.input / f"competitions/{slug}"
        rows, sample = hidden_test(run, n_rows)
        write_table(tables / competition.test.name, rows)
        write_table(tables / competition.sample_submission.name, sample)
        there = Bundle(sandbox.input / "datasets" / dataset)
        shutil.copytree(kernel.bundle.root, there.root)
        if PYTHON != IMAGE_PYTHON:  # the same packages for the Python that is here
            shutil.rmtree(there.wheels)
            download(there.requirements, there.wheels, PYTHON)
        took, memory = run_notebook(sandbox, next(kernel.notebook.glob("*.ipynb")), minutes, kernel.proof_log)
        written, readable = sandbox.working / SUBMISSION_FILE, Path(folder, "readable.csv")
        check_submission(written, sample, competition.id, run.task)
        write_table(readable, rows[rows[competition.id] != UNREADABLE])
        compare_predictions(run, written, predict(name, readable, n_workers))
    print(
        f"proved on {len(rows)} hidden rows in {took:.2g} minutes; its largest process took {memory:.2g} GB"
    )


def hidden_test(run: Run, n_rows: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of both tables under new ids, always the same ones, and their sample in another order."""
    competition = run.config.competition
    known, sample = read_text_table(competition.test), read_text_table(competition.sample_submission).head(0)
    rows = pd.concat([known, read_text_table(competition.train)])[known.columns].fillna("")
    rows = rows.sample(min(n_rows, len(rows)), random_state=competition.seed)
    rows[competition.id] = [f"hidden{i:05d}" for i in range(len(rows))]
    if competition.smiles:
        unreadable = rows.head(1).assign(
            **{competition.id: UNREADABLE, competition.smiles[0]: "not a molecule"}
        )
        rows = pd.concat([rows, unreadable])
    sample[competition.id] = rows[competition.id].sample(frac=1, random_state=competition.seed).to_numpy()
    return rows, sample.fillna("0")


def compare_predictions(run: Run, notebook: Path, here: Path) -> None:
    """Hold the notebook's predictions or labels against those made here; a row that cannot be read is not
    here.
    """
    competition, task = run.config.competition, run.task
    found, expected = (read_text_table(file).set_index(competition.id) for file in (notebook, here))
    theirs, ours = (from_sample(task, table.loc[expected.index]) for table in (found, expected))
    labels = read_table(run.paths.train)[competition.targets].to_numpy(dtype=np.float64)
    deviations = np.nanstd(labels if task.scores_labels else task.one_hot(labels), axis=0)
    rounded = 10.0 ** (1 - DIGITS) * np.abs(ours)  # one in the last digit that is written
    off = (np.abs(theirs - ours) - rounded).max(axis=0) / np.where(deviations, deviations, 1.0)
    if not (off <= TOLERANCE).all():
        raise SubmissionError(
            f"The notebook's predictions differ from those of ./run.sh predict by up to {off.max():.3g} "
            f"standard deviations of the labels, more than {TOLERANCE:g}. Pack it again."
        )
    print(f"{', '.join(map(str, found))}: the same as ./run.sh predict, to {TOLERANCE:g} standard deviations")
