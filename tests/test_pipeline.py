"""The whole path as a user types it: `./run.sh smoke`, again, killed, in a given time, and on a new test
table.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time

import pandas as pd
import pytest

from core.files import PROJECT
from tests.models.jobs.common import STAGES, processes_in

RUN = str(PROJECT / "run.sh")
DATA = PROJECT / "competition" / "data" / "smoke"
CHECK_SECONDS = 25.0
"""Seconds after which checking the tables has ended on a busy machine; a budget below that is over by then.
"""
SMALL_STAGES = """
stages:
  lightgbm: {kind: lightgbm, n_bits: 64, max_trees: 20}
  gnn: {kind: gnn, width: 16, hidden_width: 16, epochs: 4, batch_size: 16}
submissions: {trials: 4}
"""


def run(work, *arguments, cwd=None, status=0):
    done = subprocess.run(
        [RUN, *arguments], env=environment(work), cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    return done


def environment(work):
    return {**os.environ, "WORK_DIR": str(work), "HF_HUB_OFFLINE": "1"}


def submission(work):
    folder = work / "smoke" / "submissions"
    return folder / (folder / "latest").read_text().strip() / "submission.csv"


def small_competition(folder):
    """The smoke competition as a user's own, with two small stages: a YAML and tables in a folder."""
    folder.mkdir()
    text = (PROJECT / "competition" / "configs" / "smoke.yaml").read_text().replace("../data/smoke/", "")
    (folder / "smoke.yaml").write_text(text[: text.index("stages:")] + SMALL_STAGES)
    for file in DATA.glob("*.csv"):
        shutil.copy(file, folder)
    return folder / "smoke.yaml"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small competition, the products of one undisturbed run, and what it printed."""
    folder = tmp_path_factory.mktemp("small")
    path = small_competition(folder / "own")
    return path, folder / "work", run(folder / "work", "full", str(path), "--workers", "1").stdout


def jobs_of(work):
    return {path: path.stat().st_mtime_ns for path in work.rglob("models/**/report.json")}


def require_the_same_again(work, printed, n_stages, *command):
    """A run has a submission that fits the sample, and a second one trains nothing and changes no byte."""
    assert "submission.csv" in printed.splitlines()[-2]
    content, jobs = submission(work).read_bytes(), jobs_of(work)
    sample, written = pd.read_csv(DATA / "sample_submission.csv"), pd.read_csv(submission(work))
    assert list(written.columns) == list(sample.columns)
    assert list(written["id"]) == list(sample["id"])
    assert written.notna().all().all()
    assert len(jobs) == 3 * n_stages
    assert run(work, *command).stdout.count("3 of 3 jobs are finished") == n_stages
    assert jobs_of(work) == jobs
    assert submission(work).read_bytes() == content


def test_a_run_ends_with_a_submission_that_fits_the_sample_and_a_second_one_trains_nothing(small):
    path, work, printed = small
    require_the_same_again(work, printed, 2, "full", str(path), "--workers", "1")


@pytest.mark.slow
def test_smoke_trains_every_kind_of_network_and_a_second_one_nothing(tmp_path):
    require_the_same_again(tmp_path, run(tmp_path, "smoke").stdout, 4, "smoke")


def test_a_budget_is_kept_and_ends_with_a_submission_that_a_repeat_gives_again(small, tmp_path):
    """The baseline, two folds of each of five seeds, and a network of two epochs: everything fits."""
    path, work = small[0], tmp_path / "work"
    in_time = "full", str(path), "--budget", "240s", "--workers", "1"
    in_time += "--set", "folds.n_folds=2", "--set", "stages.gnn.epochs=2"
    before = time.monotonic()
    output = run(work, *in_time).stdout
    assert time.monotonic() - before < 240
    assert output.index("submission of baseline, expect ") < output.index("## Scores")
    final = submission(work).parent / "smoke.yaml"
    assert [path.name for path in work.glob("smoke/submissions/*/")] == [final.parent.name]
    first, jobs = submission(work).read_bytes(), list(work.rglob("models/**/report.json"))
    assert (work / "smoke" / "submission.csv").read_bytes() == first
    run(work, *in_time)
    assert submission(work).read_bytes() == first
    assert list(work.rglob("models/**/report.json")) == jobs
    run(work, "predict", str(final), "--test", str(DATA / "test.csv"), "--out", "out.csv", cwd=tmp_path)
    assert (tmp_path / "out.csv").read_bytes() == first


@pytest.mark.slow
@pytest.mark.parametrize("seconds", sorted(random.Random(0).sample(range(4, 90), 20)))
def test_whenever_the_time_is_over_the_submission_of_what_is_finished_is_there(seconds, tmp_path):
    path, work = small_competition(tmp_path / "own"), tmp_path / "work"
    hangs = f"  hangs: {{kind: '{STAGES}:Failing', how: hangs, fold: 0}}\n"
    path.write_text(path.read_text().replace("  gnn:", f"{hangs}  gnn:"))
    before = time.monotonic()
    command = [RUN, "full", str(path), "--budget", f"{seconds}s"]
    done = subprocess.run(command, env=environment(work), capture_output=True, text=True, check=False)
    assert time.monotonic() - before < max(seconds, CHECK_SECONDS)
    assert processes_in(work) == []
    finished = list(work.glob("smoke/models/lightgbm/*/seed_0/fold_*/report.json"))
    # Whether the stage that hangs is left out for the time or fails depends on when its other folds end.
    n_folds = len(list(work.glob("smoke/models/*/*/seed_0/fold_*/report.json")))
    # Finished folds of a stage are submitted, and a budget that leaves no time for training is refused.
    expected = (0, 3) if len(finished) == 3 else (3,) if n_folds else (1, 2)
    assert done.returncode in expected, done.stderr
    if len(finished) == 3:
        assert len(pd.read_csv(work / "smoke" / "submission.csv")) == len(pd.read_csv(DATA / "test.csv"))
        assert "| hangs " in done.stdout


def test_saved_weights_predict_the_test_table_and_new_rows_without_the_training_table(small, tmp_path):
    work, folder = tmp_path / "work", tmp_path / "own"
    shutil.copytree(small[1], work)
    path = small_competition(folder)
    (work / "smoke" / "yaml").write_text(f"{path}\n")
    (folder / "train.csv").unlink()
    shutil.rmtree(work / "smoke" / "prepared")
    run(work, "predict", str(path), "--test", "test.csv", "--out", "out.csv", cwd=folder)
    assert (folder / "out.csv").read_bytes() == submission(work).read_bytes()
    rows = pd.read_csv(folder / "test.csv").iloc[[7, 3]]
    rows.assign(id=["new 1", "new 2"]).to_csv(folder / "new.csv", index=False)
    run(work, "predict", str(path), "--test", "new.csv", "--out", "new_out.csv", cwd=folder)
    new, old = pd.read_csv(folder / "new_out.csv"), pd.read_csv(submission(work)).iloc[[7, 3]]
    assert list(new["id"]) == ["new 1", "new 2"]
    assert abs(new.drop(columns="id").to_numpy() - old.drop(columns="id").to_numpy()).max() < 1e-5


MOMENTS = [(i + random.Random(f"moment {i}").random()) / 10 for i in range(10)]
"""Shares of the time of an undisturbed run, one in each tenth of it."""


@pytest.mark.parametrize(
    "share",
    [pytest.param(share, marks=[] if i == 8 else pytest.mark.slow) for i, share in enumerate(MOMENTS)],
)
def test_a_run_killed_at_any_moment_ends_with_the_same_bytes(small, tmp_path, share):
    """In another folder and without the answers, which change no byte either."""
    path, work = small_competition(tmp_path / "own"), tmp_path / "work"
    (path.parent / "answers.csv").unlink()
    times = [file.stat().st_mtime for file in small[1].rglob("*") if file.is_file()]
    out = subprocess.DEVNULL
    command = [RUN, "full", str(path), "--workers", "1"]
    process = subprocess.Popen(command, env=environment(work), stdout=out, stderr=out, start_new_session=True)
    time.sleep(share * (max(times) - min(times) + 3))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    run(work, "full", str(path), "--workers", "1")
    assert submission(work).read_bytes() == submission(small[1]).read_bytes()


@pytest.mark.parametrize(
    "reasons",
    [
        {"raises": "error", "killed": "killed"},
        pytest.param(
            {"hangs": "timeout", "segfault": "killed", "exits": "error", "unpicklable": "error"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_stages_that_fail_are_left_out_by_name_and_change_no_byte_of_the_submission(reasons, small, tmp_path):
    path, work = small_competition(tmp_path / "own"), tmp_path / "work"
    failing = "".join(f"  {how}: {{kind: '{STAGES}:Failing', how: {how}}}\n" for how in reasons)
    path.write_text(path.read_text().replace("submissions:", f"{failing}submissions:"))
    lines = run(work, "full", str(path), "--job-timeout", "60", status=3).stdout.splitlines()
    assert submission(work).read_bytes() == submission(small[1]).read_bytes()
    assert (work / "smoke" / "submission.csv").read_bytes() == submission(work).read_bytes()
    end = lines[lines.index("## Left out") : lines.index("## Scores")]
    table = [[cell.strip() for cell in line.split("|")] for line in end if line.startswith("| ")][1:]
    assert {cells[1]: cells[3] for cells in table} == reasons
    with_traceback = [line.split()[2] for line in end if line.startswith("traceback of ")]
    assert with_traceback == [f"{how}:" for how, reason in sorted(reasons.items()) if reason == "error"]


def test_mistakes_in_the_yaml_end_the_run_in_seconds_and_leave_products_intact(small, tmp_path):
    path = small_competition(tmp_path / "own")
    path.write_text(
        path.read_text().replace("epochs: 4", "epochs: many").replace("metric: r2", "metric: rsquared")
    )
    before = submission(small[1]).read_bytes()
    done = run(small[1], "full", str(path), status=2)
    assert "stages.gnn.epochs: must be a valid integer" in done.stderr
    assert "competition.metric: must be one of" in done.stderr
    assert "Traceback" not in done.stderr
    assert submission(small[1]).read_bytes() == before
