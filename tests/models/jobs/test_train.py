"""What is handed to workers: features before jobs, on all cores or the GPU; lines for a person."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from competition.errors import DataError
from competition.tables import Rows, read_rows
from models.jobs import run_job as run_job_module
from models.jobs.prefill import cache_items, fill
from models.jobs.run_job import run_job
from models.jobs.train import predict_jobs, train
from models.jobs.workers import Item
from models.stage import write_notes
from tests.conftest import mixed_tables
from tests.models.jobs.common import GNN, TREES, Echo, HereWorkers, Listing, planned

UNIMOL = {"kind": "unimol", "epochs": 1}


def many_molecules() -> tuple[pd.DataFrame, pd.DataFrame]:
    """250 alkanes, 190 of them to train on."""
    table = pd.concat([mixed_tables()[0]] * 5, ignore_index=True).iloc[:250]
    table = table.assign(id=[f"m{i}" for i in range(250)], SMILES=["C" * (i + 1) for i in range(250)])
    return table.iloc[:190], table.iloc[190:].drop(columns=["lumo", "mu"])


def listed(folder: Path, cores: int, gpus: int, shard: tuple[int, int] = (1, 1), **sections: Any) -> Listing:
    """What a machine would be given to do."""
    workers = Listing(cores, gpus)
    train(planned(folder, **sections).select(shard=shard), lambda: workers)
    return workers


def test_trees_fill_sixteen_cores_beside_one_gpu_and_networks_ask_for_it(tmp_path: Path) -> None:
    custom = {"kind": "custom", "code": "mine.py:Mine"}
    (tmp_path / "mine.py").write_text("class Mine:\n    pass\n")
    stages = {"trees": TREES, "graph": GNN, "mine": custom, "kernel": {**custom, "gpu": False}}
    stages |= {"cores": {**GNN, "gpu": 0}, "quarter": {**GNN, "gpu": 0.25}}
    jobs = listed(tmp_path, cores=16, gpus=1, stages=stages).given(run_job)
    asked = {item.arguments[0].stage: (item.gpu, item.threads, item.arguments[-1]) for item in jobs}
    assert asked == {
        "trees": (False, 5, 5), "graph": (True, 1, 1), "mine": (True, 1, 1), "kernel": (False, 1, 1),
        "cores": (False, 1, 1), "quarter": (True, 1, 1),
    }  # fmt: skip


def test_molecules_of_one_job_are_parts_for_all_cores_and_no_stage_computes_those_of_another(tmp_path: Path) -> None:
    stages = {"one": UNIMOL, "same": {**UNIMOL, "epochs": 2}, "other": {**UNIMOL, "conformers": 2}}
    workers = listed(tmp_path, 16, 1, stages=stages, tables=many_molecules())
    assert [len(item.arguments[1]) for item in workers.given(fill)] == [100, 100, 50] * 2
    assert workers.items == workers.given(fill) + workers.given(run_job)
    assert not any(item.gpu for item in workers.given(fill))
    jobs = {item.arguments[0].stage: item for item in workers.given(run_job)}
    assert jobs["one"].after == jobs["same"].after != jobs["other"].after
    assert {item.group for item in workers.given(fill)} == jobs["one"].after | jobs["other"].after


def test_features_of_molecules_for_a_network_are_computed_once_before_its_folds(tmp_path: Path) -> None:
    todo = planned(tmp_path, stages={"graph": {**GNN, "molecule_features": ["maccs"]}})

    def items() -> list[Item]:
        rows = read_rows(todo.paths.train, todo.competition, True)
        return cache_items(todo, "graph", [rows], set())[0]

    before = items()
    assert [item.arguments[0].name for item in before] == ["maccs"]
    HereWorkers().run(before, "molecules")
    (shard,) = todo.paths.cache.glob("maccs-*/*.npz")
    written = shard.stat().st_mtime_ns
    HereWorkers().run(before, "molecules")  # of another machine, which finds it there
    assert shard.stat().st_mtime_ns == written
    assert items() == []


def test_texts_of_a_frozen_encoder_are_parts_for_all_cores_or_the_gpu(tmp_path: Path) -> None:
    pytest.importorskip("rxnfp")
    stages = {"frozen": {"kind": "sklearn", "features": [{"encoder": "rxnfp", "columns": ["SMILES"]}]}}
    workers = listed(tmp_path, 16, 1, stages=stages)
    assert {item.gpu for item in workers.given(fill)} == {True}
    assert {item.gpu for item in workers.given(run_job)} == {False}


def test_each_shard_begins_with_another_part_of_the_molecules(tmp_path: Path) -> None:
    stages = {"trees": {**TREES, "features": ["maccs"]}}
    for i, sizes in enumerate([[100, 100, 50], [100, 50, 100], [50, 100, 100]], start=1):
        workers = listed(tmp_path, 1, 0, (i, 3), stages=stages, tables=many_molecules())
        assert [len(item.arguments[1]) for item in workers.given(fill)] == sizes


def test_a_finished_job_is_a_line_with_its_score_and_its_stage_tells_its_notes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a fold has a single label, the line says why there is no score."""

    class Noting(Echo):
        def fit(self, train: Rows, valid: Rows | None, folder: Path) -> None:
            write_notes(folder, ["9 of 40 texts are cut."])

        def predict(self, rows: Rows, folder: Path) -> Any:
            return super().predict(rows, folder)[:, :1]

    monkeypatch.setattr(run_job_module, "build_stage", lambda config, context: Noting())
    (table, test), fold = mixed_tables(), np.arange(60) % 3
    table = table.assign(part=fold, lumo=table["lumo"].where((fold < 2) | (table.index == 2)))
    own = {"targets": ["lumo"], "metric": "mae", "fold_column": "part"}
    todo = planned(tmp_path, competition=own, folds={"kind": "column"}, tables=(table, test))
    capsys.readouterr()
    train(todo, HereWorkers)
    lines = capsys.readouterr().out.splitlines()
    errors = abs(table["lumo"] - table["id"].str[1:].astype(float))
    score = [*(f"{errors[fold == k].mean():.4f}" for k in range(2)), "nan (fewer than two labels)"]
    said = [f"stage trees  seed 0  fold {k} of 3  valid mae {score[k]}  0 s" for k in range(3)]
    assert lines == [said[0], "stage trees  9 of 40 texts are cut.", *said[1:]]
    train(todo, HereWorkers)
    assert capsys.readouterr().out == "stage trees  3 of 3 jobs are finished\n"


def test_a_fold_of_a_metric_of_labels_shows_the_log_loss_of_its_probabilities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fold without a row of the rare class, whose F1 says nothing: -log(.75) for each row."""

    class Rare(Echo):
        def predict(self, rows: Rows, folder: Path) -> Any:
            return np.full((len(rows), 1), 0.25)

    monkeypatch.setattr(run_job_module, "build_stage", lambda config, context: Rare())
    train_table, test = mixed_tables()
    labelled = train_table.assign(rare=["yes", *["no"] * (len(train_table) - 1)])
    binary = {"targets": ["rare"], "problem_type": "binary", "metric": "f1"}
    train(planned(tmp_path, competition=binary, tables=(labelled, test)), HereWorkers)
    assert capsys.readouterr().out.count("valid log_loss 0.2877 ") == 2


def test_new_rows_are_predicted_by_finished_jobs_even_where_only_the_refit_is_asked(tmp_path: Path) -> None:
    todo = planned(tmp_path, stages={"trees": {**TREES, "final_fit": "refit"}})
    with pytest.raises(DataError, match="report.json is not there"):
        predict_jobs(todo, HereWorkers)
    train(todo, HereWorkers)
    for job in todo.jobs:
        job.test_file(todo.test_key).unlink()
    (refit,) = [job for job in todo.jobs if job.in_column]
    assert predict_jobs(replace(todo, jobs=[refit]), HereWorkers) == todo.test_key
    assert [job.has_predicted(todo.test_key) for job in todo.jobs] == [False] * 3 + [True]


def test_a_shard_leaves_a_refit_whose_folds_another_shard_has_and_says_so(tmp_path: Path, capsys: Any) -> None:
    todo = planned(tmp_path, stages={"trees": {**TREES, "final_fit": "both"}})
    todo = replace(todo, jobs=todo.jobs[::-1])  # the refit is trained last, whatever the order of the list
    for shard in ((1, 3), (2, 3), (1, 1)):
        train(todo.select(shard=shard), HereWorkers)
    lines = [line for line in capsys.readouterr().out.splitlines() if "jobs are finished" not in line]
    words = ["fold 2 of 3", "fold 0 of 3", "fold 1 of 3", "1 jobs wait for jobs of other", "refit on all rows"]
    assert sorted(words) == sorted(word for word in words for line in lines if word in line)
    assert "refit on all rows" in lines[-1]
    assert all(job.finished for job in todo.jobs)
