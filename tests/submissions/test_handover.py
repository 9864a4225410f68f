"""The handover names everything that is needed to make the submission again, and is made from what was written down."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from competition.files import read_json, sha256_of, write_json
from competition.revision import revision
from models.training.machine import machine
from submissions.findings import gather
from submissions.handover import handover
from tests.submissions.fakes import fake_competition, prepare_and_fake_jobs, run_steps


def test_files_seeds_times_and_steps_are_those_of_the_run(tmp_path: Path) -> None:
    path = fake_competition(tmp_path)
    prepare_and_fake_jobs(path)
    run = run_steps(path)
    text = handover(gather(run))
    for file in (tmp_path / "train.csv", tmp_path / "test.csv", run.folder / "submission.csv"):
        assert f"| `{file.name}` | {sha256_of(file)} |" in text
    assert f"revision {revision()}" in text
    assert f"./run.sh train {path.name} " in text and f"./run.sh predict {path.name} " in text
    assert "| good | lightgbm | 0 | 3 | 4.5 s |" in text  # three jobs of 1.5 s
    assert "9 jobs: not written down (jobs of earlier code)" in text
    assert str(tmp_path) not in text and str(run.paths.root) not in text


def test_what_a_budget_left_out_is_to_be_taken_out_first(tmp_path: Path) -> None:
    path = fake_competition(tmp_path)
    prepare_and_fake_jobs(path)
    run = replace(run_steps(path), left_out=("gnn: 1 of 3 jobs finished within the budget of 1 min; left out",))
    text = handover(gather(run))
    assert f"First take out of `{path.name}` what this run left out:\n\n- gnn: 1 of 3 jobs" in text
    assert "take out" not in handover(gather(replace(run, left_out=())))


def test_jobs_of_two_machines_are_counted_apart_and_lost_raw_files_are_said(tmp_path: Path) -> None:
    path = fake_competition(tmp_path)
    prepare_and_fake_jobs(path)
    run = run_steps(path)
    for i, job in enumerate(run.plan.jobs):
        gpu = {"gpu": "T4"} if i == 0 else {}
        report = {**read_json(job.folder / "report.json"), "machine": {**machine(), **gpu}}
        write_json(job.folder / "report.json", report)
    (tmp_path / "train.csv").unlink()
    text = handover(gather(run))
    assert "| `train.csv` | not there any more |" in text
    assert text.count("GiB, no GPU") == 1 and "8 jobs: " in text
    assert "1 jobs: " in text and "GiB, T4" in text
