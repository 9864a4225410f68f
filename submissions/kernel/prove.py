"""Proof of a packed notebook before it costs a submission: `./run.sh kernel [COMPETITION] --try`.

Reads: kernel/dataset and kernel/notebook, the raw tables of the competition, the latest run.
Writes: kernel/proof.log, all that the notebook printed.

The notebook runs from top to bottom under Jupyter in a sandbox, on rows that it has never seen, one of which cannot be
read where there are molecules, and has to predict what `./run.sh predict` predicts for them here.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from competition import command
from competition.clean import parse_numbers
from competition.config import CompetitionConfig
from competition.errors import DataError, SubmissionError
from competition.files import derive_seed, read_json, read_table, read_text_table, write_json, write_table
from competition.paths import PROJECT, Bundle, Paths, shown
from competition.revision import ROOMS
from submissions.kernel.sandbox import Limits, make_sandbox, run_notebook
from submissions.kernel.wheels import download, image_packages
from submissions.predict import predict
from submissions.run import SUBMISSION_FILE, latest_run
from submissions.sample import DIGITS, check_submission

TOLERANCE = 1e-6
"""Largest difference of a prediction, in standard deviations of the training labels."""
UNREADABLE = "hidden_unreadable"
"""Id of the row that cannot be read."""
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def prove(name: str, n_rows: int, limits: Limits, flat: bool = False, n_workers: int | None = None) -> None:
    """Run the packed notebook of a competition as the platform would, and compare what it predicts.

    Args:
        n_rows: of the hidden test table, at most.
        flat: mount the inputs as /kaggle/input/<slug>, as the platform did in former times.
        n_workers: of the prediction that the notebook's is compared with.

    Raises:
        DataError: if the notebook fails.
        SubmissionError: if it breaks a limit, or what it writes is not what it has to be.
    """
    paths = Paths.of(name)
    bundle = read_json(paths.kernel.bundle.manifest, "run", "kaggle", "name", "python")
    run = latest_run(name)
    if bundle["run"] != run.name:
        raise DataError(f"The bundle is of the run {bundle['run']}, and the latest is {run.name}; pack it again.")
    config, competition = run.config, run.config.competition
    with command.locked(paths), tempfile.TemporaryDirectory(dir=paths.kernel.root) as folder:
        shipped = {line.partition("==")[0] for line in paths.kernel.bundle.requirements.read_text().split()}
        sandbox = make_sandbox(Path(folder), image_packages() - shipped)
        print(f"sandbox: {sandbox.means}", flush=True)
        slug = bundle["kaggle"] or bundle["name"]
        tables = sandbox.input / (slug if flat else f"competitions/{slug}")
        source = write_hidden_test(competition, "known_labels" in config.submissions.postprocess, n_rows, tables)
        dataset = read_json(paths.kernel.bundle.metadata, "id")["id"]
        mount(paths.kernel.bundle, Bundle(sandbox.input / (Path(dataset).name if flat else f"datasets/{dataset}")))
        notebook = Path(shutil.copy(next(paths.kernel.notebook.glob("*.ipynb")), folder))
        products = [path for path in paths.root.iterdir() if path.is_dir() and path != paths.kernel.root]
        hidden = [*(PROJECT / room for room in ROOMS), *products]
        used = run_notebook(sandbox, notebook, hidden, limits, paths.kernel.proof_log)
        if used["status"]:
            raise DataError(
                f"The notebook fails: {last_error(paths.kernel.proof_log.read_text())} "
                f"(all that it printed: {shown(paths.kernel.proof_log)})"
            )
        written = only_submission(sandbox.working)
        check_submission(written, read_text_table(tables / competition.sample_submission.name), competition.id)
        readable = read_text_table(tables / competition.test.name)
        test = Path(folder) / "readable.csv"
        write_table(test, readable[readable[competition.id] != UNREADABLE])
        compare(competition, written, predict(name, test, n_workers), run.stored["label_means"])
    print(
        f"proved: {len(readable)} hidden rows of {source}, {used['minutes']:.2g} of {limits.minutes:g} minutes, "
        f"{used['memory']:.2g} of {limits.memory:g} GB of memory, {used['disk']:.2g} of {limits.disk:g} GB of disk"
    )


def mount(bundle: Bundle, there: Bundle) -> None:
    """Copy a bundle to where the notebook finds it; where this Python is not the image's, with wheels for this one."""
    shutil.copytree(bundle.root, there.root)
    manifest = read_json(there.manifest)
    if manifest["python"] != PYTHON:
        shutil.rmtree(there.wheels)
        download(there.requirements, there.wheels, PYTHON)
        files = {name: known for name, known in manifest["files"].items() if not name.startswith("wheels/")}
        write_json(there.manifest, {**manifest, "files": files})
        print(f"Python {PYTHON} here, {manifest['python']} in the image: the same packages, wheels for {PYTHON}")


def write_hidden_test(competition: CompetitionConfig, known_labels: bool, n_rows: int, folder: Path) -> str:
    """Write the competition's three files with a hidden test table: new ids, the sample in another order.

    Args:
        known_labels: whether the run gives test rows the labels of equal training rows. Then training rows would
            prove nothing of its models, and the rows are drawn from the test table.
        n_rows: at most; drawn from the training table without its labels, the same ones each time.
        folder: of the files, named as those of the competition.

    Returns:
        The name of the file that they were drawn from.
    """
    source = competition.test if known_labels else competition.train
    columns = read_text_table(competition.test).columns
    rng = np.random.default_rng(derive_seed(competition.seed, "hidden test"))
    table = read_text_table(source)
    drawn = table[[name for name in columns if name in table]].iloc[rng.permutation(len(table))[:n_rows]]
    drawn = drawn.reset_index(drop=True)
    drawn[competition.id] = [f"hidden{i:05d}" for i in range(len(drawn))]
    if competition.smiles:
        drawn.loc[len(drawn)] = drawn.iloc[0]
        drawn.loc[len(drawn) - 1, [competition.id, competition.smiles[0]]] = [UNREADABLE, "not a molecule"]
    sample = read_text_table(competition.sample_submission).head(0)
    sample[competition.id] = drawn[competition.id].iloc[rng.permutation(len(drawn))]
    write_table(folder / competition.test.name, drawn)
    write_table(folder / competition.sample_submission.name, sample.fillna("0"))
    shutil.copyfile(competition.train, folder / competition.train.name)
    return source.name


def last_error(text: str) -> str:
    """What a failed notebook says in one sentence: our error, pip's, or the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["it says nothing"]
    ours = [line for line in lines if re.match(r"\w+Error: (?!submissions\.|pip )|ERROR: ", line)]
    return (ours or lines)[-1]


def only_submission(working: Path) -> Path:
    """The submission, if nothing else was written beside it."""
    found = sorted(str(path.relative_to(working)) for path in working.rglob("*") if path.is_file())
    if found != [SUBMISSION_FILE]:
        raise SubmissionError(
            f"The notebook may write {SUBMISSION_FILE} into its working folder and nothing else; "
            f"found {', '.join(found) or 'nothing'}."
        )
    return working / SUBMISSION_FILE


def compare(competition: CompetitionConfig, notebook: Path, here: Path, means: list[float]) -> None:
    """Hold the notebook's predictions against those made here, id by id, in standard deviations of the labels.

    Args:
        means: of the training labels, which a row that cannot be read is given.

    Raises:
        SubmissionError: if one differs by more than the tolerance.
    """
    train = read_text_table(competition.train)
    found = read_table(notebook, [competition.id]).set_index(competition.id)
    expected = read_table(here, [competition.id]).set_index(competition.id)
    if UNREADABLE in found.index:
        expected.loc[UNREADABLE] = dict(zip(competition.columns_in_sample, means, strict=True))
    for target, column in zip(competition.targets, competition.columns_in_sample, strict=True):
        deviation = float(np.nanstd(parse_numbers(train, target, competition.id, competition.train))) or 1.0
        rounded = 10.0 ** (1 - DIGITS) * expected[column].abs()  # one in the last digit that is written
        largest = float(((found[column] - expected[column]).abs() - rounded).max(skipna=False)) / deviation
        if not largest <= TOLERANCE:
            raise SubmissionError(
                f"The notebook's predictions of {target!r} differ from those of ./run.sh predict by up to "
                f"{largest:.3g} standard deviations, more than {TOLERANCE:g}. Pack it again."
            )
        print(f"{target}: differs by less than {TOLERANCE:g} standard deviations from ./run.sh predict")
