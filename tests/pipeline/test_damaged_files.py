"""Files of an earlier process that a power cut, a full disk or a broken copy has damaged."""

import random
import re
import shutil

import pytest

from pipeline.commands import main
from tests.conftest import leave_figures_blank, mixed_tables, run_jobs_in_process, write_competition

FEATURES = "def lengths(table):\n    return {'length': table['note'].str.len()}\n"
STAGES = {
    "trees": {"kind": "lightgbm", "n_bits": 64, "max_trees": 5},
    "ridge": {"kind": "sklearn", "estimator": "sklearn.linear_model.Ridge", "features": ["morgan"]},
}
WAYS = {
    "cut": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
    "random": lambda content: random.Random(0).randbytes(len(content)),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A competition, and its outputs after a run with a budget."""
    folder = tmp_path_factory.mktemp("sound")
    (folder / "mine.py").write_text(FEATURES)
    train, test = mixed_tables()
    competition = {"features": "mine.py:lengths", "targets": ["lumo"]}
    path = write_competition(folder, train, test, competition=competition, stages=STAGES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORK_DIR", str(folder / "work"))
        leave_figures_blank(patch)
        run_jobs_in_process(patch)
        train_all(path)
    return path, folder / "work"


@pytest.fixture
def done(sound, tmp_path, jobs_in_process):
    """The competition, and a copy of its outputs."""
    path, work = sound
    return path, shutil.copytree(work, tmp_path / "work")


def train_all(path):
    main(
        ["full", str(path), "--budget", "20m", "--set", "submissions.stack=false", "--set", "folds.n_folds=2"]
    )


def kinds_of(work):
    """Name of a file without numbers, digests, and names of stages and candidates -> the files with this name."""
    files = {}
    for file in sorted(work.rglob("*")):
        if file.is_file() and file.suffix != ".lock":
            name = re.sub(r"[0-9a-f]{12,}|\d+", "*", str(file.relative_to(work)))
            name = re.sub(r"(?<=/)(models|stages|candidates)/\w+", r"\1/*", name)
            files.setdefault(name, []).append(file)
    return files


def damage(work, kind, number, way):
    """Damage one file of a kind."""
    files = kinds_of(work)[kind]
    file = files[number % len(files)]
    file.write_bytes(WAYS[way](file.read_bytes()))


@pytest.mark.parametrize("shift", range(len(WAYS)))
def test_a_run_with_damaged_files_of_every_kind_ends_with_the_same_submission(done, shift):
    path, work = done
    before = (work / path.stem / "submission.csv").read_bytes()
    for number, kind in enumerate(kinds_of(work)):
        damage(work, kind, number, list(WAYS)[(number + shift) % len(WAYS)])
    train_all(path)
    assert (work / path.stem / "submission.csv").read_bytes() == before


@pytest.mark.slow
def test_a_run_with_one_damaged_file_ends_with_the_same_submission(sound, done):
    """Takes about 1.5 s for each kind of file and way, on a quiet machine."""
    path, work = done
    before = (work / path.stem / "submission.csv").read_bytes()
    for number, kind in enumerate(kinds_of(work)):
        for way in WAYS:
            shutil.rmtree(work)
            shutil.copytree(sound[1], work)
            damage(work, kind, number, way)
            train_all(path)
            assert (work / path.stem / "submission.csv").read_bytes() == before, (kind, way)
