"""Proof of a packed notebook before it costs a submission: `./run.sh kernel [COMPETITION] --try`.

Reads: kernel/dataset and kernel/notebook, the raw tables of the competition, the latest run.
Writes: kernel/proof.log, all that the notebook printed.

The notebook runs from top to bottom under Jupyter in a sandbox, on rows that it has never seen, one of which cannot be
read where there are molecules, and has to predict what `./run.sh predict` predicts for them here.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from competition import command
from competition.clean import parse_numbers
from competition.errors import DataError, SubmissionError
from competition.files import derive_seed, read_json, read_table, read_text_table, write_table
from competition.paths import PROJECT, Bundle, shown
from competition.revision import ROOMS
from submissions.kernel.sandbox import make_sandbox, run_notebook
from submissions.kernel.wheels import PYTHON, download, image_packages
from submissions.predict import predict
from submissions.run import SUBMISSION_FILE, Run, latest_run
from submissions.sample import DIGITS, check_submission

TOLERANCE = 1e-6
"""Largest difference of a prediction, in standard deviations of the training labels."""
MEANS = {
    True: "namespaces: no network device, inputs mounted read-only, this project's code and products hidden",
    False: "permissions (no namespaces here): Python refuses to connect, inputs without write permission",
}
UNREADABLE = "hidden_unreadable"
"""Id of the row that cannot be read."""


def prove(name: str, n_rows: int, limits: dict[str, float], flat: bool = False, n_workers: int | None = None) -> None:
    """Run the packed notebook of a competition as the platform would, and compare what it predicts.

    Args:
        n_rows: of the hidden test table, at most.
        limits: as `sandbox.LIMITS`.
        flat: mount the inputs as /kaggle/input/<slug>, as the platform did in former times.
        n_workers: of the prediction that the notebook's is compared with.

    Raises:
        DataError: if the notebook fails.
        SubmissionError: if it breaks a limit, or what it writes is not what it has to be.
    """
    run = latest_run(name)
    kernel, competition, id_column = run.paths.kernel, run.config.competition, run.config.competition.id
    manifest = read_json(kernel.bundle.manifest, "run", "python")
    if manifest["run"] != run.name:
        raise DataError(f"The bundle is of the run {manifest['run']}, and the latest is {run.name}; pack it again.")
    with command.locked(run.paths), tempfile.TemporaryDirectory(dir=kernel.root) as folder:
        shipped = {pin.partition("==")[0] for pin in kernel.bundle.requirements.read_text().split()}
        sandbox = make_sandbox(Path(folder, "sandbox"), image_packages(), shipped)
        print(f"sandbox: {MEANS[sandbox.namespaces]}", flush=True)
        slug, dataset = competition.kaggle or run.paths.name, read_json(kernel.bundle.metadata, "id")["id"]
        tables = sandbox.input / (slug if flat else f"competitions/{slug}")
        source = write_hidden_test(run, n_rows, tables)
        there = Bundle(sandbox.input / (Path(dataset).name if flat else f"datasets/{dataset}"))
        shutil.copytree(kernel.bundle.root, there.root)
        if manifest["python"] != PYTHON:
            print(f"Python {PYTHON} here, {manifest['python']} in the image: the same packages, wheels for {PYTHON}")
            shutil.rmtree(there.wheels)
            download(there.requirements, there.wheels, PYTHON)
        hidden = [PROJECT / room for room in ROOMS]
        hidden += [path for path in run.paths.root.iterdir() if path.is_dir() and path != kernel.root]
        notebook = next(kernel.notebook.glob("*.ipynb"))
        status, used = run_notebook(sandbox, notebook, hidden, limits, kernel.proof_log)
        if status:
            last = (kernel.proof_log.read_text().strip() or "it says nothing").splitlines()[-1]
            raise DataError(f"The notebook fails: {last} (all that it printed: {shown(kernel.proof_log)})")
        found = sorted(str(path.relative_to(sandbox.working)) for path in sandbox.working.rglob("*"))
        if found != [SUBMISSION_FILE]:
            raise SubmissionError(f"The notebook may write {SUBMISSION_FILE} alone; found {', '.join(found)}.")
        rows, written = read_text_table(tables / competition.test.name), sandbox.working / SUBMISSION_FILE
        check_submission(written, read_text_table(tables / competition.sample_submission.name), id_column)
        readable = Path(folder, "readable.csv")
        write_table(readable, rows[rows[id_column] != UNREADABLE])
        compare(run, written, predict(name, readable, n_workers))
    spent = ", ".join(f"{what} {used[what]:.2g} of {allowed:g}" for what, allowed in limits.items())
    print(f"proved on {len(rows)} hidden rows of {source}: {spent} (memory and disk in GB)")


def write_hidden_test(run: Run, n_rows: int, folder: Path) -> str:
    """Write the competition's three files with a hidden test table: new ids, the sample in another order.

    The rows are training rows without their labels, always the same ones; where the run gives test rows the labels of
    equal training rows, which would prove nothing of its models, they are test rows.

    Returns:
        The name of the file that they were drawn from.
    """
    competition = run.config.competition
    source = competition.test if "known_labels" in run.config.submissions.postprocess else competition.train
    columns, table = read_text_table(competition.test).columns, read_text_table(source)
    rng = np.random.default_rng(derive_seed(competition.seed, "hidden test"))
    drawn = table[[name for name in columns if name in table]].iloc[rng.permutation(len(table))[:n_rows]]
    drawn = drawn.assign(**{competition.id: [f"hidden{i:05d}" for i in range(len(drawn))]})
    if competition.smiles:
        unreadable = drawn.iloc[:1].assign(**{competition.id: UNREADABLE, competition.smiles[0]: "not a molecule"})
        drawn = pd.concat([drawn, unreadable])
    sample = read_text_table(competition.sample_submission).head(0)
    sample[competition.id] = rng.permutation(drawn[competition.id])
    write_table(folder / competition.test.name, drawn)
    write_table(folder / competition.sample_submission.name, sample.fillna("0"))
    shutil.copyfile(competition.train, folder / competition.train.name)
    return source.name


def compare(run: Run, notebook: Path, here: Path) -> None:
    """Hold the notebook's predictions against those made here, id by id, in standard deviations of the labels.

    A row that cannot be read has to have the means of the labels.

    Raises:
        SubmissionError: if one differs by more than the tolerance.
    """
    competition = run.config.competition
    train = read_text_table(competition.train)
    found, expected = (read_table(file, [competition.id]).set_index(competition.id) for file in (notebook, here))
    if UNREADABLE in found.index:
        expected.loc[UNREADABLE] = dict(zip(competition.columns_in_sample, run.stored["label_means"], strict=True))
    for target, column in zip(competition.targets, competition.columns_in_sample, strict=True):
        deviation = float(np.nanstd(parse_numbers(train, target, competition.id, competition.train))) or 1.0
        rounded = 10.0 ** (1 - DIGITS) * expected[column].abs()  # one in the last digit that is written
        largest = float(((found[column] - expected[column]).abs() - rounded).max(skipna=False)) / deviation
        if not largest <= TOLERANCE:
            raise SubmissionError(
                f"The notebook's predictions of {target!r} differ from those of ./run.sh predict by up to "
                f"{largest:.3g} standard deviations, more than {TOLERANCE:g}. Pack it again."
            )
        print(f"{target}: the same as ./run.sh predict, to {TOLERANCE:g} standard deviations")
