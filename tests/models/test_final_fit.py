"""A refit on all rows: what it takes over from the folds, what it trains on, and when its job runs."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from competition.files import read_json, sha256_of, write_json
from competition.paths import Paths
from competition.tables import Rows
from models.config import GnnStage
from models.jobs import work as work_module
from models.jobs.budget import Budget, Group
from models.jobs.plan import ALL, Job, publish
from models.jobs.predictions import stage_oof, stage_test, write_predictions, write_test_predictions
from models.jobs.selection import select
from models.jobs.tasks import Order, Task
from models.jobs.train import train
from models.jobs.work import job_seed, run_job
from models.stages import trees
from models.training import checkpoint
from tests.conftest import mixed_tables, write_competition
from tests.models.test_train import Echo, planned

TREES = {"kind": "lightgbm", "n_bits": 64, "max_trees": 20, "final_fit": "refit"}


def made(folder: Path, **stages: Any) -> Any:
    return planned(write_competition(folder, *mixed_tables(), stages=stages))


def test_the_number_of_trees_and_searched_settings_are_means_over_the_folds(tmp_path: Path) -> None:
    """Counts 10, 20, 33: 63 / 3. Leaves 4, 8, 64 on the search's logarithmic scale: the cube root of 2048, 12.7."""
    folders = [tmp_path / f"{fold}" for fold in range(3)]
    for folder, count, leaves, l2 in zip(folders, (10, 20, 33), (4, 8, 64), (0.1, 1.0, 10.0), strict=True):
        found = {"num_leaves": leaves, "lambda_l2": l2}
        models = [{"n_trees": 5, "found": {}}, {"n_trees": count, "found": found}]
        write_json(folder / "training.json", {"models": models})
    assert trees.choice_of_folds(folders, 0) == {"n_trees": 5, "found": {}}
    expected = {"num_leaves": 13, "lambda_l2": pytest.approx(1.0)}
    assert trees.choice_of_folds(folders, 1) == {"n_trees": 21, "found": expected}


def test_a_refit_grows_the_mean_number_of_trees_and_counts_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, paths, stages, todo = made(tmp_path, trees=TREES)
    *folds, refit = todo.jobs
    for job in folds:
        run_job(job, stages["trees"], config, paths, todo.test_key)

    def refuse(*rest: Any) -> Any:
        raise AssertionError("a refit must not choose")

    monkeypatch.setattr(trees.Trees, "_choose", refuse)
    run_job(refit, stages["trees"], config, paths, todo.test_key)
    *counts, n_trees = [
        [model["n_trees"] for model in read_json(job.folder / "training.json")["models"]] for job in todo.jobs
    ]
    assert np.std(counts) > 0
    expected = [round(mean) for mean in np.mean(counts, axis=0)]
    assert n_trees == expected
    grown = [(refit.folder / f"target_{t}.txt").read_text().count("\nTree=") for t in range(2)]
    assert grown == expected


def test_a_refit_is_one_more_job_per_seed_behind_its_folds_and_changes_no_key(tmp_path: Path) -> None:
    keys = set()
    for final_fit, n_jobs in (("folds", 6), ("refit", 8), ("both", 8)):
        *_, todo = made(tmp_path, trees={**TREES, "final_fit": final_fit, "seeds": [0, 7]})
        keys.add(todo.keys["trees"])
        assert len(todo.jobs) == len({job.folder for job in todo.jobs}) == n_jobs
    assert len(keys) == 1
    assert [job.folder.name for job in todo.jobs] == ["fold_0", "fold_1", "fold_2", "fold_all"] * 2
    assert list(todo.jobs[7].needs) == todo.jobs[4:7]
    assert not any(job.needs for job in todo.jobs[4:7])
    assert {job.fold for job in select(todo, None, 1).jobs} == {1}


def test_a_refit_trains_on_every_row_with_a_seed_of_its_own_and_holds_none_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[str]] = {}

    class Listening(Echo):
        def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
            seen[folder.name.split(".")[1]] = train.ids

    monkeypatch.setattr(work_module, "build_stage", lambda config, context: Listening())
    config, paths, stages, todo = made(tmp_path, trees=TREES)
    for job in todo.jobs:
        run_job(job, stages["trees"], config, paths, todo.test_key)
    assert sorted(seen["fold_all"]) == sorted(mixed_tables()[0]["id"])
    assert all(len(seen[f"fold_{fold}"]) == 40 for fold in range(3))
    assert not todo.jobs[-1].oof_file.exists()
    assert len({job_seed(config, job) for job in todo.jobs}) == 4


def test_the_column_of_test_predictions_is_the_fold_average_the_refit_or_the_mean_of_both(tmp_path: Path) -> None:
    """Two folds that say 1 and 3, a refit that says 10, and 100 more in the second seed: 2, 10, 6, and 50 more."""

    def predicted(final_fit: str) -> float:
        jobs = []
        for seed in (0, 1):
            for fold, value in ((0, 1.0), (1, 3.0), (ALL, 10.0)):
                folder = tmp_path / final_fit / f"{seed}_{fold}"
                job = Job("s", "k", seed, fold, folder, in_column=fold == ALL or final_fit != "refit")
                if fold != ALL or final_fit != "folds":
                    write_test_predictions(job, "t", ["a"], ["y"], np.array([[value + 100 * seed]]))
                    jobs.append(job)
        return float(stage_test(jobs, "t", ["a"], ["y"])[0, 0])

    assert [predicted(name) for name in ("folds", "refit", "both")] == [52, 60, 56]


def test_out_of_fold_predictions_are_those_of_the_folds(tmp_path: Path) -> None:
    jobs = [Job("s", "k", 0, fold, tmp_path / f"{fold}") for fold in (0, 1, ALL)]
    for job in jobs[:2]:
        write_predictions(job.oof_file, [f"r{job.fold}"], ["y"], np.array([[1.0 + job.fold]]))
        publish(job, {})
    assert stage_oof(jobs, ["r0", "r1"], np.array([0, 1]), ["y"])[:, 0].tolist() == [1, 2]


def test_an_epoch_chosen_on_the_held_out_fold_and_a_refit_contradict_each_other() -> None:
    with pytest.raises(ValidationError, match="no held-out fold to choose an epoch on; set keep: last"):
        GnnStage(kind="gnn", keep="best_on_held_out", final_fit="both")


def test_a_refit_that_was_stopped_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gnn = {"kind": "gnn", "width": 16, "hidden_width": 16, "epochs": 4, "batch_size": 8, "final_fit": "both"}
    config, paths, stages, todo = made(tmp_path, graph=gnn)
    refit = todo.jobs[-1]
    run_job(refit, stages["graph"], config, paths, todo.test_key)
    undisturbed = {path.name: sha256_of(path) for path in refit.folder.rglob("*.*") if path.name != "report.json"}
    shutil.rmtree(refit.folder)
    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN", 0.0)

    def stop(done: int, total: int) -> None:
        if done == total - 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(refit, stages["graph"], config, paths, todo.test_key, progress=stop)
    assert not refit.finished
    run_job(refit, stages["graph"], config, paths, todo.test_key)
    again = {path.name: sha256_of(path) for path in refit.folder.rglob("*.*") if path.name != "report.json"}
    assert again == undisturbed


def test_a_run_trains_the_refit_last_and_after_a_kill_only_what_is_not_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, paths, stages, todo = made(tmp_path, trees=TREES)
    train(config, stages, paths, todo, 2)
    refit = todo.jobs[-1]
    order = [job.folder for job in sorted(todo.jobs, key=lambda job: (job.folder / "report.json").stat().st_mtime_ns)]
    assert order[-1] == refit.folder
    assert "stage trees  seed 0  refit on all rows" in capsys.readouterr().out.splitlines()[-1]
    before = {path: sha256_of(path) for path in Paths("mixed").root.rglob("*.txt")}
    shutil.rmtree(refit.folder)
    train(config, stages, paths, todo, 1)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "stage trees  3 of 4 jobs are finished"
    assert len(said) == 2
    assert {path: sha256_of(path) for path in Paths("mixed").root.rglob("*.txt")} == before


def test_a_task_whose_needs_are_not_there_lets_others_go_first() -> None:
    tasks = [Task("refit", print, (), can_start=lambda: False), Task("fold", print, ())]
    assert Order().choose(tasks) == 1
    assert Order().choose(tasks[:1]) is None


def test_within_a_budget_a_stage_is_started_only_if_its_refit_fits_as_well() -> None:
    finished: list[bool] = []
    tasks = [Task("refit", print, (), group="a", can_start=lambda: bool(finished)), Task("fold", print, (), group="a")]

    def budget(seconds: float) -> Budget:
        return Budget([Group("a", seconds=[1000.0])], tasks, 1, deadline=time.monotonic() + seconds)

    assert budget(1900).choose(tasks) is None
    order = budget(2100)
    assert order.choose(tasks) == 1
    assert order.choose(tasks[:1]) is None
    order.finished(tasks[1], 1000.0)
    finished.append(True)
    assert order.choose(tasks[:1]) == 0
