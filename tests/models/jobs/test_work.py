"""One job from prepared tables to a published folder: alignment, leaks, resumption, its folder and its tables."""

import shutil
from io import StringIO

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem

from competition.dataset import REFIT_FOLD, read_rows
from core.errors import DataError
from core.files import read_table, sha256_of
from folds.make import read_folds
from models.jobs import compute
from models.jobs.job import Job, read_predictions, stage_oof, stage_test, write_predictions
from models.jobs.job_files import report_of, start_attempt, verify_job, write_report
from models.jobs.progress import ProgressFile
from models.jobs.run_job import run_job
from models.training import trainer
from models.training.loss_log import read_losses
from tests.conftest import mixed_tables
from tests.models.jobs.common import GNN, STAGES, TREES, planned, rows_of


def run_all(folder, stage, **sections):
    """Train every job of a stage, the last first; rows, their out-of-fold predictions and test predictions."""
    plan = planned(folder, stages={"one": stage}, **sections)
    for job in reversed(plan.jobs):
        assert run_job(job, plan).status == "ok"
    rows = read_rows(plan.paths.train, plan.competition.columns, True)
    oof = stage_oof(plan.jobs, rows.ids, rows.folds, ["lumo", "mu"])
    test_ids = list(read_table(plan.paths.test)["id"])
    return rows, oof, stage_test(plan.jobs, plan.test_key, test_ids, ["lumo", "mu"])


def test_predictions_stay_with_their_ids_through_shuffled_folds_unordered_rows_and_pieces(
    tmp_path, monkeypatch
):
    """The twenty rows of a fold are predicted in three pieces."""
    monkeypatch.setattr(compute, "PIECE", 9)
    rows, oof, test = run_all(tmp_path, {"kind": f"{STAGES}:Echo", "most_rows": 9})
    assert rows.ids != sorted(rows.ids)
    assert oof[:, 0].tolist() == [float(i[1:]) for i in rows.ids]
    assert test[:, 1].tolist() == [-float(i[1:]) for i in mixed_tables()[1]["id"]]


def test_a_stage_that_memorises_scores_at_chance_on_random_labels(tmp_path):
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


def test_a_job_trains_on_other_folds_and_a_refit_on_every_row(tmp_path):
    plan = planned(tmp_path, stages={"one": {**TREES, "final_fit": "refit"}})
    ids = np.array(read_table(plan.paths.train)["id"])
    folds = read_folds(plan.paths.folds, list(ids))
    for job, fold in zip(plan.jobs, (0, 1, 2, REFIT_FOLD), strict=True):
        rows = rows_of(job, plan)
        assert rows.train.ids == list(ids[folds != fold])
        assert rows.held_out.ids == list(ids[folds == fold])


@pytest.mark.parametrize("final_fit", ["folds", "both"])
def test_a_job_that_was_stopped_inside_its_fold_goes_on_to_the_same_bytes(
    tmp_path, monkeypatch, capsys, final_fit
):
    """The last job is that of fold 2, or the refit."""
    gnn = {**GNN, "epochs": 4, "batch_size": 16, "pooler_dropout": 0.2, "final_fit": final_fit}
    plan = planned(tmp_path, stages={"graph": gnn})
    job = plan.jobs[-1]
    report_progress = ProgressFile.__call__

    def run(stop_at=np.inf):
        def progress(self, done, total):
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
    monkeypatch.setattr(trainer.Checkpoint, "due", lambda self: True)
    with pytest.raises(KeyboardInterrupt):
        run(stop_at=-2)
    assert not job.folder.exists()
    assert len(list(job.folder.parent.glob(f".{job.folder.name}/checkpoint_*.pt"))) == 1
    assert run() == undisturbed
    output = capsys.readouterr().out
    assert f"{job.title} continues at step " in output and "at step 1 " not in output


def test_the_score_after_the_last_epoch_is_that_of_the_fold(tmp_path):
    net = {**GNN, "epochs": 3, "pooler_dropout": 0.2, "target_transform": "quantile"}
    plan = planned(tmp_path, stages={"net": net})
    job, competition = plan.jobs[0], plan.competition
    assert run_job(job, plan).status == "ok"
    scores = [row.held_out_score for row in read_losses(job.folder)]
    rows = rows_of(job, plan).held_out
    y_pred = read_predictions(job.oof_file, rows.ids, competition.targets)
    assert len(scores) == 3
    assert scores[-1] == pytest.approx(competition.scorer(rows.y, y_pred), rel=1e-6)


def test_out_of_fold_predictions_join_on_id_and_are_means_over_seeds(tmp_path):
    """A row's own number is its prediction, 10 more in the second seed, in any order; a refit takes no part.

    Row 9 has fold -1 and is never predicted.
    """
    ids = [f"r{i}" for i in range(10)]
    folds = np.array([2, 0, 1, 1, 0, 2, 0, 1, 2, -1])
    jobs = [Job("echo", 0, REFIT_FOLD, tmp_path / "refit")]
    for seed in (0, 1):
        for fold in (0, 1, 2):
            jobs.append(Job("echo", seed, fold, tmp_path / f"{seed}_{fold}"))
            held_out = np.random.default_rng(seed).permutation(np.flatnonzero(folds == fold))
            held_out_ids = [ids[i] for i in held_out]
            write_predictions(jobs[-1].oof_file, held_out_ids, ["y"], held_out[:, None] + 10.0 * seed)
    oof = stage_oof(jobs, ids, folds, ["y"])
    assert oof[:9, 0].tolist() == [i + 5.0 for i in range(9)]
    assert np.isnan(oof[9]).all()
    with pytest.raises(DataError, match="lacks the predictions of a fold"):
        stage_oof(jobs[:-1], ids, folds, ["y"])


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("id,y\na,1", "once each"),
        ("id,y\na,1\na,2", "once each"),
        ("id,y\na,1\nz,2", "once each"),
        ("id,x\na,1\nb,2", "once each"),
        ("id,y\na,1\nb,inf", "finite y"),
        ("", "broken"),
    ],
)
def test_a_table_with_a_missing_doubled_foreign_or_empty_prediction_is_refused(tmp_path, table, words):
    file = tmp_path / "oof.parquet"
    file.write_bytes(b"PAR1 cut")
    if table:
        pd.read_csv(StringIO(table)).to_parquet(file, index=False)
    with pytest.raises(DataError, match=words):
        read_predictions(file, ["a", "b"], ["y"])


def test_predictions_keep_every_digit_and_those_whose_squares_are_not_finite_are_not_written(
    tmp_path,
):
    y_pred = np.random.default_rng(0).normal(size=(2, 1)) / 3
    write_predictions(tmp_path / "good.parquet", ["007", "NA"], ["y"], y_pred)
    assert np.array_equal(read_predictions(tmp_path / "good.parquet", ["NA", "007"], ["y"]), y_pred[::-1])
    for value in (np.nan, 1e308):
        with pytest.raises(DataError, match="1 predictions that are not finite, first of id 'b'"):
            write_predictions(tmp_path / "bad.parquet", ["a", "b"], ["y"], np.array([[1.0], [value]]))
    assert not (tmp_path / "bad.parquet").exists()


@pytest.mark.parametrize(("final_fit", "expected"), [("folds", 52), ("refit", 60), ("both", 56)])
def test_test_predictions_are_the_mean_of_folds_the_refit_or_both(tmp_path, final_fit, expected):
    """Two folds that say 1 and 3, a refit that says 10, and 100 more in the second seed: 2, 10, 6, and 50 more."""
    jobs = []
    for seed in (0, 1):
        for fold, value in ((0, 1.0), (1, 3.0), (REFIT_FOLD, 10.0)):
            predicts_test = fold == REFIT_FOLD or final_fit != "refit"
            job = Job("s", seed, fold, tmp_path / f"{seed}_{fold}", predicts_test=predicts_test)
            if fold != REFIT_FOLD or final_fit != "folds":
                write_predictions(job.test_file("t"), ["a"], ["y"], np.array([[value + 100 * seed]]))
                jobs.append(job)
    assert stage_test(jobs, "t", ["a"], ["y"]).tolist() == [[expected]]


@pytest.mark.parametrize(("left", "kept"), [(".fold_0", ["checkpoint.pt"]), ("fold_0", [])])
def test_what_was_left_unfinished_is_thrown_away_except_for_checkpoints(tmp_path, left, kept):
    (tmp_path / left / "test").mkdir(parents=True)
    (tmp_path / left / "weights").write_text("half")
    (tmp_path / left / "checkpoint.pt").write_text("epoch 3")
    second_attempt = start_attempt(tmp_path / "fold_0")
    assert not (tmp_path / "fold_0").exists()
    assert [path.name for path in second_attempt.iterdir()] == kept


def test_a_job_that_was_stopped_before_its_first_checkpoint_starts_without_progress(tmp_path):
    (tmp_path / ".fold_0").mkdir()
    (tmp_path / ".fold_0" / "progress.json").write_text("{}")
    assert not list(start_attempt(tmp_path / "fold_0").iterdir())


def test_a_changed_or_missing_file_of_a_finished_job_is_an_error(tmp_path):
    job = Job("s", 0, 0, tmp_path)
    (tmp_path / "weights").write_bytes(b"abc")
    write_report(tmp_path, {"seconds": 1.0})
    assert verify_job(job)["seconds"] == 1.0
    (tmp_path / "weights").write_bytes(b"abd")
    with pytest.raises(DataError, match=r"weights has changed since .* delete the folder"):
        verify_job(job)
    (tmp_path / "weights").unlink()
    with pytest.raises(DataError, match="is gone"):
        verify_job(job)


@pytest.mark.parametrize("damaged", ["{}", "{}_std"])
def test_damaged_predictions_of_test_rows_are_made_again_with_their_standard_deviations(
    tmp_path, capsys, damaged
):
    job = Job("s", 0, 0, tmp_path)
    ids, numbers = ["a", "b"], np.ones((2, 1))
    write_predictions(job.test_file("published"), ids, ["y"], numbers, numbers)
    write_report(tmp_path, {"seconds": 1.0})
    write_predictions(job.test_file("later"), ids, ["y"], numbers, numbers)
    for key in ("published", "later"):
        assert report_of(job, key) and job.has_predicted(key)
        file = job.test_file(damaged.format(key))
        file.write_bytes(file.read_bytes()[:50])
        assert report_of(job, key) and not job.has_predicted(key)
        assert "its rows are predicted again" in capsys.readouterr().out
