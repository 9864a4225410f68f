"""One job from prepared tables to a published folder: alignment, leaks, refits, resumption, new rows in pieces."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem

from competition.dataset import REFIT_FOLD, Dataset, read_rows
from core.files import read_table, sha256_of, write_json
from folds.make import read_folds
from models.jobs import compute
from models.jobs.compute import rows_of_job
from models.jobs.predictions import read_predictions, stage_oof, stage_test
from models.jobs.progress import ProgressFile
from models.jobs.run_job import run_job
from models.stages import trees
from models.training import checkpoint
from models.training.loss_log import read_losses
from tests.conftest import mixed_tables
from tests.models.jobs.common import GNN, STAGES, TREES, planned


def run_all(folder: Path, stage: dict[str, Any], **sections: Any) -> tuple[Dataset, Any, Any]:
    """Train every job of a stage, the last first; rows, their out-of-fold predictions and test predictions."""
    plan = planned(folder, stages={"one": stage}, **sections)
    for job in reversed(plan.jobs):
        assert run_job(job, plan).status == "ok"
    rows = read_rows(plan.paths.train, plan.competition, True)
    oof = stage_oof(plan.jobs, rows.ids, rows.folds, ["lumo", "mu"])
    test_ids = list(read_table(plan.paths.test)["id"])
    return rows, oof, stage_test(plan.jobs, plan.test_key, test_ids, ["lumo", "mu"])


def test_predictions_stay_with_their_ids_through_shuffled_folds_unordered_rows_and_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twenty rows of a fold are predicted in three pieces."""
    monkeypatch.setattr(compute, "PIECE", 9)
    rows, oof, test = run_all(tmp_path, {"kind": f"{STAGES}:Echo", "most_rows": 9})
    assert rows.ids != sorted(rows.ids)
    assert oof[:, 0].tolist() == [float(i[1:]) for i in rows.ids]
    assert test[:, 1].tolist() == [-float(i[1:]) for i in mixed_tables()[1]["id"]]


def test_a_stage_that_memorises_scores_at_chance_on_random_labels(tmp_path: Path) -> None:
    """Each input is repeated with the same random label, written differently: only folds that split them leak."""
    train, test = mixed_tables()
    train[["note", "pH", "site"]] = ["same", 7.0, "a"]
    rng = np.random.default_rng(1)
    train["lumo"], train["mu"] = rng.normal(size=(2, len(train)))
    molecules = map(Chem.MolFromSmiles, train["SMILES"])
    respelled = [Chem.MolToSmiles(each, canonical=False, doRandom=True) for each in molecules]
    both = pd.concat([train, train.assign(id="t" + train["id"], SMILES=respelled)], ignore_index=True)
    rows, oof, _ = run_all(tmp_path, {"kind": f"{STAGES}:Memoriser"}, tables=(both, test))
    assert not oof.any() and rows.y.all()  # it knows no held-out row


def test_a_job_trains_on_other_folds_and_a_refit_on_every_row(tmp_path: Path) -> None:
    plan = planned(tmp_path, stages={"one": {**TREES, "final_fit": "refit"}})
    ids = np.array(read_table(plan.paths.train)["id"])
    folds = read_folds(plan.paths.folds, list(ids))
    for job, fold in zip(plan.jobs, (0, 1, 2, REFIT_FOLD), strict=True):
        rows = rows_of_job(job, plan)
        assert rows.train.ids == list(ids[folds != fold])
        assert rows.held_out.ids == list(ids[folds == fold])


def test_the_number_of_trees_and_searched_settings_are_means_over_the_folds(tmp_path: Path) -> None:
    """Counts 10, 20, 33: 63 / 3. Leaves 4, 8, 64 on the search's logarithmic scale: the cube root of 2048, 12.7."""
    folders = [tmp_path / f"{fold}" for fold in range(3)]
    for folder, count, leaves in zip(folders, (10, 20, 33), (4, 8, 64), strict=True):
        models = [{"n_trees": 5, "found": {}}, {"n_trees": count, "found": {"num_leaves": leaves}}]
        write_json(folder / "training.json", {"models": models})
    assert trees.mean_choice(folders, 0) == {"n_trees": 5, "found": {}}
    assert trees.mean_choice(folders, 1) == {"n_trees": 21, "found": {"num_leaves": 13}}


@pytest.mark.parametrize("final_fit", ["folds", "both"])
def test_a_job_that_was_stopped_inside_its_fold_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], final_fit: str
) -> None:
    """The last job is that of fold 2, or the refit."""
    gnn = {**GNN, "epochs": 4, "batch_size": 16, "pooler_dropout": 0.2, "final_fit": final_fit}
    plan = planned(tmp_path, stages={"graph": gnn})
    job = plan.jobs[-1]
    report_progress = ProgressFile.__call__

    def run(stop_at: float = np.inf) -> dict[str, str]:
        def progress(self: ProgressFile, done: int, total: int) -> None:
            report_progress(self, done, total)
            if done == total + stop_at:
                raise KeyboardInterrupt

        monkeypatch.setattr(ProgressFile, "__call__", progress)
        run_job(job, plan)
        files = [path for path in job.folder.rglob("*.*") if path.name not in ("report.json", "losses.csv")]
        assert not [path for path in files if path.name.startswith("checkpoint")]
        return {path.name: sha256_of(path) for path in files}

    undisturbed = run()
    shutil.rmtree(job.folder)
    monkeypatch.setattr(checkpoint.Checkpoint, "due", lambda self: True)
    with pytest.raises(KeyboardInterrupt):
        run(stop_at=-2)
    assert not job.folder.exists()
    assert len(list(job.folder.parent.glob(f".{job.folder.name}/checkpoint_*.pt"))) == 1
    assert run() == undisturbed
    output = capsys.readouterr().out
    assert f"{job.title} continues at step " in output and "at step 1 " not in output


def test_the_score_after_the_last_epoch_is_that_of_the_fold(tmp_path: Path) -> None:
    net = {**GNN, "epochs": 3, "pooler_dropout": 0.2, "target_transform": "standard"}
    plan = planned(tmp_path, stages={"net": net})
    job, competition = plan.jobs[0], plan.competition
    assert run_job(job, plan).status == "ok"
    scores = [row.held_out_score for row in read_losses(job.folder)]
    rows = rows_of_job(job, plan).held_out
    y_pred = read_predictions(job.oof_file, rows.ids, competition.targets)
    assert len(scores) == 3
    assert scores[-1] == pytest.approx(competition.scorer(rows.y, y_pred), rel=1e-6)
