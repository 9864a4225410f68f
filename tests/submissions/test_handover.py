"""The handover names everything that is needed to make the submission again, and is made from what was written down."""

from __future__ import annotations

from dataclasses import replace

import pytest

from competition.files import read_json, sha256_of, write_json
from competition.revision import revision
from models.training.machine import machine
from submissions.handover import handover
from submissions.run import Run
from tests.submissions.fakes import fake_competition, prepare_and_fake_jobs, run_steps


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORK_DIR", str(folder / "work"))
        path = fake_competition(folder)
        prepare_and_fake_jobs(path)
        return run_steps(path)


@pytest.fixture(autouse=True)
def _work(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORK_DIR", str(run.config.competition.train.parent / "work"))


def test_files_seeds_times_and_steps_are_those_of_the_run(run: Run) -> None:
    folder, text = run.config.competition.train.parent, handover(run)
    for file in (folder / "train.csv", folder / "test.csv", run.folder / "submission.csv"):
        assert f"| `{file.name}` | {sha256_of(file)} |" in text
    assert f"revision {revision()}" in text
    assert "./run.sh train mixed.yaml " in text and "./run.sh predict mixed.yaml " in text
    assert "| good | lightgbm | 0 | 3 | 4.5 s |" in text  # three jobs of 1.5 s
    assert "- 9 jobs: not written down" in text
    assert "## Outside data\n\n- none" in text and f"- python {run.stored['versions']['python']}\n" in text
    assert str(folder) not in text and "First take out" not in text


def test_what_a_budget_left_out_is_to_be_taken_out_first(run: Run) -> None:
    text = handover(replace(run, left_out=("gnn: 1 of 3 jobs finished within the budget of 1 min; left out",)))
    assert "First take out of `mixed.yaml` what this run left out:\n\n- gnn: 1 of 3 jobs" in text


def test_jobs_of_two_machines_are_counted_apart_and_lost_raw_files_are_said(run: Run) -> None:
    for i, job in enumerate(run.plan.jobs):
        gpu = {"gpu": "T4"} if i == 0 else {}
        write_json(
            job.folder / "report.json", {**read_json(job.folder / "report.json"), "machine": {**machine(), **gpu}}
        )
    run.config.competition.train.unlink()
    text = handover(run)
    assert "| `train.csv` | not there any more |" in text
    assert "- 8 jobs: cores " in text and "- 1 jobs: cores " in text
    assert text.count(", gpu T4") == 1
