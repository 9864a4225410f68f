"""One job from prepared tables to a published folder: alignment, leaks, refits, resumption, new rows in
pieces.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem

from competition.dataset import REFIT_FOLD, Dataset, read_rows
from core.files import read_json, read_table, sha256_of, write_json
from core.paths import Paths
from folds.make import read_folds
from models.jobs import compute
from models.jobs import run_job as run_job_module
from models.jobs.predictions import read_predictions, stage_oof, stage_test
from models.jobs.run_job import run_job
from models.stages import trees
from models.training import checkpoint
from models.training.loss_log import read_losses
from tests.conftest import mixed_tables
from tests.models.jobs.common import GNN, TREES, Echo, planned, train_as


class Memoriser(Echo):
    """Knows the labels of every input it was fitted on, and the mean for any other."""

    def fit(self, train: Dataset, folder: Path) -> None:
        self.mean = np.nanmean(train.y, axis=0)
        labels = np.where(np.isnan(train.y), self.mean, train.y)
        self.labels_by_smiles = dict(zip(train.inputs["SMILES"], labels, strict=True))

    def predict(self, rows: Dataset, folder: Path) -> np.ndarray:
        assert rows.y is None, "held-out rows come without labels"
        return np.array([self.labels_by_smiles.get(smiles, self.mean) for smiles in rows.inputs["SMILES"]])


class Listening(Echo):
    """Keeps what every job is told."""

    def __init__(self) -> None:
        self.trained_rows: dict[str, list[str]] = {}

    def fit(self, train: Dataset, folder: Path) -> None:
        self.trained_rows[folder.name.split(".")[1]] = train.ids


def run_all(folder: Path, monkeypatch: pytest.MonkeyPatch, stage: Echo, **sections: Any) -> tuple[Any, ...]:
    """Train every job, the last first, as `stage`; rows, their folds, out-of-fold and test predictions."""

    train_as(monkeypatch, stage)
    job_plan = planned(folder, **sections)
    for job in reversed(job_plan.jobs):
        run_job(job, job_plan)
    rows, test_ids = (
        read_rows(job_plan.paths.train, job_plan.competition, True),
        list(read_table(job_plan.paths.test)["id"]),
    )
    folds, outputs = read_folds(job_plan.paths.folds, rows.ids), job_plan.competition.targets
    return (
        rows,
        folds,
        stage_oof(job_plan.jobs, rows.ids, folds, outputs),
        stage_test(job_plan.jobs, job_plan.test_key, test_ids, outputs),
    )


def test_predictions_stay_with_their_ids_through_shuffled_folds_and_unordered_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, _, oof, test = run_all(tmp_path, monkeypatch, Echo())
    assert rows.ids != sorted(rows.ids)
    assert oof[:, 0].tolist() == [float(i[1:]) for i in rows.ids]
    assert test[:, 1].tolist() == [-float(i[1:]) for i in mixed_tables()[1]["id"]]


def test_a_stage_that_memorises_scores_at_chance_on_random_labels(tmp_path: Path, monkeypatch: Any) -> None:
    """Each input is repeated with the same random label, written differently: only folds that split them
    leak.
    """
    train, test = mixed_tables()
    train[["note", "pH", "site"]] = ["same", 7.0, "a"]
    rng = np.random.default_rng(1)
    train["lumo"], train["mu"] = rng.normal(size=(2, len(train)))
    twin = train.assign(id="t" + train["id"])
    twin["SMILES"] = [
        Chem.MolToSmiles(Chem.MolFromSmiles(s), canonical=False, doRandom=True) for s in train["SMILES"]
    ]
    both = pd.concat([train, twin], ignore_index=True)
    rows, _, oof, _ = run_all(tmp_path, monkeypatch, Memoriser(), tables=(both, test))
    r2 = 1 - ((oof - rows.y) ** 2).sum(axis=0) / ((rows.y - rows.y.mean(axis=0)) ** 2).sum(axis=0)
    assert (r2 <= 0.0).all()


def test_a_job_trains_on_other_folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refit trains on every row, and has none to predict out of fold."""
    stage = Listening()
    rows, folds, *_ = run_all(
        tmp_path, monkeypatch, stage, stages={"one": {"kind": "bert", "final_fit": "refit"}}
    )
    assert list(stage.trained_rows) == ["fold_all", "fold_2", "fold_1", "fold_0"]
    for fold, trains in zip((REFIT_FOLD, 2, 1, 0), stage.trained_rows.values(), strict=True):
        assert trains == [name for name, of_row in zip(rows.ids, folds, strict=True) if of_row != fold]
    assert len(list(Paths("mixed").root.glob("models/one/*/seed_0/*/oof.parquet"))) == 3


def test_the_number_of_trees_and_searched_settings_are_means_over_the_folds(tmp_path: Path) -> None:
    """Counts 10, 20, 33: 63 / 3. Leaves 4, 8, 64 on the search's logarithmic scale: the cube root of 2048,
    12.7.
    """
    folders = [tmp_path / f"{fold}" for fold in range(3)]
    for folder, count, leaves, l2 in zip(folders, (10, 20, 33), (4, 8, 64), (0.1, 1.0, 10.0), strict=True):
        tuned = {"num_leaves": leaves, "lambda_l2": l2}
        models = [{"n_trees": 5, "found": {}}, {"n_trees": count, "found": tuned}]
        write_json(folder / "training.json", {"models": models})
    assert trees.mean_choice(folders, 0) == {"n_trees": 5, "found": {}}
    expected = {"num_leaves": 13, "lambda_l2": pytest.approx(1.0)}
    assert trees.mean_choice(folders, 1) == {"n_trees": 21, "found": expected}


def test_a_refit_grows_the_mean_number_of_trees_and_counts_none(tmp_path: Path, monkeypatch: Any) -> None:
    job_plan = planned(tmp_path, stages={"trees": {**TREES, "max_trees": 200, "final_fit": "refit"}})
    *folds, refit = job_plan.jobs
    for job in folds:
        run_job(job, job_plan)
    monkeypatch.delattr(trees.Trees, "choose")
    run_job(refit, job_plan)
    *counts, n_trees = [
        [model["n_trees"] for model in read_json(job.folder / "training.json")["models"]]
        for job in job_plan.jobs
    ]
    assert np.std(counts) > 0
    assert n_trees == [round(mean) for mean in np.mean(counts, axis=0)]


@pytest.mark.parametrize("final_fit", ["folds", "both"])
def test_a_job_that_was_stopped_inside_its_fold_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, final_fit: str
) -> None:
    gnn = {**GNN, "epochs": 4, "batch_size": 16, "pooler_dropout": 0.2, "final_fit": final_fit}
    job_plan = planned(tmp_path, stages={"graph": gnn})
    job = job_plan.jobs[-1]
    assert (job.fold == REFIT_FOLD) is (final_fit == "both")
    steps: list[int] = []

    def run(stop_at: int | None = None) -> dict[str, str]:
        def progress(done: int, total: int) -> None:
            steps.append(done)
            if stop_at is not None and done == total + stop_at:
                raise KeyboardInterrupt

        monkeypatch.setattr(run_job_module, "ProgressFile", lambda folder, title: progress)
        run_job(job, job_plan)
        files = [path for path in job.folder.rglob("*.*") if path.name not in ("report.json", "losses.csv")]
        assert not [path for path in files if path.name.startswith("checkpoint")]
        return {path.name: sha256_of(path) for path in files}

    undisturbed, n_steps = run(), len(steps)
    shutil.rmtree(job.folder)
    monkeypatch.setattr(checkpoint.Checkpoint, "due", lambda self: True)
    with pytest.raises(KeyboardInterrupt):
        run(stop_at=-2)
    assert not job.folder.exists()
    assert len(list(job.folder.parent.glob(f".{job.folder.name}/checkpoint_*.pt"))) == 1
    steps.clear()
    assert run() == undisturbed
    assert len(steps) < n_steps  # it did not begin anew


def test_rows_reach_a_stage_in_pieces_and_leave_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []

    class Lengths(Echo):
        def predict(self, rows: Dataset, folder: Path) -> np.ndarray:
            lengths.append(len(rows))
            return super().predict(rows, folder)

    monkeypatch.setattr(compute, "PIECE", 4)
    train_as(monkeypatch, Lengths())
    job_plan, ids = planned(tmp_path), [f"r{i}" for i in range(10)]
    job = replace(job_plan.jobs[0], folder=tmp_path / "job")
    run_job_module.predict_test(job, job_plan, Dataset(ids, pd.DataFrame(index=range(10)), None))
    assert lengths == [4, 4, 2]
    numbers = np.arange(10)[:, None] * [1.0, -1.0]
    assert np.array_equal(read_predictions(job.test_file(job_plan.test_key), ids, ["lumo", "mu"]), numbers)


@pytest.mark.parametrize(
    "stage",
    [
        {**GNN, "epochs": 3, "pooler_dropout": 0.2, "target_transform": "standard"},
        {"kind": "bert", "layers": 1, "width": 32, "heads": 2, "epochs": 2, "pooler_dropout": 0.2},
    ],
    ids=["gnn", "bert"],
)
def test_the_score_after_each_epoch_changes_no_prediction_and_ends_as_the_score_of_the_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: dict[str, Any]
) -> None:
    job_plan = planned(tmp_path, stages={"net": stage})
    job = job_plan.jobs[0]

    def predictions() -> list[bytes]:
        assert run_job(job, job_plan).status == "ok"
        return [file.read_bytes() for file in (job.oof_file, job.test_file(job_plan.test_key))]

    with_score = predictions()
    rows = read_losses(job.folder)
    assert [row.held_out_score is not None for row in rows] == [True] * stage["epochs"]
    labels = read_rows(job_plan.paths.train, job_plan.competition, labelled=True)
    in_fold = labels.take(read_folds(job_plan.paths.folds, labels.ids) == 0)
    y_pred = read_predictions(job.oof_file, in_fold.ids, job_plan.competition.targets)
    metric = job_plan.competition.scorer
    assert rows[-1].held_out_score == pytest.approx(metric(in_fold.y, y_pred), rel=1e-6)
    shutil.rmtree(job.folder)
    monkeypatch.setattr(run_job_module, "HeldOut", lambda rows, score: None)
    assert predictions() == with_score
    assert {row.held_out_score for row in read_losses(job.folder)} == {None}
