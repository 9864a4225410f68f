"""The whole path as a user types it: `./run.sh smoke`, again, killed, with other seeds, and on a new test table."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from competition.paths import PROJECT

RUN = str(PROJECT / "run.sh")


def run(work: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RUN, *arguments], env=environment(work), cwd=cwd, capture_output=True, text=True, check=False
    )


def environment(work: Path) -> dict[str, str]:
    return {**os.environ, "WORK_DIR": str(work), "HF_HUB_OFFLINE": "1"}


def submission(work: Path, name: str = "smoke") -> Path:
    folder = work / name / "submissions"
    return folder / (folder / "latest").read_text().strip() / "submission.csv"


def competition_copy(folder: Path) -> Path:
    """The smoke competition as a user's own: a YAML and tables in a folder."""
    folder.mkdir()
    data = PROJECT / "competition" / "data" / "smoke"
    text = (PROJECT / "competition" / "configs" / "smoke.yaml").read_text().replace("../data/smoke/", "")
    (folder / "smoke.yaml").write_text(text)
    for file in data.glob("*.csv"):
        shutil.copy(file, folder)
    return folder / "smoke.yaml"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Products of one undisturbed run."""
    work = tmp_path_factory.mktemp("undisturbed")
    done = run(work, "smoke")
    assert done.returncode == 0, done.stderr
    assert "submission.csv" in done.stdout.splitlines()[-1]
    return work


def test_a_run_ends_with_a_submission_that_fits_the_sample(undisturbed: Path) -> None:
    sample = pd.read_csv(PROJECT / "competition" / "data" / "smoke" / "sample_submission.csv")
    written = pd.read_csv(submission(undisturbed))
    assert list(written.columns) == list(sample.columns)
    assert list(written["id"]) == list(sample["id"])
    assert written.notna().all().all()
    for name in ("blend.csv", "stack.csv"):
        assert (submission(undisturbed).parent / name).exists()


def test_a_second_run_trains_nothing_and_changes_no_byte(undisturbed: Path, tmp_path: Path) -> None:
    work = tmp_path / "copy"
    shutil.copytree(undisturbed, work)
    jobs = {path: path.stat().st_mtime_ns for path in work.rglob("models/**/report.json")}
    done = run(work, "smoke")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 of 3 jobs are finished") == 4
    assert {path: path.stat().st_mtime_ns for path in work.rglob("models/**/report.json")} == jobs
    assert submission(work).read_bytes() == submission(undisturbed).read_bytes()


def test_a_budget_leaves_a_stage_out_and_a_run_without_one_brings_it_back(undisturbed: Path, tmp_path: Path) -> None:
    work = tmp_path / "copy"
    shutil.copytree(undisturbed, work)
    next(work.glob("smoke/models/gnn/*/seed_0/fold_1/report.json")).unlink()
    done = run(work, "smoke", "--budget", "0.01")
    assert done.returncode == 0, done.stderr
    assert "stage gnn  seed 0  2 of 3 jobs finished within the budget of 0.01 s; 1 not started" in done.stdout
    assert "gnn: 2 of 3 jobs finished within the budget of 0.01 s; left out." in done.stdout
    assert submission(work).parent.name != submission(undisturbed).parent.name
    cut = submission(work).read_bytes()
    test = PROJECT / "competition" / "data" / "smoke" / "test.csv"
    assert run(work, "predict", "smoke", "--test", str(test), "--out", "out.csv", cwd=tmp_path).returncode == 0
    assert (tmp_path / "out.csv").read_bytes() == cut

    done = run(work, "smoke")
    assert done.returncode == 0, done.stderr
    assert submission(work).read_bytes() == submission(undisturbed).read_bytes() != cut


def test_answers_change_no_byte_and_training_rows_are_not_needed_to_predict(undisturbed: Path, tmp_path: Path) -> None:
    """Without answers.csv, in another folder, from scratch: the same bytes. Then predict with train.csv gone."""
    config = competition_copy(tmp_path / "own")
    (config.parent / "answers.csv").unlink()
    work = tmp_path / "work"
    done = run(work, "full", str(config))
    assert done.returncode == 0, done.stderr
    assert submission(work).read_bytes() == submission(undisturbed).read_bytes()

    (config.parent / "train.csv").unlink()
    (work / "smoke" / "prepared" / "train.parquet").unlink()
    done = run(work, "predict", str(config), "--test", "test.csv", "--out", "out.csv", cwd=config.parent)
    assert done.returncode == 0, done.stderr
    assert (config.parent / "out.csv").read_bytes() == submission(work).read_bytes()

    rows = pd.read_csv(config.parent / "test.csv").iloc[[7, 3]]
    rows.assign(id=["new 1", "new 2"]).to_csv(config.parent / "new.csv", index=False)
    done = run(work, "predict", str(config), "--test", "new.csv", "--out", "new_out.csv", cwd=config.parent)
    assert done.returncode == 0, done.stderr
    new = pd.read_csv(config.parent / "new_out.csv")
    assert list(new["id"]) == ["new 1", "new 2"]
    old = pd.read_csv(submission(work)).iloc[[7, 3]]
    assert abs(new.drop(columns="id").to_numpy() - old.drop(columns="id").to_numpy()).max() < 1e-5


def test_another_seed_gives_another_submission(undisturbed: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "smoke", "--seed", "1")
    assert done.returncode == 0, done.stderr
    assert submission(tmp_path).read_bytes() != submission(undisturbed).read_bytes()


def killed_then_resumed(work: Path, seconds: float) -> None:
    """Start a run, kill it and all it started after some seconds, and let the same command finish."""
    process = subprocess.Popen(
        [RUN, "smoke"],
        env=environment(work),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = run(work, "smoke")
    assert done.returncode == 0, done.stderr


SHARD = ["--shard", "2/2"]


@pytest.mark.slow
def test_two_runs_at_once_on_one_folder_both_end_with_the_same_bytes(undisturbed: Path, tmp_path: Path) -> None:
    command = [RUN, "smoke", "--workers", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    runs = [
        subprocess.Popen([*command, *more], env=environment(tmp_path), **pipes) for more in ([], ["--shard", "2/2"])
    ]
    for process in runs:
        said, errors = process.communicate()
        assert process.returncode == 0, errors
        assert "submission.csv" in said.splitlines()[-1]
    assert submission(tmp_path).read_bytes() == submission(undisturbed).read_bytes()


MOMENTS = [random.Random(f"moment {i}").uniform(0.05, 0.95) for i in range(10)]
"""Shares of the time of an undisturbed run."""


@pytest.fixture(scope="module")
def seconds_of_a_run(undisturbed: Path) -> float:
    """From the first to the last file of the undisturbed run."""
    times = [path.stat().st_mtime for path in undisturbed.rglob("*") if path.is_file()]
    return max(times) - min(times) + 3


@pytest.mark.parametrize(
    "share", [*MOMENTS[:3], *(pytest.param(share, marks=pytest.mark.slow) for share in MOMENTS[3:])]
)
def test_a_run_killed_at_any_moment_ends_with_the_same_bytes(
    undisturbed: Path, seconds_of_a_run: float, tmp_path: Path, share: float
) -> None:
    killed_then_resumed(tmp_path, share * seconds_of_a_run)
    assert submission(tmp_path).read_bytes() == submission(undisturbed).read_bytes()


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ("epochs: 4", "epochs: many", "stages.gnn.epochs: Input should be a valid integer"),
        ("metric: r2", "metric: rsquared", "competition.metric: must be one of"),
    ],
)
def test_a_mistake_in_the_yaml_ends_the_run_in_seconds_and_leaves_products_whole(
    undisturbed: Path, tmp_path: Path, right: str, wrong: str, words: str
) -> None:
    config = competition_copy(tmp_path / "own")
    config.write_text(config.read_text().replace(right, wrong))
    before = submission(undisturbed).read_bytes()
    done = run(undisturbed, "full", str(config))
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert submission(undisturbed).read_bytes() == before
