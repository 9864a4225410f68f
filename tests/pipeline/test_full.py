"""`full`: its work is done once, and what fails is left out of the submission and named."""

import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from competition.dataset import REFIT_FOLD
from competition.prepare import prepare
from core import cli
from core.errors import DataError, NothingToSubmit
from core.paths import Paths, holdout_yaml
from folds.make import assign_folds
from models.jobs.budget import Budget
from models.jobs.plan import make_plan
from models.jobs.scheduler import JobResult
from pipeline import commands
from pipeline import full as full_step
from pipeline.full import full
from submissions.run import latest_run
from tests.conftest import mixed_tables, write_competition


def options(path: Path, *more: str) -> Any:
    return commands.parse(["full", str(path), "--workers", "1", *more])


def small(folder: Path, **sections: object) -> Path:
    stages = {"trees": {"kind": "lightgbm", "n_bits": 64, "max_trees": 5}}
    submissions = {"trials": 4}
    sections = {"competition": {"smiles": []}, "stages": stages, "submissions": submissions, **sections}
    return write_competition(folder, *mixed_tables(), **sections)


def test_full_prepares_divides_and_plans_once(tmp_path: Path) -> None:
    names, calls = (
        {function.__code__: function.__name__ for function in (prepare, assign_folds, make_plan)},
        Counter[str](),
    )

    def count(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code in names:
            calls[names[frame.f_code]] += 1

    path = small(tmp_path)
    sys.setprofile(count)
    try:
        assert full(options(path)) == 0
    finally:
        sys.setprofile(None)
    assert calls == {"prepare": 1, "assign_folds": 1, "make_plan": 1}
    paths = Paths.for_competition(str(path))
    assert (
        paths.submission.read_bytes()
        == (paths.run(paths.latest_run.read_text().strip()) / "submission.csv").read_bytes()
    )


def test_no_other_command_trains_from_the_first_file_that_full_writes_to_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []

    def watched(step: str) -> Callable[..., Any]:
        function = getattr(full_step, step)

        def call(*arguments: Any, **options: Any) -> Any:
            paths = Paths.for_competition(str(holdout_yaml(str(path), 0.2)))
            with pytest.raises(DataError, match="in use"), cli.locked(paths, paths.training_lock(1, 1)):
                raise AssertionError
            refused.append(step)
            return function(*arguments, **options)

        return call

    path = small(tmp_path)
    steps = ["hold_out", "prepare", "submit_until"]
    for step in steps:
        monkeypatch.setattr(full_step, step, watched(step))
    assert full(options(path, "--holdout", "0.2")) == 0
    assert refused == steps


MEAN = """import numpy as np
from models.api import Stage

class Mean(Stage):
    def fit(self, train, folder, context):
        np.save(folder / "mean.npy", np.nanmean(train.y, axis=0))

    def predict(self, rows, folder, context):
        return np.tile(np.load(folder / "mean.npy"), (len(rows), 1))
"""


def test_after_an_edit_check_and_full_say_which_finished_jobs_are_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(MEAN)
    path = small(tmp_path, stages={"mean": {"kind": "mine.py:Mean"}})
    line = (
        r"stage mean: 3 finished jobs \(.*\) will be trained again: changes of mine\.py; --reuse keeps them"
    )

    def check_and_full(*flags: str) -> list[bool]:
        commands.main(["check", str(path), *flags])
        checked = capsys.readouterr().out
        assert full(options(path, *flags)) == 0
        return [re.search(line, output) is not None for output in (checked, capsys.readouterr().out)]

    assert check_and_full() == [False, False]
    assert check_and_full() == [False, False]
    (tmp_path / "mine.py").write_text(MEAN.replace("nanmean", "nanmedian"))
    assert check_and_full("--reuse") == [False, False]
    assert check_and_full() == [True, True]
    assert check_and_full() == [False, False]


TREES = {"kind": "lightgbm", "n_bits": 64, "max_trees": 5}


def test_what_failed_is_left_out_as_if_it_were_not_in_the_yaml_and_is_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trees, lost = {**TREES, "seeds": [0, 1]}, {**TREES, "parameters": {"num_leaves": 4}}
    late, taught = (
        {**TREES, "final_fit": "both"},
        {**TREES, "max_trees": 3, "pseudo_labels": {"stages": ["lost"]}},
    )
    stages = {"trees": trees, "lost": lost, "late": late, "taught": taught}
    failed = [("trees", 1, 2), ("lost", 0, 0), ("late", 0, REFIT_FOLD)]

    train = Budget.train

    def train_some(budget: Budget, *options: Any) -> dict[str, JobResult]:
        results = train(budget, *options)
        for job in budget.plan.jobs:
            if (job.stage, job.seed, job.fold) in failed:
                (job.folder / "report.json").unlink()
                results[job.title] = JobResult(job.title, "failed", "error", "ValueError: no")
        return results

    path = small(tmp_path, stages=stages)
    paths = Paths.for_competition(str(path))
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
    expected = [("late", 0), ("lost", 0), ("taught", 0), ("trees", 1)]
    assert [(each.stage, each.seed) for each in run.left_out] == expected
    assert {name: stage.seeds for name, stage in run.config.stages.items()} == {"trees": [0]}
    written = (paths.report / "report.md").read_text()
    assert -1 < written.find("| lost ") < written.find("## Tables")
    with_failures = paths.submission.read_bytes()
    assert full(options(small(tmp_path, stages={"trees": TREES}))) == 0
    assert paths.submission.read_bytes() == with_failures
    assert latest_run(str(path)).left_out == []
    assert full(options(small(tmp_path, stages=stages))) == 0
    assert sorted(latest_run(str(path)).config.stages) == sorted(stages)


def test_without_a_finished_stage_there_is_nothing_to_submit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Budget, "train", lambda *given: {})
    with pytest.raises(NothingToSubmit, match=r"(?s)no stage has finished.*\| trees "):
        full(options(small(tmp_path)))
    assert not Paths("mixed").submission.exists()


def test_with_fail_fast_a_failure_ends_the_run_without_a_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = JobResult("trees/seed_0/fold_0", "failed", "error", "ValueError: no")
    monkeypatch.setattr(Budget, "train", lambda *given: {failed.name: failed})
    assert full(options(small(tmp_path), "--fail-fast")) == 1
    assert "stopped at the first failure (--fail-fast)" in capsys.readouterr().out
    assert not Paths("mixed").submission.exists()
