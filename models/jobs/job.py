"""One job and its predictions: Parquet tables with `id` and a column of float64 per output, joined on id."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from competition.dataset import REFIT_FOLD
from core.errors import DataError
from core.files import read_table, write_table
from core.types import Array, Integers
from models.job_folder import OOF, REPORT, TEST_FOLDER

MAX_PREDICTION = 1e100
"""Largest finite prediction: squares of larger ones overflow in scores and blends."""


@dataclass(frozen=True)
class Job:
    """One fold of one seed of one stage, or a refit of that seed on all rows.

    Attributes:
        dependencies: jobs that must be finished before it: for a refit the folds of its seed.
        predicts_test: whether its test predictions are used; with `final_fit: refit` only refits are.
        n_rows: number of rows of the training table that it trains on, as a measure of its time.
    """

    stage: str
    seed: int
    fold: int
    folder: Path
    dependencies: "tuple[Job, ...]" = ()
    predicts_test: bool = True
    n_rows: int = 1

    @property
    def oof_file(self) -> Path:
        """File of the predictions for the rows of its fold."""
        return self.folder / OOF

    @property
    def title(self) -> str:
        """Name of the job in messages: `gnn/seed_0/fold_3`."""
        return f"{self.stage}/seed_{self.seed}/{self.folder.name.lstrip('.')}"  # .fold_3 while it is trained

    def test_file(self, test_key: str) -> Path:
        """Return the file of its predictions for a test table."""
        return self.folder / TEST_FOLDER / f"{test_key}.parquet"

    @property
    def finished(self) -> bool:
        """Whether report.json is there, which is written last."""
        return (self.folder / REPORT).exists()

    def has_predicted(self, test_key: str) -> bool:
        """Whether it is finished, and its predictions for a test table are there."""
        return self.finished and self.test_file(test_key).exists()


def std_file(file: Path) -> Path:
    """Return the file of standard deviations next to a file of predictions, for stages with `predict_std`."""
    return file.with_stem(f"{file.stem}_std")


def write_predictions(
    path: Path, ids: list[str], outputs: list[str], y_pred: Array, std: Array | None = None
) -> None:
    """Write predictions (n_rows, n_outputs) with their ids, and in another file their standard deviations.

    Raises:
        DataError: if a prediction is not finite.
    """
    if std is not None:  # first, since the file of predictions says that a job has predicted the table
        write_predictions(std_file(path), ids, outputs, std)
    bad = ~(np.abs(y_pred) <= MAX_PREDICTION).all(axis=1)  # NaN too
    if bad.any():
        raise DataError(
            f"{path} would have {int(bad.sum())} predictions that are not finite, first of id "
            f"{ids[bad.argmax()]!r}. "
            "Lower the learning_rate of a neural stage, or change its precision or target_transform."
        )
    table = pd.DataFrame(y_pred.astype(np.float64), columns=outputs)
    table.insert(0, "id", ids)
    write_table(path, table)


def read_predictions(path: Path, ids: list[str], outputs: list[str]) -> Array:
    """Return predictions (n_rows, n_outputs) in the order of `ids`.

    Raises:
        DataError: if the file is not a table, if an id is missing, repeated or unknown, or if a value is not
            finite.
    """
    table = read_table(path)
    predictions = table.set_index("id").reindex(columns=outputs).astype(float) if "id" in table else table
    in_order = list(predictions.index) == ids
    is_same = in_order or sorted(predictions.index) == sorted(ids)
    if not is_same or not np.isfinite(predictions.to_numpy()).all():
        raise DataError(
            f"{path} must have {len(ids)} ids once each, with finite {', '.join(outputs)}; delete "
            f"{path.parent} and run again."
        )
    return (predictions if in_order else predictions.loc[ids]).to_numpy()


def stage_oof(jobs: list[Job], ids: list[str], folds: Integers, outputs: list[str]) -> Array:
    """Return out-of-fold predictions of a stage, mean over its seeds, (n_rows, n_outputs); NaN in fold -1."""
    files = {job: job.oof_file for job in jobs if job.fold != REFIT_FOLD}
    mean = _join_folds(files, ids, folds, outputs)
    if np.isnan(mean[folds >= 0]).any():
        raise DataError(f"stage {jobs[0].stage} lacks the predictions of a fold; run ./run.sh train NAME.")
    return mean


def stage_oof_std(jobs: list[Job], ids: list[str], folds: Integers, outputs: list[str]) -> Array | None:
    """Return the standard deviations that a stage predicts for held-out rows, mean over its seeds.

    Returns:
        (n_rows, n_outputs), NaN in fold -1; None if a job has no standard deviations.
    """
    files = {job: std_file(job.oof_file) for job in jobs if job.fold != REFIT_FOLD}
    if not all(file.exists() for file in files.values()):
        return None
    return _join_folds(files, ids, folds, outputs)


def _join_folds(files: dict[Job, Path], ids: list[str], folds: Integers, outputs: list[str]) -> Array:
    """Return the tables of all folds as one, mean over seeds, (n_rows, n_outputs); NaN in other rows."""
    values_of_seed: dict[int, Array] = {}
    for job, file in files.items():
        values = values_of_seed.setdefault(job.seed, np.full((len(ids), len(outputs)), np.nan))
        held_out = np.flatnonzero(folds == job.fold)
        values[held_out] = read_predictions(file, [ids[i] for i in held_out], outputs)
    return np.asarray(np.mean(list(values_of_seed.values()), axis=0))


def stage_test_std(jobs: list[Job], test_key: str, ids: list[str], outputs: list[str]) -> Array | None:
    """Return the standard deviations that a stage predicts for test rows, (n_rows, n_outputs).

    They are the mean over its jobs. None if a job has no standard deviations.
    """
    files = [std_file(job.test_file(test_key)) for job in jobs if job.predicts_test]
    if not all(file.exists() for file in files):
        return None
    return np.mean([read_predictions(file, ids, outputs) for file in files], axis=0)


def stage_test(jobs: list[Job], test_key: str, ids: list[str], outputs: list[str]) -> Array:
    """Return test predictions of a stage, (n_rows, n_outputs), in the order of `ids`.

    They are the mean over folds and seeds, the mean of the refits over seeds, or the mean of both
    (`final_fit`).
    """
    fold_jobs = [job for job in jobs if job.predicts_test and job.fold != REFIT_FOLD]
    refits = [job for job in jobs if job.predicts_test and job.fold == REFIT_FOLD]
    means = [mean_test(group, test_key, ids, outputs) for group in (fold_jobs, refits) if group]
    return np.mean(means, axis=0)


def mean_test(jobs: list[Job], test_key: str, ids: list[str], outputs: list[str]) -> Array:
    """Return the mean test predictions of jobs, (n_rows, n_outputs), in the order of `ids`."""
    return np.mean([read_predictions(job.test_file(test_key), ids, outputs) for job in jobs], axis=0)
