"""Keys of jobs, their folders, and the tables of predictions they are joined into."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.config import load_competition
from competition.errors import DataError
from competition.files import read_table, write_table
from competition.paths import Paths
from competition.prepare import prepare
from folds.make import load_folds_config
from folds.make import run as make_folds
from models.config import load_stages
from models.inputs import code
from models.jobs import plan as jobs
from models.jobs.plan import (
    Job,
    Plan,
    code_digest_of,
    plan,
    publish,
    verify,
)
from models.jobs.predictions import (
    read_predictions,
    stage_oof,
    stage_test,
    write_predictions,
    write_test_predictions,
)
from tests.conftest import mixed_tables, write_competition


def planned(folder: Path, seed: int | None = None, reuse: bool = False, **sections: object) -> Plan:
    path = write_competition(folder, *mixed_tables(), **sections)
    config, paths = load_competition(str(path), seed), Paths("mixed")
    prepared = prepare(config)
    write_table(paths.train, prepared.train)
    write_table(paths.test, prepared.test)
    make_folds(config, load_folds_config(str(path)), paths)
    return plan(config, load_stages(str(path)), paths, reuse)


def trees(**settings: object) -> dict:
    return {"stages": {"trees": {"kind": "lightgbm", "n_bits": 64, **settings}}}


def test_a_plan_has_a_job_for_every_stage_seed_and_fold(tmp_path: Path) -> None:
    todo = planned(tmp_path, **trees(seeds=[0, 7]))
    assert [(job.stage, job.seed, job.fold) for job in todo.jobs] == [
        ("trees", seed, fold) for seed in (0, 7) for fold in range(3)
    ]
    assert len({job.folder for job in todo.jobs}) == 6


def test_a_setting_changes_the_key_and_the_list_of_seeds_does_not(tmp_path: Path) -> None:
    key = planned(tmp_path, **trees()).keys["trees"]
    assert planned(tmp_path, **trees(seeds=[0, 1])).keys["trees"] == key
    assert planned(tmp_path, **trees(num_leaves=7)).keys["trees"] != key
    assert planned(tmp_path, seed=5, **trees()).keys["trees"] != key
    assert planned(tmp_path, **trees(), folds={"n_folds": 4}).keys["trees"] != key
    assert planned(tmp_path, **trees()).keys["trees"] == key


def test_the_errors_of_the_metric_are_in_the_key_of_trees_alone(tmp_path: Path) -> None:
    stages = {"stages": {"trees": {"kind": "lightgbm"}, "line": {"kind": "sklearn", "regressor": "Ridge"}}}
    metrics = ("rmse", "r2", "mae")
    keys = {metric: planned(tmp_path, competition={"metric": metric}, **stages).keys for metric in metrics}
    assert keys["rmse"] == keys["r2"]
    assert keys["mae"]["trees"] != keys["rmse"]["trees"]
    assert keys["mae"]["line"] == keys["rmse"]["line"]


def test_the_test_table_is_in_the_key_of_a_stage_that_reads_its_inputs_and_of_no_other(tmp_path: Path) -> None:
    bert = {"kind": "bert", "pretrain_epochs": 1}
    before = planned(tmp_path, stages={"fair": bert, "saw": {**bert, "pretrain_on": "all_inputs"}})
    test = read_table(Paths("mixed").test)
    write_table(Paths("mixed").test, test.assign(note="other words"))
    path = str(tmp_path / "mixed.yaml")
    after = plan(load_competition(path), load_stages(path), Paths("mixed"))
    assert after.test_key != before.test_key
    assert after.keys["fair"] == before.keys["fair"]
    assert after.keys["saw"] != before.keys["saw"]


def test_code_counts_and_comments_and_docstrings_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "PROJECT", tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "shared.py").write_text("RATE = 1\n")
    (tmp_path / "own.py").write_text("from models.shared import RATE\n\ndef f(x):\n    return x * RATE\n")
    before = code_digest_of(tmp_path / "own.py")
    (tmp_path / "own.py").write_text(
        '"""Says what."""\nfrom models.shared import RATE\n\n\n'
        'def f(x):\n    """Doubles."""\n    return x * RATE  # why\n'
    )
    assert code_digest_of(tmp_path / "own.py") == before
    (tmp_path / "models" / "shared.py").write_text("RATE = 2\n")
    assert code_digest_of(tmp_path / "own.py") != before


def test_edited_code_makes_a_new_key_and_reuse_takes_the_finished_one_and_marks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = planned(tmp_path)
    for job in old.jobs:
        publish(job, {"seconds": 1.0})
    monkeypatch.setattr(jobs, "code_digest", lambda kind: "edited" * 3)
    new = planned(tmp_path)
    assert new.keys != old.keys
    assert not any(job.finished for job in new.jobs)
    reused = planned(tmp_path, reuse=True)
    assert reused.keys == old.keys
    assert all(job.finished and job.other_code for job in reused.jobs)


def test_a_changed_or_missing_file_of_a_finished_job_is_an_error(tmp_path: Path) -> None:
    job = Job("s", "k", 0, 0, tmp_path / "job")
    job.folder.mkdir()
    (job.folder / "weights.bin").write_bytes(b"abc")
    publish(job, {"seconds": 1.0})
    assert verify(job)["seconds"] == 1.0
    (job.folder / "weights.bin").write_bytes(b"abd")
    with pytest.raises(DataError, match=r"weights\.bin .* has changed; delete the folder"):
        verify(job)
    (job.folder / "weights.bin").unlink()
    with pytest.raises(DataError, match="is gone"):
        verify(job)


def test_predictions_join_on_id_and_not_on_position(tmp_path: Path) -> None:
    """The rows' own number is the prediction, written per fold in any order, read back in the table's order."""
    ids = [f"r{i}" for i in range(9)]
    folds = np.array([2, 0, 1, 1, 0, 2, 0, 1, 2])
    todo = [Job("echo", "k", seed, fold, tmp_path / f"{seed}_{fold}") for seed in (0, 1) for fold in range(3)]
    for job in todo:
        held_out = np.random.default_rng(job.fold).permutation(np.flatnonzero(folds == job.fold))
        write_predictions(job.oof_file, [ids[i] for i in held_out], ["y"], held_out[:, None] + 10.0 * job.seed)
        publish(job, {})
    assert stage_oof(todo, ids, folds, ["y"])[:, 0].tolist() == [i + 5.0 for i in range(9)]


def test_rows_of_fold_minus_one_have_no_prediction(tmp_path: Path) -> None:
    todo = [Job("echo", "k", 0, fold, tmp_path / f"{fold}") for fold in range(2)]
    for job in todo:
        write_predictions(job.oof_file, [f"r{job.fold}"], ["y"], np.array([[1.0]]))
        publish(job, {})
    oof = stage_oof(todo, ["r0", "r1", "r2"], np.array([0, 1, -1]), ["y"])
    assert np.isnan(oof[:, 0]).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"id": ["a"], "y": [1.0]}, "2 ids once each"),
        ({"id": ["a", "a"], "y": [1.0, 2.0]}, "2 ids once each"),
        ({"id": ["a", "z"], "y": [1.0, 2.0]}, "2 ids once each"),
        ({"id": ["a", "b"], "x": [1.0, 2.0]}, "2 ids once each with y"),
        ({"id": ["a", "b"], "y": [1.0, None]}, "not finite"),
        ({"id": ["a", "b"], "y": [1.0, np.inf]}, "not finite"),
        (None, "cannot be read"),
    ],
)
def test_a_table_with_a_missing_doubled_foreign_or_empty_prediction_is_refused(
    tmp_path: Path, table: dict | None, words: str
) -> None:
    if table is None:
        (tmp_path / "oof.parquet").write_bytes(b"PAR1 cut")
    else:
        pd.DataFrame(table).to_parquet(tmp_path / "oof.parquet", index=False)
    with pytest.raises(DataError, match=words):
        read_predictions(tmp_path / "oof.parquet", ["a", "b"], ["y"])


def test_predictions_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="first id is 'b'"):
        write_predictions(tmp_path / "oof.parquet", ["a", "b"], ["y"], np.array([[1.0], [np.nan]]))
    assert not (tmp_path / "oof.parquet").exists()


def test_changed_test_predictions_are_no_predictions(tmp_path: Path) -> None:
    job = Job("s", "k", 0, 0, tmp_path / "job")
    assert not job.has_predicted("t")
    write_test_predictions(job, "t", ["a"], ["y"], np.array([[1.0]]))
    assert job.has_predicted("t")
    assert stage_test([job], "t", ["a"], ["y"]).tolist() == [[1.0]]
    pd.DataFrame({"id": ["a"], "y": [51.0]}).to_parquet(job.test_file("t"), index=False)
    assert not job.has_predicted("t")
    with pytest.raises(DataError, match="is gone or has changed"):
        stage_test([job], "t", ["a"], ["y"])
