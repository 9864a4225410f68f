"""The tasks of a plan: features before jobs, on all cores or a card; the lines that a person reads."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from competition.dataset import Dataset, read_rows
from core.errors import DataError
from models.jobs.budget import Budget
from models.jobs.budget_stages import Clock
from models.jobs.compute import read_tables
from models.jobs.job_files import attempt_folder, read_failure
from models.jobs.run_job import run_job
from models.jobs.scheduler import JobResult, Queue, Resources, Task, run
from models.jobs.tasks import cache_tasks, fill, job_tasks, lines_about
from models.jobs.train import predict_jobs, train
from models.stage import write_notes
from models.training.hardware import Card
from tests.conftest import mixed_tables
from tests.models.jobs.common import GNN, TREES, Echo, FakeProcesses, InlineExecutor, planned, train_as

UNIMOL = {"kind": "unimol", "epochs": 1}


def many_molecules() -> tuple[pd.DataFrame, pd.DataFrame]:
    """250 alkanes, 190 of them to train on."""
    table = pd.concat([mixed_tables()[0]] * 5, ignore_index=True).iloc[:250]
    table = table.assign(id=[f"m{i}" for i in range(250)], SMILES=["C" * (i + 1) for i in range(250)])
    return table.iloc[:190], table.iloc[190:].drop(columns=["lumo", "mu"])


def tasks_of(folder: Path, cores: int = 1, shard: tuple[int, int] = (1, 1), **sections: Any) -> list[Task]:
    """The tasks of a small competition on a machine of so many cores."""
    plan = planned(folder, **sections).select(shard=shard)
    tables = list(read_tables(plan))
    return job_tasks(plan, plan.jobs, tables, InlineExecutor(cores))


def of_function(tasks: list[Task], function: Any) -> list[Task]:
    return [task for task in tasks if task.function == function]


def test_trees_fill_sixteen_cores_and_networks_ask_for_a_card(tmp_path: Path) -> None:
    own = {"kind": "mine.py:Mine"}
    (tmp_path / "mine.py").write_text("from models.api import Stage as Mine\n")
    stages = {"trees": TREES, "graph": GNN, "mine": {**own, "gpu": True}, "kernel": own}
    stages |= {"cores": {**GNN, "gpu": 0}, "quarter": {**GNN, "gpu": 0.25}}
    jobs = of_function(tasks_of(tmp_path, cores=16, stages=stages), run_job)
    requested = {task.group: (task.resources, task.arguments[-1]) for task in jobs}
    assert requested == {
        "trees": (Resources(5, 0.0), 5),
        "graph": (Resources(1, 1.0), 1),
        "mine": (Resources(1, 1.0), 1),
        "kernel": (Resources(1, 0.0), 1),
        "cores": (Resources(1, 0.0), 1),
        "quarter": (Resources(1, 0.25), 1),
    }


def test_molecules_of_one_job_are_parts_for_all_cores_and_no_stage_computes_those_of_another(
    tmp_path: Path,
) -> None:
    stages = {"one": UNIMOL, "same": {**UNIMOL, "epochs": 2}, "other": {**UNIMOL, "conformers": 2}}
    tasks = tasks_of(tmp_path, stages=stages, tables=many_molecules())
    parts = of_function(tasks, fill)
    assert [len(task.arguments[1]) for task in parts] == [100, 100, 50] * 2
    assert tasks == parts + of_function(tasks, run_job)
    assert {task.resources.gpus for task in parts} == {0.0}
    jobs = {task.group: task for task in of_function(tasks, run_job)}
    assert jobs["one"].wait_for_groups == jobs["same"].wait_for_groups != jobs["other"].wait_for_groups
    assert {task.group for task in parts} == jobs["one"].wait_for_groups | jobs["other"].wait_for_groups


def test_features_of_molecules_for_a_network_are_computed_once_before_its_folds(tmp_path: Path) -> None:
    plan = planned(tmp_path, stages={"graph": {**GNN, "molecule_features": ["maccs"]}})

    def tasks() -> list[Task]:
        rows = read_rows(plan.paths.train, plan.competition, True)
        return cache_tasks(plan, "graph", [rows], set())[0]

    before = tasks()
    assert [task.arguments[0].name for task in before] == ["maccs"]
    run(Queue(before), InlineExecutor(), "molecules")
    (shard,) = plan.paths.cache.glob("maccs-*/*.npz")
    written = shard.stat().st_mtime_ns
    run(Queue(before), InlineExecutor(), "molecules")  # of another machine, which finds it there
    assert shard.stat().st_mtime_ns == written
    assert tasks() == []


def test_texts_of_a_frozen_encoder_are_parts_that_ask_for_a_card(tmp_path: Path) -> None:
    pytest.importorskip("rxnfp")
    stages = {"frozen": {"kind": "sklearn", "features": [{"encoder": "rxnfp", "columns": ["SMILES"]}]}}
    tasks = tasks_of(tmp_path, stages=stages)
    assert {task.resources.gpus for task in of_function(tasks, fill)} == {1.0}
    assert {task.resources.gpus for task in of_function(tasks, run_job)} == {0.0}


def test_each_shard_begins_with_another_part_of_the_molecules(tmp_path: Path) -> None:
    stages = {"trees": {**TREES, "features": ["maccs"]}}
    for i, sizes in enumerate([[100, 100, 50], [100, 50, 100], [50, 100, 100]], start=1):
        tasks = tasks_of(tmp_path, shard=(i, 3), stages=stages, tables=many_molecules())
        assert [len(task.arguments[1]) for task in of_function(tasks, fill)] == sizes


def test_a_finished_job_is_a_line_with_its_score_and_its_stage_tells_its_notes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a fold has a single label, the line says why there is no score."""

    class Noting(Echo):
        def fit(self, train: Dataset, folder: Path) -> None:
            write_notes(folder, ["9 of 40 texts are cut."])

        def predict(self, rows: Dataset, folder: Path) -> Any:
            return super().predict(rows, folder)[:, :1]

    train_as(monkeypatch, Noting())
    (table, test), fold = mixed_tables(), np.arange(60) % 3
    table = table.assign(part=fold, lumo=table["lumo"].where((fold < 2) | (table.index == 2)))
    settings = {"targets": ["lumo"], "metric": "mae", "fold_column": "part"}
    job_plan = planned(tmp_path, competition=settings, folds={"kind": "column"}, tables=(table, test))
    capsys.readouterr()
    train(job_plan, InlineExecutor())
    lines = capsys.readouterr().out.splitlines()
    errors = abs(table["lumo"] - table["id"].str[1:].astype(float))
    score = [*(f"{errors[fold == k].mean():.4f}" for k in range(2)), "nan (fewer than two labels)"]
    expected_lines = [f"stage trees  seed 0  fold {k} of 3  valid mae {score[k]}  0 s" for k in range(3)]
    assert lines == [expected_lines[0], "stage trees  9 of 40 texts are cut.", *expected_lines[1:]]
    train(job_plan, InlineExecutor())
    assert capsys.readouterr().out == "stage trees  3 of 3 jobs are finished\n"


def test_after_the_first_fold_a_line_says_how_many_jobs_a_card_would_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cards are known only after the first job that asked for one. 64 of 80 GiB hold four jobs of 10, not
    eight.
    """
    plan = planned(tmp_path, stages={"graph": GNN, "shared": {**GNN, "gpu": 0.25}})
    executor = FakeProcesses(8)
    executor.cards = None
    budget = Budget(plan, executor, Clock())
    executor.cards = [Card("0", 80.0, True)]
    for job in plan.jobs:
        budget._on_end(job, JobResult(job.title, lines=("valid",), gpu_gib=10.0))
    lines = [line for line in capsys.readouterr().out.splitlines() if line != "valid"]
    assert lines == ["stage graph  used 10.0 of 80 GiB; gpu: 0.25 trains 4 jobs at once on a card"]


def test_a_killed_job_is_reported_with_its_last_loss(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    folder = attempt_folder(plan.jobs[0].folder)
    folder.mkdir(parents=True)
    (folder / "losses.csv").write_text(
        "phase,epoch,step,loss,learning_rate,seconds,held_out_score\n"
        "train,6,60,0.3,0.1,8.0,0.5\ntrain,7,65,0.21,0.1,9.0,\n"
    )
    killed = JobResult(plan.jobs[0].title, "failed", "killed", "its worker died (SIGKILL(-9))")
    lines = lines_about(plan.jobs[0], killed, plan.stages["trees"], None)
    expected = "its worker died (SIGKILL(-9)); last: epoch 7, loss 0.21, held-out score 0.5 after epoch 6"
    assert expected in lines[0]
    assert read_failure(plan.jobs[0].folder)["error"] == expected


def test_a_fold_of_a_metric_of_labels_shows_the_log_loss_of_its_probabilities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fold without a row of the rare class, whose F1 says nothing: -log(.75) for each row."""

    class Rare(Echo):
        def predict(self, rows: Dataset, folder: Path) -> Any:
            return np.full((len(rows), 1), 0.25)

    train_as(monkeypatch, Rare())
    train_table, test = mixed_tables()
    labelled = train_table.assign(rare=["yes", *["no"] * (len(train_table) - 1)])
    binary = {"targets": ["rare"], "problem_type": "binary", "metric": "f1"}
    train(planned(tmp_path, competition=binary, tables=(labelled, test)), InlineExecutor())
    assert capsys.readouterr().out.count("valid log_loss 0.2877 ") == 2


def test_new_rows_are_predicted_by_finished_jobs_even_where_only_the_refit_predicts(tmp_path: Path) -> None:
    job_plan = planned(tmp_path, stages={"trees": {**TREES, "final_fit": "refit"}})
    with pytest.raises(DataError, match="report.json is not there"):
        predict_jobs(job_plan, InlineExecutor())
    train(job_plan, InlineExecutor())
    for job in job_plan.jobs:
        job.test_file(job_plan.test_key).unlink()
    (refit,) = [job for job in job_plan.jobs if job.predicts_test]
    assert predict_jobs(replace(job_plan, jobs=[refit]), InlineExecutor()) == job_plan.test_key
    assert [job.has_predicted(job_plan.test_key) for job in job_plan.jobs] == [False] * 3 + [True]


def test_a_shard_leaves_a_refit_whose_folds_another_shard_has_and_reports_it(
    tmp_path: Path, capsys: Any
) -> None:
    job_plan = planned(tmp_path, stages={"trees": {**TREES, "final_fit": "both"}})
    job_plan = replace(
        job_plan, jobs=job_plan.jobs[::-1]
    )  # the refit is trained last, whatever the order of the list
    for shard in ((1, 3), (2, 3), (1, 1)):
        train(job_plan.select(shard=shard), InlineExecutor())
    lines = [line for line in capsys.readouterr().out.splitlines() if "jobs are finished" not in line]
    words = [
        "fold 2 of 3",
        "fold 0 of 3",
        "fold 1 of 3",
        "1 jobs wait for jobs of other",
        "refit on all rows",
    ]
    assert sorted(words) == sorted(word for word in words for line in lines if word in line)
    assert "refit on all rows" in lines[-1]
    assert all(job.finished for job in job_plan.jobs)
