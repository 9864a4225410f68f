"""`full`: what fails is left out of the submission and named, and what is trained again is announced."""

import re
from pathlib import Path
from typing import Any

import pytest

from core.errors import NothingToSubmit
from core.paths import Paths
from models.jobs.budget import Budget
from models.jobs.scheduler import JobResult
from pipeline import commands
from pipeline.full import full
from submissions.run import latest_run
from tests.pipeline.made import options, small

MEAN = """import numpy as np
from models.api import Stage

class Mean(Stage):
    def fit(self, train, folder, context):
        np.save(folder / "mean.npy", np.nanmean(train.y, axis=0))

    def predict(self, rows, folder, context):
        return np.tile(np.load(folder / "mean.npy"), (len(rows), 1))
"""


def test_after_an_edit_check_and_full_say_which_finished_jobs_are_trained_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(MEAN)
    path = small(tmp_path, stages={"mean": {"kind": "mine.py:Mean"}})
    line = r"stage mean: 3 finished jobs \(.*\) will be trained again: changes of mine\.py; --reuse keeps"

    def check_and_full(*flags: str) -> list[bool]:
        commands.main(["check", str(path), *flags])
        checked = capsys.readouterr().out
        assert full(options(path, *flags)) == 0
        return [re.search(line, output) is not None for output in (checked, capsys.readouterr().out)]

    assert check_and_full() == [False, False]
    (tmp_path / "mine.py").write_text(MEAN.replace("nanmean", "nanmedian"))
    assert check_and_full("--reuse") == [False, False]
    assert check_and_full() == [True, True]
    assert check_and_full() == [False, False]


TREES = {"kind": "lightgbm", "n_bits": 64, "max_trees": 5}


def test_what_failed_is_left_out_as_if_it_were_not_in_the_yaml_and_is_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = {
        "trees": {**TREES, "seeds": [0, 1]},
        "lost": {**TREES, "parameters": {"num_leaves": 4}},
        "late": {**TREES, "final_fit": "both"},
        "taught": {**TREES, "max_trees": 3, "pseudo_labels": {"stages": ["lost"]}},
    }
    failed = ["trees/seed_1/fold_2", "lost/seed_0/fold_0", "late/seed_0/fold_all"]
    train = Budget.train

    def train_some(budget: Budget, *settings: Any) -> dict[str, JobResult]:
        results = train(budget, *settings)
        for job in budget.plan.jobs:
            if job.title in failed:
                (job.folder / "report.json").unlink()
                results[job.title] = JobResult(job.title, "failed", "error", "ValueError: no")
        return results

    path, paths = small(tmp_path, stages=stages), Paths("mixed")
    with monkeypatch.context() as patch:
        patch.setattr(Budget, "train", train_some)
        assert full(options(path)) == 3
    output = capsys.readouterr().out
    table = output.partition("## Left out\n\n")[2].partition("\n\n")[0].splitlines()[2:]
    assert [line.split("|")[1].strip() for line in table] == ["late", "lost", "taught", "trees"]
    assert output.count("| taught ") == 1  # no table is printed twice
    last = output.splitlines()[-3:]
    assert last[0] == "Left out, at least in part: late, lost, taught, trees; the reasons are at the top"
    assert last[1].startswith(f"Submission: {paths.submission}, a copy of ")
    assert last[2].startswith(f"Next: ./run.sh predict {path} --test NEW.csv, ")
    run = latest_run(str(path))
    left_out = [(each.stage, each.seed) for each in run.left_out]
    assert left_out == [("late", 0), ("lost", 0), ("taught", 0), ("trees", 1)]
    assert {name: stage.seeds for name, stage in run.config.stages.items()} == {"trees": [0]}
    with_failures = paths.submission.read_bytes()
    assert full(options(small(tmp_path, stages={"trees": TREES}))) == 0
    assert paths.submission.read_bytes() == with_failures
    assert full(options(small(tmp_path, stages=stages))) == 0
    assert sorted(latest_run(str(path)).config.stages) == sorted(stages)


def test_without_a_finished_stage_there_is_nothing_to_submit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = {"trees/seed_0/fold_0": JobResult("trees/seed_0/fold_0", "failed", "error", "ValueError: no")}
    monkeypatch.setattr(Budget, "train", lambda *given: failed)
    path = small(tmp_path)
    with pytest.raises(NothingToSubmit, match=r"(?s)no stage has finished.*\| trees .*ValueError: no"):
        full(options(path))
    assert full(options(path, "--fail-fast")) == 1
    assert "stopped at the first failure (--fail-fast)" in capsys.readouterr().out
    assert not Paths("mixed").submission.exists()
