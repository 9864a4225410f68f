"""Jobs: one (stage, seed, fold) each, its folder named by a key of all that can change its result.

    work/<name>/models/<stage>/<key>/seed_<s>/fold_<k>/   weights, oof.parquet, report.json (written last)
                                              .../test/<test key>.parquet
                                     seed_<s>/fold_all/   of a refit on all rows: the same without oof.parquet

A job is worked on in a folder of another name (`models/jobs/attempts.py`). A finished one is never overwritten: other
settings, tables, folds, weights or code make another key.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from competition.config import CompetitionConfig
from competition.errors import DataError
from competition.files import digest, read_json, read_table, sha256_of, table_digest, write_json
from competition.metrics import made_of_absolute_errors
from competition.paths import PROJECT, Paths
from folds.table import read_folds, time_ordered
from models.config import TreesStage
from models.inputs.code import code_digest_of
from models.inputs.weights import digest_of_weights
from models.stage import require_inputs
from models.stages.file import files_of

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
    def oof_file(self) -> Path:
        """Its predictions for the rows of its fold."""
        return self.folder / "oof.parquet"

    @property
    def name(self) -> str:
        """Names it among all of its competition."""
        return f"{self.stage}.{self.key}.seed_{self.seed}.{self.folder.name}"

    def test_file(self, test_key: str) -> Path:
        """Its predictions for the test table of that key."""
        return self.folder / "test" / f"{test_key}.parquet"

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
    train_digest, test_key = table_digest(paths.train), table_digest(paths.test)[:16]
    folds = read_folds(paths.folds, list(read_table(paths.train)[competition.id]))
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
    file, name = (PROJECT / "models" / "stages" / f"{stage.kind}.py", "")
    if stage.kind == "custom":
        own, _, name = stage.code.rpartition(":")
        file = Path(own)
    transform = _digest_of(PROJECT / "models" / "stages" / "targets.py") if stage.target_transform != "none" else ""
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
