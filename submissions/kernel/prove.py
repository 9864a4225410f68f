"""Proof of a packed notebook before it costs a submission: `./run.sh kernel [COMPETITION] --try`.

Reads: kernel/dataset and kernel/notebook, the raw tables of the competition, the latest run.
Writes: kernel/proof.log, all that the notebook printed.

The notebook runs from top to bottom under Jupyter in `submissions.kernel.sandbox`, on rows that it has never seen, and
has to predict what `./run.sh predict` predicts for them here.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from competition import command
from competition.clean import parse_numbers
from competition.config import CompetitionConfig
from competition.durations import in_words
from competition.errors import ConfigError, DataError, ServiceError, SubmissionError, UserError
from competition.files import read_json, read_table, read_text_table, sha256_of, write_atomically, write_json
from competition.paths import Pack, Paths, shown
from submissions.kernel import execute, wheels
from submissions.kernel.environment import make_environment
from submissions.kernel.hidden import write_hidden_test
from submissions.kernel.limits import Limits
from submissions.kernel.packages import image_packages
from submissions.kernel.sandbox import Box, open_box, run
from submissions.predict import predict
from submissions.run import SUBMISSION_FILE, load_run
from submissions.sample import check_submission

TOLERANCE = 1e-6
"""Largest difference of a prediction, in standard deviations of the training labels."""

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
ERRORS: dict[str, type[UserError]] = {
    error.__name__: error for error in (ConfigError, DataError, ServiceError, SubmissionError)
}


def prove(name: str, n_rows: int, limits: Limits, flat: bool = False, n_workers: int | None = None) -> None:
    """Run the packed notebook of a competition as the platform would, and compare what it predicts.

    Args:
        n_rows: of the hidden test table.
        flat: mount the inputs as /kaggle/input/<slug>, as the platform did in former times.
        n_workers: of the prediction that the notebook's is compared with.

    Raises:
        UserError: of the class that the notebook names, if it fails.
        SubmissionError: if it breaks a limit, or what it writes is not what it has to be.
    """
    started = time.monotonic()
    paths = Paths.of(name)
    facts = read_json(paths.pack.facts, "run", "kaggle", "name", "python", "wheels", "files")
    latest = paths.latest_run.read_text().strip()
    if facts["run"] != latest:
        raise DataError(f"the pack must hold the latest run, {latest}, and holds {facts['run']}; make the pack again.")
    config = load_run(paths.run(latest)).config
    competition = config.competition
    with command.locked(paths), _empty(paths.proof):
        box = _open_box(paths.proof, set(facts["wheels"]))
        slug = facts["kaggle"] or facts["name"]
        files = box.folder / "kaggle" / "input" / (slug if flat else f"competitions/{slug}")
        n_rows, source = write_hidden_test(competition, "known_labels" in config.submissions.postprocess, n_rows, files)
        _say("hidden test", f"{n_rows} rows of {source}, new ids, new order")
        _mount_pack(paths, facts, box, flat)
        peak = _execute(paths, box, limits)
        written = _only_submission(box.folder / "kaggle" / "working")
        check_submission(written, read_text_table(files / competition.sample_submission.name), competition.id)
        clock = time.monotonic()
        expected = predict(name, files / competition.test.name, n_workers)
        _say("prediction", "of ./run.sh predict, here, for the same rows", clock)
        _compare(competition, written, expected)
    _say("proved", f"in {in_words(time.monotonic() - started)}, {peak / 1e9:.2g} GB of memory at most; {box.means}")


@contextmanager
def _empty(folder: Path) -> Iterator[None]:
    """A folder that is empty at the start and gone at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _say(what: str, text: str, since: float | None = None) -> None:
    seconds = "" if since is None else f"  {time.monotonic() - since:.0f} s"
    tqdm.write(f"{what:<14}{text}{seconds}")  # above a bar, where there is one
    sys.stdout.flush()


def _open_box(folder: Path, shipped: set[str]) -> Box:
    clock = time.monotonic()
    names, packages = make_environment(folder / "environment", image_packages(), shipped)
    box = open_box(folder, folder / "environment", packages)
    _say("environment", f"{len(names)} packages that the notebook image has, and none that the pack brings", clock)
    _say("isolation", box.means)
    return box


def _mount_pack(paths: Paths, facts: dict[str, Any], box: Box, flat: bool) -> None:
    """Show pack and notebook in the box; where this Python is not that of the image, with wheels for this one."""
    name = read_json(paths.pack.metadata, "id")["id"]
    pack = Pack(box.folder / "kaggle" / "input" / (name.split("/")[1] if flat else f"datasets/{name}"))
    shutil.copytree(paths.pack.root, pack.root, copy_function=box.lay)
    for source in (next(paths.notebook.glob("*.ipynb")), Path(execute.__file__)):
        shutil.copy(source, box.folder / "kaggle" / "src")
    if facts["python"] == PYTHON:
        return
    clock = time.monotonic()
    for package, wheel in facts["wheels"].items():
        shipped = pack.wheels / wheel["file"]
        if shipped.is_file():  # a missing one is for the notebook to find out
            shipped.unlink()
            fitting = wheels.find(package, wheel["version"], PYTHON)
            box.lay(fitting, pack.wheels / fitting.name)
            del facts["files"][f"wheels/{wheel['file']}"]
            wheel["file"] = fitting.name
            facts["files"][f"wheels/{fitting.name}"] = {"size": fitting.stat().st_size, "sha256": sha256_of(fitting)}
    write_json(pack.facts, {**facts, "python": PYTHON})
    _say("python", f"{PYTHON} here, {facts['python']} in the image: same versions, wheels for {PYTHON}", clock)


def _execute(paths: Paths, box: Box, limits: Limits) -> float:
    """Run the notebook; returns the most memory that it used, in bytes."""
    heard: dict[str, Any] = {}
    log: list[str] = []

    def hear(line: str) -> None:
        try:
            message = json.loads(line)
        except json.JSONDecodeError:  # a warning of some library
            log.append(line)
            return
        log.append(message.pop("text", None) or message.get("failed", ""))
        heard.update(message)
        if "cell" in message:
            _say(f"cell {message['cell']} of {message['cells']}", f"{message['seconds']:.0f} s")

    source = box.kaggle / "src"
    notebook = next((box.folder / "kaggle" / "src").glob("*.ipynb")).name
    python = str(box.environment / "bin" / "python")
    try:
        status, peak = run(box, [python, f"{source}/execute.py", f"{source}/{notebook}"], limits, hear)
    finally:
        write_atomically(paths.proof_log, "\n".join(log))
    if "failed" in heard:
        kind, sentence = _sentence(heard["failed"])
        raise ERRORS.get(kind, DataError)(
            f"the notebook fails: {sentence} (all that it printed: {shown(paths.proof_log)})"
        )
    if status or "reached" not in heard:
        raise DataError(
            f"Jupyter must run in the sandbox, and ended with status {status}; {shown(paths.proof_log)} says why."
        )
    if heard["reached"]:
        raise SubmissionError(f"the notebook must have no network, and {', '.join(heard['reached'])} could be reached.")
    _say("network", "nothing could be reached")
    return peak


def _sentence(text: str) -> tuple[str, str]:
    """What a failed cell says in one sentence, and the class of the error: ours, of pip, or the last line."""
    ours = re.findall(rf"^({'|'.join(ERRORS)}): (.+)$", text, re.MULTILINE)
    if ours:
        return str(ours[0][0]), str(ours[0][1])
    lines = [line for line in text.splitlines() if line.strip()] or ["it says nothing"]
    pip = [line for line in lines if line.startswith("ERROR: ")]
    return "", (pip or lines)[-1].removeprefix("ERROR: ")


def _only_submission(working: Path) -> Path:
    """The submission, if nothing else was written beside it."""
    found = sorted(str(path.relative_to(working)) for path in working.rglob("*") if path.is_file())
    if found != [SUBMISSION_FILE]:
        raise SubmissionError(
            f"the notebook must write {SUBMISSION_FILE} into its working folder and nothing else; "
            f"found {', '.join(found) or 'nothing'}."
        )
    return working / SUBMISSION_FILE


def _compare(competition: CompetitionConfig, ours: Path, theirs: Path) -> None:
    """Hold the notebook's predictions against those made here, id by id, in spreads of the training labels.

    Raises:
        SubmissionError: if one differs by more than the tolerance.
    """
    train = read_text_table(competition.train)
    here = read_table(theirs, [competition.id]).set_index(competition.id)
    there = read_table(ours, [competition.id]).set_index(competition.id).loc[here.index]
    largest = {}
    for target, column in zip(competition.targets, competition.columns_in_sample, strict=True):
        spread = float(np.nanstd(parse_numbers(train, target, competition.id, competition.train))) or 1.0
        largest[target] = float(np.abs(there[column] - here[column]).max()) / spread
    worst = max(largest, key=lambda target: largest[target])
    if not largest[worst] <= TOLERANCE:
        raise SubmissionError(
            f"the notebook must predict what ./run.sh predict predicts, to {TOLERANCE:g} of each target's spread; "
            f"{worst!r} differs by {largest[worst]:.3g}. Make the pack again."
        )
    _say("difference", f"at most {largest[worst]:.2g} of a target's spread ({worst}); allowed {TOLERANCE:g}")
