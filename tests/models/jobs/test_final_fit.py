"""A refit on all rows: what it takes over from the folds, and when its job runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from competition.files import read_json, write_json
from competition.paths import Paths
from models.config import BertStage, GnnStage, UnimolStage
from models.jobs.train import train
from models.jobs.work import run_job
from models.stages import trees
from tests.models.jobs.common import TREES, HereWorkers, planned

REFIT = {**TREES, "max_trees": 20, "final_fit": "refit"}


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
    config, paths, todo = planned(tmp_path, stages={"trees": REFIT})
    *folds, refit = todo.jobs
    for job in folds:
        run_job(job, todo.stages["trees"], config, paths, todo.test_key)

    def refuse(*rest: Any) -> Any:
        raise AssertionError("a refit must not choose")

    monkeypatch.setattr(trees.Trees, "_choose", refuse)
    run_job(refit, todo.stages["trees"], config, paths, todo.test_key)
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
        *_, todo = planned(tmp_path, stages={"trees": {**REFIT, "final_fit": final_fit, "seeds": [0, 7]}})
        keys.add(todo.keys["trees"])
        assert len(todo.jobs) == len({job.folder for job in todo.jobs}) == n_jobs
    assert len(keys) == 1
    assert [job.folder.name for job in todo.jobs] == ["fold_0", "fold_1", "fold_2", "fold_all"] * 2
    assert list(todo.jobs[7].needs) == todo.jobs[4:7]
    assert not any(job.needs for job in todo.jobs[4:7])
    assert {job.fold for job in todo.select(fold=1).jobs} == {1}


@pytest.mark.parametrize("kind", [GnnStage, BertStage, UnimolStage])
def test_an_epoch_chosen_on_the_held_out_fold_and_a_refit_contradict_each_other(kind: Any) -> None:
    with pytest.raises(ValidationError, match="no held-out fold to choose an epoch on"):
        kind(kind=kind.__name__.removesuffix("Stage").lower(), keep="best_on_held_out", final_fit="both")


def test_a_run_trains_the_refit_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, paths, todo = planned(tmp_path, stages={"trees": REFIT})
    jobs = list(reversed(todo.jobs))  # whatever the order of the list
    train(config, paths, todo.__class__(jobs, todo.keys, 3, todo.test_key, todo.stages), 1, make_workers=HereWorkers)
    said = capsys.readouterr().out.splitlines()
    assert said[-1].startswith("stage trees  seed 0  refit on all rows")
    assert all(job.finished for job in todo.jobs)
    written = sorted(Paths("mixed").root.rglob("fold_*/report.json"), key=lambda path: path.stat().st_mtime_ns)
    assert written[-1].parent.name == "fold_all"
