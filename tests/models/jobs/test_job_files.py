"""The folder of a job, and its tables of predictions: joined on id, refused where an id or a number is missing."""

from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from competition.dataset import REFIT_FOLD
from core.errors import DataError
from models.jobs.job_files import start_attempt, verify_job, write_report
from models.jobs.plan import Job
from models.jobs.predictions import read_predictions, stage_oof, stage_test, write_predictions


def test_out_of_fold_predictions_join_on_id_and_are_means_over_seeds(tmp_path: Path) -> None:
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
def test_a_table_with_a_missing_doubled_foreign_or_empty_prediction_is_refused(
    tmp_path: Path, table: str, words: str
) -> None:
    file = tmp_path / "oof.parquet"
    file.write_bytes(b"PAR1 cut")
    if table:
        pd.read_csv(StringIO(table)).to_parquet(file, index=False)
    with pytest.raises(DataError, match=words):
        read_predictions(file, ["a", "b"], ["y"])


def test_predictions_keep_every_digit_and_those_whose_squares_are_not_finite_are_not_written(
    tmp_path: Path,
) -> None:
    y_pred = np.random.default_rng(0).normal(size=(2, 1)) / 3
    write_predictions(tmp_path / "good.parquet", ["007", "NA"], ["y"], y_pred)
    assert np.array_equal(read_predictions(tmp_path / "good.parquet", ["NA", "007"], ["y"]), y_pred[::-1])
    for value in (np.nan, 1e308):
        with pytest.raises(DataError, match="1 predictions that are not finite, first of id 'b'"):
            write_predictions(tmp_path / "bad.parquet", ["a", "b"], ["y"], np.array([[1.0], [value]]))
    assert not (tmp_path / "bad.parquet").exists()


@pytest.mark.parametrize(("final_fit", "expected"), [("folds", 52), ("refit", 60), ("both", 56)])
def test_test_predictions_are_the_mean_of_folds_the_refit_or_both(
    tmp_path: Path, final_fit: str, expected: float
) -> None:
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
def test_what_was_left_unfinished_is_thrown_away_except_for_checkpoints(
    tmp_path: Path, left: str, kept: list[str]
) -> None:
    (tmp_path / left / "test").mkdir(parents=True)
    (tmp_path / left / "weights").write_text("half")
    (tmp_path / left / "checkpoint.pt").write_text("epoch 3")
    second_attempt = start_attempt(tmp_path / "fold_0")
    assert not (tmp_path / "fold_0").exists()
    assert [path.name for path in second_attempt.iterdir()] == kept


def test_a_changed_or_missing_file_of_a_finished_job_is_an_error(tmp_path: Path) -> None:
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
