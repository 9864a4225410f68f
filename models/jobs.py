"""Jobs: one (stage, seed, fold) each, its folder named by a key of all that can change its result.

    work/<name>/models/<stage>/<key>/seed_<s>/fold_<k>/   weights, oof.csv, report.json (written last)
                                              .../test/<test key>.csv
                                     seed_<s>/fold_all/   of a refit on all rows: the same without oof.csv

A job is worked on in a folder of another name (`models/attempts.py`). A finished one is never overwritten: other
settings, tables, folds, weights or code make another key.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from competition.config import CompetitionConfig
from competition.errors import DataError
from competition.files import digest, read_json, read_table, read_text_table, sha256_of, write_json, write_table
from competition.metrics import made_of_absolute_errors
from competition.paths import PROJECT, Paths
from folds.table import read_folds, time_ordered
from models.code import code_digest_of
from models.config import TreesStage
from models.file import files_of
from models.stage import require_inputs
from models.weights import digest_of_weights

REPORT = "report.json"
ALL = -2
"""Fold of a refit on all rows: no row has it in folds.csv, so none is held out."""


@dataclass(frozen=True)
class Job:
    """One fold of one seed of one stage, or a refit of that seed on all rows."""

    stage: str
    key: str
    seed: int
    fold: int
    folder: Path
    other_code: bool = False
    """Finished by other code than today's, and accepted with --reuse."""
    needs: tuple[Job, ...] = ()
    """Jobs to be finished before it: those that give it pseudo-labels; of a refit, the folds of its seed as well."""
    in_column: bool = True
    """Whether its test predictions are in the stage's column; those of folds are not with `final_fit: refit`."""

    @property
    def name(self) -> str:
        """Names it among all of its competition."""
        return f"{self.stage}.{self.key}.seed_{self.seed}.{self.folder.name}"

    def test_file(self, test_key: str) -> Path:
        """Its predictions for the test table of that key."""
        return self.folder / "test" / f"{test_key}.csv"

    def has_predicted(self, test_key: str) -> bool:
        """Whether its predictions for a test table are there and as they were written; else they are made again."""
        path = self.test_file(test_key)
        known = path.with_suffix(".json")
        return path.is_file() and known.is_file() and read_json(known, "sha256")["sha256"] == sha256_of(path)

    @property
    def finished(self) -> bool:
        """Whether report.json is there, which is written last."""
        return (self.folder / REPORT).exists()

    def can_start(self) -> bool:
        """Whether all that it needs is finished."""
        return all(job.finished for job in self.needs)


@dataclass(frozen=True)
class Plan:
    """All jobs of a competition as its YAML and tables stand now."""

    jobs: list[Job]
    keys: dict[str, str]
    """Key of each stage."""
    n_folds: int
    test_key: str

    def of(self, stage: str) -> list[Job]:
        """Jobs of one stage, by seed and fold, each seed's refit behind its folds."""
        return [job for job in self.jobs if job.stage == stage]

    def done_by_seed(self, stage: str) -> dict[int, list[bool]]:
        """Seed of a stage -> whether each of its jobs is finished and has predicted the test table."""
        done: dict[int, list[bool]] = {}
        for job in self.of(stage):
            done.setdefault(job.seed, []).append(job.finished and job.has_predicted(self.test_key))
        return done


def plan(competition: CompetitionConfig, stages: dict[str, Any], paths: Paths, reuse: bool = False) -> Plan:
    """The jobs of all stages, in the YAML's order, those with pseudo-labels last.

    Reads prepared tables, folds.csv and weights; trains nothing.

    Raises:
        ConfigError: if weights or predictions made elsewhere cannot be found, or a stage has nothing to learn from.
        DataError: if a table is missing, or --reuse finds several versions to choose from.
    """
    train_digest, test_key = sha256_of_required(paths.train), sha256_of_required(paths.test)[:16]
    folds = read_folds(paths.folds, list(read_text_table(paths.train)[competition.id]))
    n_folds = int(folds.max()) + 1
    absolute = made_of_absolute_errors(competition.metric)
    jobs: list[Job] = []
    keys: dict[str, str] = {}
    for name, stage in sorted(stages.items(), key=lambda item: item[1].pseudo_labels is not None):
        pseudo = stage.pseudo_labels
        sources = sorted(set(pseudo.of)) if pseudo else []
        labels = [[source, keys[source], sorted(stages[source].seeds)] for source in sources]
        require_inputs(stage, competition)
        settings = {
            "stage": stage.model_dump(mode="json", exclude={"seeds", "code", "folder", "final_fit", "pseudo_labels"}),
            "columns": competition.model_dump(
                mode="json",
                include={
                    "id",
                    "targets",
                    "smiles",
                    "text",
                    "numeric",
                    "categorical",
                    "auxiliary_targets",
                    "weight",
                    "seed",
                },
            ),
            "train": train_digest,
            "folds": sha256_of(paths.folds),
            "weights": digest_of_weights(getattr(stage, "weights", None)),
            **({"test": test_key} if stage.sees_test_inputs else {}),
            **({"time_ordered": True} if time_ordered(paths.folds_report) else {}),
            **(
                {"files": [sha256_of(f) for f in files_of(stage)], "named": competition.columns_in_sample}
                if stage.kind == "file"
                else {}
            ),
            **({"labels": labels, "weight": pseudo.weight} if pseudo else {}),
            **({"absolute_errors": True} if isinstance(stage, TreesStage) and absolute else {}),
        }
        key = f"{digest(settings, 12)}-{code_digest(stage)[:6]}"
        other = _version_to_reuse(paths, name, key) if reuse else None
        keys[name] = other or key
        labelling = [job for source in sources for job in jobs if job.stage == source and job.fold != ALL]
        jobs += jobs_of(name, stage, keys[name], n_folds, paths, other is not None, labelling)
    return Plan(jobs, keys, n_folds, test_key)


def jobs_of(
    name: str, stage: Any, key: str, n_folds: int, paths: Paths, other_code: bool = False, labelling: Sequence[Job] = ()
) -> list[Job]:
    """Jobs of one stage, by seed and fold, each seed's refit behind its folds.

    Args:
        labelling: jobs of all folds of the stages that give it pseudo-labels.
    """
    jobs = []
    for seed in sorted(set(stage.seeds)):
        folds = [
            Job(
                name, key, seed, fold, paths.job(name, key, seed, fold), other_code,
                tuple(job for job in labelling if job.fold == fold), stage.final_fit != "refit",
            )
            for fold in range(n_folds)
        ]  # fmt: skip
        jobs += folds
        if stage.final_fit != "folds":
            folder = paths.job(name, key, seed, "all")
            jobs.append(Job(name, key, seed, ALL, folder, other_code, (*folds, *labelling)))
    return jobs


def sha256_of_required(path: Path) -> str:
    """Digest of a file that an earlier step writes.

    Raises:
        DataError: if it is not there.
    """
    if not path.exists():
        raise DataError(f"{path} must exist before this step; run ./run.sh full, or the steps before this one.")
    return sha256_of(path)


def _version_to_reuse(paths: Paths, stage: str, key: str) -> str | None:
    """Key of finished jobs with the same settings and other code, if jobs of today's code are not there."""
    settings, _ = key.split("-")
    root = paths.root / "models" / stage
    found = sorted(
        folder.name
        for folder in root.glob(f"{settings}-*")
        if folder.name != key and any(folder.glob(f"seed_*/fold_*/{REPORT}"))
    )
    if not found or any((root / key).glob(f"seed_*/fold_*/{REPORT}")):
        return None
    if len(found) > 1:
        raise DataError(
            f"--reuse must find one version of stage {stage}; {root} has {', '.join(found)}. Delete all but one."
        )
    return found[0]


def code_digest(stage: Any) -> str:
    """Digest of the code of a stage: its file and what that imports from `models`; its transform of targets."""
    file, name = (PROJECT / "models" / f"{stage.kind}.py", "")
    if stage.kind == "custom":
        own, _, name = stage.code.rpartition(":")
        file = Path(own)
    transform = _digest_of(PROJECT / "models" / "targets.py") if stage.target_transform != "none" else ""
    return digest([_digest_of(file), name, transform])


_digest_of = functools.cache(code_digest_of)


def publish(job: Job, report: dict[str, Any]) -> None:
    """Mark a job as finished: list every file of its folder with size and digest, in report.json, last.

    Files whose names begin with a dot are marks of attempts and what a killed process left, and are left out.
    """
    files = {
        str(path.relative_to(job.folder)): {"size": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(job.folder.rglob("*"))
        if path.is_file() and path.name[0] != "." and "test" not in path.relative_to(job.folder).parts[:1]
    }
    write_json(job.folder / REPORT, {**report, "files": files})


def verify(job: Job) -> dict[str, Any]:
    """Report of a finished job whose files are all as they were written.

    Raises:
        DataError: for a missing or changed file.
    """
    report: dict[str, Any] = read_json(job.folder / REPORT, "files", "seconds")
    for name, expected in report["files"].items():
        path = job.folder / name
        if not path.is_file() or path.stat().st_size != expected["size"] or sha256_of(path) != expected["sha256"]:
            state = "has changed" if path.is_file() else "is gone"
            raise DataError(
                f"{path} must be as the job wrote it, but it {state}; delete the folder {job.folder} to train it again."
            )
    return report


def write_predictions(path: Path, ids: list[str], targets: list[str], y_pred: NDArray[np.float64]) -> None:
    """Write predictions (n_rows, n_targets) with their ids.

    Raises:
        DataError: if one is not finite.
    """
    if y_pred.shape != (len(ids), len(targets)):
        raise ValueError(f"predictions must be {(len(ids), len(targets))}, found {y_pred.shape}")
    bad = ~np.isfinite(y_pred).all(axis=1)
    if bad.any():
        raise DataError(
            f"predictions must be finite; {path} would have {int(bad.sum())} rows that are not (first id "
            f"{ids[int(bad.argmax())]!r}). Lower the learning_rate of a neural stage, or change its "
            "precision or target_transform."
        )
    write_table(path, pd.concat([pd.Series(ids, name="id"), pd.DataFrame(y_pred, columns=targets)], axis=1))


def write_test_predictions(
    job: Job, test_key: str, ids: list[str], targets: list[str], y_pred: NDArray[np.float64]
) -> None:
    """Write a job's predictions for a test table and, last, their digest."""
    path = job.test_file(test_key)
    write_predictions(path, ids, targets, y_pred)
    write_json(path.with_suffix(".json"), {"sha256": sha256_of(path)})


def read_predictions(path: Path, ids: list[str], targets: list[str]) -> NDArray[np.float64]:
    """Predictions (n_rows, n_targets) in the order of `ids`.

    Raises:
        DataError: if an id is missing, doubled or foreign, or a value is not finite.
    """
    table = read_table(path, ["id"])
    if list(table.columns) != ["id", *targets] or table["id"].duplicated().any() or set(table["id"]) != set(ids):
        raise DataError(
            f"{path} must name {len(ids)} ids once each with {', '.join(targets)}; delete it and run again."
        )
    y_pred = table.set_index("id").loc[ids, targets].to_numpy(dtype=np.float64)
    if not np.isfinite(y_pred).all():
        raise DataError(f"{path} must hold finite numbers; delete it and run again.")
    return y_pred


def stage_oof(jobs: list[Job], ids: list[str], folds: NDArray[np.int64], targets: list[str]) -> NDArray[np.float64]:
    """Out-of-fold predictions of one stage, mean over its seeds, (n_rows, n_targets); NaN where fold is -1.

    Args:
        jobs: all of the stage; those of refits are left out.
        ids, folds: training rows and their folds, in the order of the result.

    Raises:
        DataError: if a job is unfinished or its rows are not those of its fold.
    """
    of_seed: dict[int, NDArray[np.float64]] = {}
    for job in [job for job in jobs if job.fold != ALL]:
        if not job.finished:
            raise DataError(
                f"every job of stage {job.stage} must be finished; {job.folder} is not. Run ./run.sh train."
            )
        oof = of_seed.setdefault(job.seed, np.full((len(ids), len(targets)), np.nan))
        held_out = folds == job.fold
        oof[held_out] = read_predictions(
            job.folder / "oof.csv", [i for i, held in zip(ids, held_out, strict=True) if held], targets
        )
    mean: NDArray[np.float64] = np.mean([of_seed[seed] for seed in sorted(of_seed)], axis=0)
    if np.isnan(mean[folds >= 0]).any():
        raise DataError(f"every fold of stage {jobs[0].stage} must have predictions; delete its folder and run again.")
    return mean


def stage_test(jobs: list[Job], test_key: str, ids: list[str], targets: list[str]) -> NDArray[np.float64]:
    """Test predictions of one stage, (n_rows, n_targets), in the order of `ids`.

    They are the mean over folds and seeds, that of the refits over seeds, or the mean of the two (`final_fit`).

    Raises:
        DataError: if a job has none for this test table.
    """
    of_kind = [[job for job in jobs if job.in_column and (job.fold == ALL) is refit] for refit in (False, True)]
    return np.mean([mean_test(part, test_key, ids, targets) for part in of_kind if part], axis=0)


def mean_test(jobs: list[Job], test_key: str, ids: list[str], targets: list[str]) -> NDArray[np.float64]:
    """Mean test predictions of jobs, (n_rows, n_targets), in the order of `ids`.

    Raises:
        DataError: if a job has none for this test table.
    """
    for job in jobs:
        if not job.has_predicted(test_key):
            raise DataError(
                f"{job.test_file(test_key)} must be as the job wrote it; run ./run.sh train to make it again."
            )
    return np.mean([read_predictions(job.test_file(test_key), ids, targets) for job in jobs], axis=0)
