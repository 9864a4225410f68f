"""Several processes on one folder: each job is trained once while its owner lives, and the bytes are the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from competition.files import read_json, sha256_of
from competition.paths import PROJECT, Paths
from models.jobs.plan import Job, Plan
from models.jobs.selection import share
from tests.conftest import mixed_tables, write_competition

STAGE = PROJECT / "tests" / "models" / "counted_stage.py"
N_JOBS = 12


def competition(folder: Path, seconds: float) -> Path:
    """Two stages with two seeds and three folds; each job takes some seconds and writes a line to folder/log."""
    settings = {"log": str(folder / "log"), "seconds": seconds}
    stage = {"kind": "custom", "code": f"{STAGE}:Counted", "settings": settings, "seeds": [0, 1]}
    return write_competition(folder, *mixed_tables(), stages={"a": stage, "b": stage})


def start(path: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "models.jobs.train", str(path), "--prepare", "--workers", "2", *options]
    return subprocess.Popen(
        command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def ended(process: subprocess.Popen[str], status: int = 0) -> str:
    """What a process said; it must end with this status."""
    said, errors = process.communicate(timeout=120)
    assert process.returncode == status, errors
    return said if status == 0 else errors


def trained(folder: Path) -> Counter[str]:
    """How often each job was begun, by its seed."""
    return Counter(line.split()[0] for line in (folder / "log").read_text().splitlines())


def products() -> dict[str, str]:
    """Digests of all that is published; of a report, what it lists."""
    root = Paths("mixed").root / "models"
    assert not [path for path in root.rglob("*") if path.name[0] == "."]
    return {
        str(path.relative_to(root)): sha256_of(path) if path.name != "report.json" else str(read_json(path)["files"])
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_a_second_driver_is_told_and_the_jobs_of_a_killed_one_are_trained_by_the_next(tmp_path: Path) -> None:
    path = competition(tmp_path, 1.5)
    killed = start(path)
    while not (tmp_path / "log").exists() or sum(trained(tmp_path).values()) < 2:
        time.sleep(0.05)
    assert f"in use (train on {os.uname().nodename}, process {killed.pid})" in ended(start(path), 2)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    ended(start(path))
    assert len([name for name in products() if name.endswith("report.json")]) == N_JOBS


def test_each_shard_trains_its_share_and_ends(tmp_path: Path) -> None:
    path = competition(tmp_path, 0.0)
    said = [ended(shard) for shard in [start(path, "--shard", f"{i}/3") for i in (2, 1, 3)]]
    assert [text.count("valid rmse") for text in said] == [4, 4, 4]
    assert trained(tmp_path) == dict.fromkeys(trained(tmp_path), 1)
    assert len(trained(tmp_path)) == N_JOBS
    assert len([name for name in products() if name.endswith("report.json")]) == N_JOBS


def jobs(n: int) -> list[Job]:
    return [Job("a", "key", 0, fold, Path(f"/nowhere/fold_{fold}")) for fold in range(n)]


def test_shards_are_the_same_whatever_is_finished_and_have_each_job_once(tmp_path: Path) -> None:
    plan = Plan(jobs(7), {}, 7, "test")
    shares = [[job.fold for job in share(plan, i, 3, alone=True).jobs] for i in (1, 2, 3)]
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]
    assert [job.fold for job in share(plan, 2, 3, alone=False).jobs] == [1, 4, 0, 2, 3, 5, 6]


def test_a_shard_does_what_its_jobs_need_where_no_one_else_does() -> None:
    folds = jobs(3)
    refit = Job("a", "key", 0, -2, Path("/nowhere/fold_all"), needs=tuple(folds))
    later = Job("b", "key", 0, 0, Path("/nowhere/b"), needs=(refit,))
    plan = Plan([*folds, refit, later], {}, 3, "test")
    assert share(plan, 4, 5, alone=True).jobs == [refit, *folds]
    assert share(plan, 5, 5, alone=True).jobs == [later, *folds, refit]


@pytest.mark.parametrize("shard", ["0/4", "5/4", "a/b", "1", "1/0", "-1/4", "1/4/2"])
def test_a_shard_that_is_none_is_one_sentence_and_2(tmp_path: Path, shard: str) -> None:
    said = ended(start(tmp_path / "any.yaml", f"--shard={shard}"), 2)
    assert said == f"ConfigError: --shard takes I/N, such as 1/4 to 4/4 for four machines; found {shard!r}.\n"


def test_a_full_disk_is_one_sentence_and_what_is_finished_stays(tmp_path: Path) -> None:
    (tmp_path / "full.py").write_text(
        "from pathlib import Path\n\n\nclass Full:\n    def __init__(self, settings, context):\n        pass\n\n"
        "    def fit(self, train, valid, folder):\n        Path('/dev/full').write_text('weights')\n\n"
        "    def predict(self, rows, folder):\n        raise AssertionError\n"
    )
    trees = {"kind": "lightgbm", "n_bits": 64, "max_trees": 5}
    train, test = mixed_tables()
    stages = {"trees": trees, "full": {"kind": "custom", "code": str(tmp_path / "full.py") + ":Full"}}
    path = write_competition(tmp_path, train, pd.DataFrame(test), stages=stages)
    said = ended(start(path, "--workers", "1"), 2)
    work = tmp_path / "work"
    assert said.startswith(f"DataError: the folder for products, {work}, takes no new files ([Errno 28] No space left")
    assert said.count("\n") == 1
    assert len(list(Paths("mixed").root.glob("models/trees/*/*/*/report.json"))) == 3


@pytest.mark.parametrize(
    ("mount", "said"),
    [
        ("mount -t tmpfs -o size=200k none $WORK_DIR", "[Errno 28] No space left"),
        ("mount -t tmpfs -o ro none $WORK_DIR", "[Errno 30] Read-only file system"),
    ],
)
def test_a_folder_that_takes_no_files_is_one_sentence(tmp_path: Path, mount: str, said: str) -> None:
    """A real one, in a name space of its own; where the machine allows none, /dev/full above has to do."""
    stages = {"trees": {"kind": "lightgbm", "n_bits": 64}}
    path = write_competition(tmp_path, *mixed_tables(), stages=stages)
    (tmp_path / "work").mkdir()
    train = f"{sys.executable} -m models.jobs.train {path} --prepare --workers 1"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", f"{mount} || exit 77; {train}"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode in (1, 77) and "Error" not in done.stderr:
        pytest.skip(f"no name spaces here: {done.stderr}")
    assert done.returncode == 2, done.stderr
    assert f"the folder for products, {tmp_path / 'work'}, takes no new files ({said}" in done.stderr
    assert done.stderr.count("\n") == 1
