"""The files of a job. A job is trained in a temporary folder, and published by renaming it.

    seed_<s>/.fold_<k>/    running, killed or failed: checkpoints, progress.json, losses.csv, failed.json,
                           traceback.txt
    seed_<s>/fold_<k>/     published: weights, predictions, and report.json with sizes and sha256

Predictions are Parquet tables with `id` and a column of float64 per output. They are joined on the id into one
table per stage.
"""

import shutil
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.errors import DataError
from core.files import read_json, read_table, sha256_of, write_atomically, write_json, write_table
from core.types import Array, Integers
from models.jobs.plan import REFIT_FOLD, REPORT, Job
from models.jobs.progress import PROGRESS
from models.jobs.scheduler import JobResult
from models.training.hardware import machine

CHECKPOINTS = "checkpoint*.pt"
MAX_PREDICTION = 1e100
"""Largest finite prediction: squares of larger ones overflow in scores and blends."""
FAILURE, TRACEBACK = "failed.json", "traceback.txt"


def attempt_folder(folder: Path) -> Path:
    """Return the temporary folder of a job that is published as `folder`."""
    return folder.with_name(f".{folder.name}")


def start_attempt(folder: Path) -> Path:
    """Return the temporary folder of a job that starts.

    From an earlier attempt it keeps the checkpoints with their progress, and the record of its failure.
    """
    shutil.rmtree(folder, ignore_errors=True)  # it has no report, so it is an incomplete copy
    attempt = attempt_folder(folder)
    attempt.mkdir(parents=True, exist_ok=True)
    files_to_keep = {FAILURE}
    checkpoints = list(attempt.glob(CHECKPOINTS))
    if checkpoints:
        files_to_keep |= {PROGRESS, *(path.name for path in checkpoints)}
    for path in attempt.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in files_to_keep:
            path.unlink()
    return attempt


def clear_attempt(attempt: Path) -> None:
    """Remove the files that only an unfinished job has."""
    for path in [*attempt.glob(CHECKPOINTS), *(attempt / name for name in (PROGRESS, FAILURE, TRACEBACK))]:
        path.unlink(missing_ok=True)


def write_failure(folder: Path, result: JobResult, error: BaseException | None = None) -> JobResult:
    """Write failed.json and traceback.txt next to the checkpoints of a job; return the result with the log.

    Args:
        error: the exception; None for a worker that died.
    """
    attempt = attempt_folder(folder)
    previous = read_failure(folder)
    log = None
    if error is not None:
        try:
            text = "".join(traceback.format_exception(error))
        except BaseException:  # the error of user-defined code may not be printable
            text = "".join(traceback.format_tb(error.__traceback__)) + result.error
        log = attempt / TRACEBACK
        write_atomically(log, text.encode("utf-8", "replace"))
    record = {
        "reason": result.reason,
        "error": result.error,
        "seconds": round(result.seconds, 1),
        "attempts": previous.get("attempts", 0) + 1,
        "same_error_before": previous.get("error") == result.error,
        "machine": machine(),
    }
    write_json(attempt / FAILURE, record)
    return replace(result, log=log)


def read_failure(folder: Path) -> dict[str, Any]:
    """Return the record of the last failure of an unfinished job; empty if it has not failed."""
    path = attempt_folder(folder) / FAILURE
    if not path.exists():
        return {}
    try:
        record = dict(read_json(path, "reason", "error", "attempts"))
        return {**record, "attempts": int(record["attempts"])}
    except (DataError, TypeError, ValueError):
        return {"reason": "error", "error": "its record is damaged", "attempts": 0}


def recorded_failure(job: Job) -> JobResult:
    """Return how a job that is not finished ended last; skipped if it has not failed."""
    failure = read_failure(job.folder)
    if not failure:
        return JobResult(job.title, "skipped", "group", "not all of its jobs are finished")
    log = attempt_folder(job.folder) / TRACEBACK
    return JobResult(job.title, "failed", failure["reason"], failure["error"], log if log.exists() else None)


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Write report.json, last, with the size and digest of every other file.

    The predictions for test tables are not in it, since more of them may follow.
    """
    files = {
        str(path.relative_to(folder)): {"size": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name[0] != "." and "test" not in path.relative_to(folder).parts[:1]
    }
    write_json(folder / REPORT, {**report, "files": files})


def verify_job(job: Job) -> dict[str, Any]:
    """Return the report of a finished job.

    Raises:
        DataError: if one of its files is missing or has changed.
    """
    report: dict[str, Any] = read_json(job.folder / REPORT, "files", "seconds")
    for name, expected in report["files"].items():
        path = job.folder / name
        if not path.is_file() or sha256_of(path) != expected["sha256"]:
            raise DataError(
                f"{path} {'has changed' if path.is_file() else 'is gone'} since the job wrote it; delete the "
                f"folder {job.folder} to train it again."
            )
    return report


def write_predictions(path: Path, ids: list[str], outputs: list[str], y_pred: Array) -> None:
    """Write predictions (n_rows, n_outputs) with their ids.

    Raises:
        DataError: if a prediction is not finite.
    """
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
    if sorted(predictions.index) != sorted(ids) or not np.isfinite(predictions.to_numpy()).all():
        raise DataError(
            f"{path} must have {len(ids)} ids once each, with finite {', '.join(outputs)}; delete "
            f"{path.parent} and run again."
        )
    return predictions.loc[ids].to_numpy()


def stage_oof(jobs: list[Job], ids: list[str], folds: Integers, outputs: list[str]) -> Array:
    """Return out-of-fold predictions of a stage, mean over its seeds, (n_rows, n_outputs); NaN in fold -1."""
    files = {job: job.oof_file for job in jobs if job.fold != REFIT_FOLD}
    mean = _join_folds(files, ids, folds, outputs)
    if np.isnan(mean[folds >= 0]).any():
        raise DataError(f"stage {jobs[0].stage} lacks the predictions of a fold; run ./run.sh train.")
    return mean


def stage_oof_std(jobs: list[Job], ids: list[str], folds: Integers, outputs: list[str]) -> Array | None:
    """Return the standard deviations that a stage predicts for held-out rows, mean over its seeds.

    Returns:
        (n_rows, n_outputs), NaN in fold -1; None if a job has no standard deviations.
    """
    files = {job: job.oof_std_file for job in jobs if job.fold != REFIT_FOLD}
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
    """Return the standard deviations that a stage predicts for test rows, mean over its jobs, (n_rows, n_outputs).

    None if a job has no standard deviations.
    """
    files = [job.test_std_file(test_key) for job in jobs if job.predicts_test]
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
