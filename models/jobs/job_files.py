"""How the files of a job (models/job_folder.py) are written: in a temporary folder, which is then renamed."""

import shutil
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.errors import ConfigError, DataError
from core.files import read_json, read_table, remove_damaged, sha256_of, sync, write_atomically, write_json
from core.paths import BUNDLE_MANIFEST, Paths
from models.job_folder import CHECKPOINTS, FAILURE, PROGRESS, REPORT, TEST_FOLDER, TRACEBACK
from models.jobs.job import Job, std_file
from models.jobs.scheduler import JobResult


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
    log = None
    if error is not None:
        try:
            text = "".join(traceback.format_exception(error))
        except BaseException:  # the error of user-defined code may not be printable
            text = "".join(traceback.format_tb(error.__traceback__)) + result.error
        log = attempt / TRACEBACK
        write_atomically(log, text.encode("utf-8", "replace"))
    write_json(attempt / FAILURE, {"reason": result.reason, "error": result.error})
    return replace(result, log=log)


def read_failure(folder: Path) -> dict[str, Any]:
    """Return the record of the last failure of an unfinished job; empty if it has not failed."""
    path = attempt_folder(folder) / FAILURE
    if not path.exists():
        return {}
    try:
        record: dict[str, Any] = read_json(path, "reason", "error")
        return record
    except DataError:
        return {"reason": "error", "error": "its record is damaged"}


def recorded_failure(job: Job) -> JobResult:
    """Return how a job that is not finished ended last; skipped if it has not failed."""
    failure = read_failure(job.folder)
    if not failure:
        return JobResult(job.title, "skipped", "group", "not all of its jobs are finished")
    log = attempt_folder(job.folder) / TRACEBACK
    return JobResult(job.title, "failed", failure["reason"], failure["error"], log if log.exists() else None)


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Write report.json, last, with the digest of every other file.

    Predictions for other test tables may follow, and are not in it.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name[0] != ".":
            sync(path)
            files[str(path.relative_to(folder))] = {"sha256": sha256_of(path)}
    write_json(folder / REPORT, {**report, "files": files})


def verify_job(job: Job) -> dict[str, Any]:
    """Return the report of a finished job.

    Raises:
        DataError: if one of its files, other than predictions of test rows, is missing or has changed.
    """
    report: dict[str, Any] = read_json(job.folder / REPORT, "files", "seconds")
    for name, expected in report["files"].items():
        path = job.folder / name
        if name.startswith(f"{TEST_FOLDER}/"):
            continue
        if not path.is_file() or sha256_of(path) != expected["sha256"]:
            raise DataError(
                f"{path} {'has changed' if path.is_file() else 'is gone'} since the job wrote it; delete the "
                f"folder {job.folder} to train it again."
            )
    return report


def report_of(job: Job, test_key: str) -> dict[str, Any] | None:
    """Return the report of a finished job; None if one of its files is damaged: then the job is deleted.

    Damaged predictions of a test table are deleted alone, so that they are made again.
    """
    try:
        report = verify_job(job)
    except DataError:
        remove_damaged(job.folder, "the job is trained again")
        return None
    predictions = job.test_file(test_key)
    if predictions.is_file() and not all(
        _is_sound(path, job, report) for path in (predictions, std_file(predictions))
    ):
        remove_damaged(predictions, "its rows are predicted again")  # with their standard deviations
    return report


def _is_sound(path: Path, job: Job, report: dict[str, Any]) -> bool:
    """Return whether a table of a job is unchanged, or can be read if it was written after the report.

    A missing table is sound, unless the job has published it.
    """
    published = report["files"].get(str(path.relative_to(job.folder)))
    if published is not None:
        return path.is_file() and sha256_of(path) == published["sha256"]
    try:
        return not path.is_file() or not read_table(path).empty
    except DataError:
        return False


def resume(source: Path, paths: Paths) -> None:
    """Continue from an earlier run (`--from`); print the number of jobs.

    This is for a machine that starts empty, such as a notebook with an attached output. Jobs, finished or
    with a checkpoint, decisions of a budget and caches that are missing here are copied; existing files stay.

    Args:
        source: that output, read-only or not; the WORK_DIR of the earlier run is searched below it.
    """
    root = _work_root(source, paths.name)
    jobs = root.glob(f"{paths.name}/models/*/*/seed_*/*fold_*")
    n_copied = 0
    for job in jobs:
        here = paths.root / job.relative_to(root / paths.name)
        finished = (job / REPORT).exists()
        started = any(job.glob(CHECKPOINTS)) and not here.exists()
        if (finished or started) and not (here.with_name(here.name.lstrip(".")) / REPORT).exists():
            _copy_files(job, here)
            n_copied += 1
    _copy_files(root / "cache", paths.cache)
    for decisions in root.glob(f"{paths.name}/budget_*.json"):
        if not (paths.root / decisions.name).exists():
            write_atomically(paths.root / decisions.name, decisions.read_bytes())
    print(f"from {source}: {n_copied} jobs were copied, which are finished or have a checkpoint")


def _work_root(source: Path, name: str) -> Path:
    """Return the WORK_DIR of the earlier run: `source` or below it, but not in a notebook's bundle."""
    roots = {folder.parent.parent for folder in source.rglob(f"{name}/models") if folder.is_dir()}
    roots -= {root for root in roots if (root.parent / BUNDLE_MANIFEST).exists()}
    candidates = sorted(root for root in roots if roots.isdisjoint(root.parents))
    if len(candidates) != 1:
        raise ConfigError(
            f"--from takes a folder with the outputs of one run of {name} "
            f"(its WORK_DIR, with {name}/models); got {source} with: "
            f"{', '.join(map(str, candidates)) or 'none'}. Choose one of them."
        )
    return candidates[0]


def _copy_files(source: Path, target: Path) -> None:
    """Copy missing files, the reports of jobs last.

    Modes of folders are not copied, since they may be read-only.
    """
    for file in sorted(source.rglob("*"), key=lambda file: file.name == REPORT):
        copy = target / file.relative_to(source)
        if file.is_file() and not copy.exists():
            write_atomically(copy, file.read_bytes())
