"""A stage that a budget cut is in no file and no score, is named, and comes back when it is finished."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from competition.errors import DataError
from competition.paths import PROJECT, Paths
from submissions import blend, report, stack, write
from submissions.run import open_run
from tests.submissions.fakes import fake_competition, prepare_and_fake_jobs

SENTENCE = "poor: 2 of 3 jobs finished within the budget of 2 h; left out."
FILES = ["blend.csv", "stack.csv", "submission.csv"]


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """A competition of which one job of the stage `poor` is not finished."""
    path = fake_competition(tmp_path)
    (prepare_and_fake_jobs(path).of("poor")[1].folder / "report.json").unlink()
    return path


def run_steps(monkeypatch: pytest.MonkeyPatch, path: Path, *options: str) -> dict[str, bytes]:
    """The last four steps as `full` starts them; the submission files."""
    monkeypatch.setattr(sys, "argv", ["", str(path), *options])
    for step in (blend, stack, write, report):
        step.main()
    paths = Paths.of(str(path))
    return {name: (paths.run(paths.latest_run.read_text().strip()) / name).read_bytes() for name in FILES}


def test_a_cut_stage_is_in_no_column_and_no_manifest_and_the_report_says_why(
    cut: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_steps(monkeypatch, cut, "--budget", "2h")
    run = open_run(str(cut), budget=7200)
    assert run.columns.names == ["fair", "good"]
    manifest = run.stored
    assert [stage["name"] for stage in manifest["stages"]] == ["fair", "good"] == sorted(manifest["config"]["stages"])
    page = (run.paths.report / "report.md").read_text()
    assert SENTENCE in page.splitlines()
    assert SENTENCE in capsys.readouterr().out.splitlines()
    assert "| poor" not in page
    assert "stage poor" not in page


def test_the_run_is_that_of_a_yaml_without_the_stage(cut: Path) -> None:
    run = open_run(str(cut), budget=7200)
    stages = {name: {"kind": "lightgbm", "num_leaves": leaves} for name, leaves in (("good", 4), ("fair", 5))}
    without = open_run(str(fake_competition(cut.parent, stages=stages)))
    assert (run.name, run.made_from) == (without.name, without.made_from)


def test_without_a_budget_an_unfinished_stage_is_an_error(cut: Path) -> None:
    with pytest.raises(DataError, match="every job must be finished"):
        open_run(str(cut))


def test_a_finished_stage_that_has_not_predicted_this_test_table_is_cut_too(cut: Path) -> None:
    job = open_run(str(cut), budget=1).plan.of("fair")[0]
    next(job.folder.glob("test/*.parquet")).unlink()
    run = open_run(str(cut), budget=1)
    assert list(run.config.stages) == ["good"]
    assert run.left_out[0] == "fair: 2 of 3 jobs finished within the budget of 1 s; left out"


def test_a_stage_whose_refit_is_not_finished_is_cut_too(tmp_path: Path) -> None:
    stages = {
        "fair": {"kind": "lightgbm", "num_leaves": 5},
        "good": {"kind": "lightgbm", "num_leaves": 4, "final_fit": "refit"},
    }
    path = fake_competition(tmp_path, stages=stages)
    (prepare_and_fake_jobs(path).of("good")[-1].folder / "report.json").unlink()
    run = open_run(str(path), budget=1)
    assert list(run.config.stages) == ["fair"]
    assert run.left_out == ("good: 3 of 4 jobs finished within the budget of 1 s; left out",)


def test_a_seed_that_is_not_finished_is_cut_and_its_stage_stands_with_the_others(tmp_path: Path) -> None:
    fair = {"kind": "lightgbm", "num_leaves": 5}
    path = fake_competition(tmp_path, stages={"fair": {**fair, "seeds": [3, 1, 2]}})
    (prepare_and_fake_jobs(path).of("fair")[4].folder / "report.json").unlink()
    run = open_run(str(path), budget=1)
    assert run.left_out == ("fair, seed 2: 2 of 3 jobs finished within the budget of 1 s; left out",)
    assert run.columns.names == ["fair"]
    of_two_seeds = open_run(str(fake_competition(tmp_path, stages={"fair": {**fair, "seeds": [3, 1]}})))
    assert (run.name, run.made_from) == (of_two_seeds.name, of_two_seeds.made_from)


def test_the_run_of_all_stages_follows_and_equals_one_that_never_had_a_budget(
    cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_budget = run_steps(monkeypatch, cut, "--budget", "2h")
    prepare_and_fake_jobs_again(cut)
    later = run_steps(monkeypatch, cut)
    assert later != with_budget
    assert "left out" not in (Paths.of(str(cut)).report / "report.md").read_text()
    monkeypatch.setenv("WORK_DIR", str(tmp_path / "never"))
    prepare_and_fake_jobs(cut)
    assert run_steps(monkeypatch, cut) == later


def prepare_and_fake_jobs_again(path: Path) -> None:
    shutil.rmtree(Paths.of(str(path)).root / "models")
    prepare_and_fake_jobs(path)


def test_no_finished_stage_is_one_sentence(cut: Path) -> None:
    for job in open_run(str(cut), budget=1).plan.jobs:
        (job.folder / "report.json").unlink()
    with pytest.raises(
        DataError, match=r"all jobs of a seed within the budget of 1 s, and none did \(good: 0 of 3 jobs; fair"
    ):
        open_run(str(cut), budget=1)


def test_a_budget_that_is_none_ends_the_first_step(cut: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "submissions.check", str(cut), "--budget", "soon"],
        cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "ConfigError: --budget must be a time above 0: hours, minutes or seconds such as 2h, 90m, 30s or 30; "
        "found 'soon'."
    ]
