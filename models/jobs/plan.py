"""Jobs: one (stage, seed, fold) each, in a folder with a key of everything that can change its result.

A key is `<settings>-<code>`: digests of the settings of the stage with its tables, folds and weights, and of
all code that its result depends on, with the versions of the libraries that train it. A job with another key
has another folder, and overwrites nothing.
"""

import inspect
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

from competition.config import CompetitionConfig
from competition.dataset import FOLD, GROUP, REFIT_FOLD, read_prepared
from competition.task import Task
from core.errors import ConfigError, DataError, join_first
from core.files import PROJECT, content_digest, digest, read_json, sha256_of, table_digest
from core.modules import closure, file_of
from core.paths import Paths, display_path
from core.text import format_duration
from core.user_code import Opened, changed_files, data_files, short_ref, user_code, with_helpers
from folds.training_rows import trains_fold
from models.context import Context
from models.inputs.weights import digest_of_weights
from models.job_folder import REPORT
from models.jobs import compute
from models.jobs.compute import JobTables
from models.jobs.job import Job
from models.stage import Stage

COMPETITION_SETTINGS = {
    "id", "targets", "problem_type", "classes", "smiles", "text", "numeric", "categorical",
    "auxiliary_targets", "pairs", "swap", "weight", "seed",
}  # fmt: skip
"""Settings of `competition` that a stage depends on."""
NOT_IN_KEY = {"seeds", "final_fit", "gpu"}
"""Settings of a stage that change no job."""


@dataclass(frozen=True)
class JobPlan:
    """All jobs of a competition, and what a worker needs for any of them.

    Attributes:
        jobs: in the order in which they should start.
        keys: stage -> key of its jobs.
        n_folds: number of folds.
        test_key: digest of the test table.
        stages: stage -> its settings.
        shard: number of this machine, and number of machines that share the jobs.
        in_time_order: whether folds are blocks in time, so that the job of a fold trains on earlier blocks
            only.
        made_by: stage -> result of `made_by`, which the reports of its jobs repeat.
        reuse: whether finished jobs of other code are accepted.
        key_of_tables: the part of the keys that does not depend on the stage.
        n_rows: fold -> number of its training rows; empty if they were not counted.
    """

    jobs: list[Job]
    keys: dict[str, str]
    n_folds: int
    test_key: str
    stages: dict[str, Stage]
    competition: CompetitionConfig
    paths: Paths
    shard: tuple[int, int] = (1, 1)
    in_time_order: bool = False
    made_by: dict[str, dict[str, str]] = field(default_factory=dict)
    reuse: bool = False
    key_of_tables: dict[str, Any] = field(default_factory=dict)
    n_rows: dict[int, int] = field(default_factory=dict)

    @property
    def tables(self) -> JobTables:
        """The prepared tables, as the jobs read them."""
        return tables_of(self.competition, self.paths, self.test_key, self.in_time_order)

    def jobs_of_stage(self, stage: str) -> list[Job]:
        """Return the jobs of a stage by seed and fold; the refit of a seed follows its folds."""
        return [job for job in self.jobs if job.stage == stage]

    def is_from_other_code(self, stage: str) -> bool:
        """Return whether the jobs of a stage are from another version of the code, accepted with --reuse."""
        return self.reuse and not self.keys[stage].endswith(digest(self.made_by[stage], 12))

    def with_settings(self, name: str, stage: Stage) -> "JobPlan":
        """Return the jobs of one stage with other settings and the same code."""
        return replace(self, jobs=[], keys={}, stages={}).with_stage(name, stage, self.made_by[name])

    def with_stage(self, name: str, stage: Stage, made_by: dict[str, str]) -> "JobPlan":
        """Return the plan with the jobs of one more stage.

        Args:
            made_by: result of `made_by`.
        """
        settings = self.key_of_tables | key_of_settings(stage, self.competition.task)
        key, trained_by = key_of(self.paths, name, stage, settings, made_by)
        key = key_with_most_jobs(self.paths, name, key) if self.reuse else key
        return replace(
            self,
            jobs=[*self.jobs, *jobs_of(name, stage, key, self.n_folds, self.paths, self.n_rows)],
            keys={**self.keys, name: key},
            stages={**self.stages, name: stage},
            made_by={**self.made_by, name: trained_by},
        )

    def select(self, fold: int | None = None, shard: tuple[int, int] = (1, 1)) -> "JobPlan":
        """Return the jobs of --fold and --shard.

        Shard i of n has every n-th job, finished or not, so that the shards do not depend on when they start.
        """
        if fold is not None and not 0 <= fold < self.n_folds:
            raise ConfigError(f"--fold must be from 0 to {self.n_folds - 1}; got {fold}.")
        jobs = [job for job in self.jobs[shard[0] - 1 :: shard[1]] if fold in (None, job.fold)]
        return replace(self, jobs=jobs, shard=shard)


def make_plan(competition: CompetitionConfig, stages: dict[str, Stage], reuse: bool = False) -> JobPlan:
    """Return the jobs of all stages in the order of the YAML.

    Args:
        reuse: whether finished jobs of other code are accepted if there are none of the current code.
    """
    paths = competition.paths
    test_key = key_of_test_table(paths)
    train = read_prepared(paths.train)
    folds = train[FOLD].to_numpy()
    n_folds = int(folds.max()) + 1
    in_time_order = bool(read_json(paths.prepare_report, "folds")["folds"]["time_ordered"])
    tables = tables_of(competition, paths, test_key, in_time_order)
    n_rows = {
        fold: int(trains_fold(folds, fold, in_time_order).sum()) for fold in (*range(n_folds), REFIT_FOLD)
    }
    plan = JobPlan(
        jobs=[],
        keys={},
        n_folds=n_folds,
        test_key=test_key,
        stages=stages,
        competition=competition,
        paths=paths,
        in_time_order=in_time_order,
        reuse=reuse,
        key_of_tables=key_of_tables(competition, tables),
        n_rows=n_rows,
    )
    context = tables.context(inputs=train.columns)
    for name, stage in stages.items():
        stage.require_inputs(competition.inputs)
        plan = plan.with_stage(name, stage, made_by(stage, context))
    return plan


def tables_of(competition: CompetitionConfig, paths: Paths, test_key: str, in_time_order: bool) -> JobTables:
    """Return the prepared tables of a competition, as the jobs read them."""
    return JobTables(
        train=paths.train,
        test=paths.test,
        columns=competition.columns,
        task=competition.task,
        seed=competition.seed,
        cache=paths.cache,
        in_time_order=in_time_order,
        test_key=test_key,
    )


def key_of_tables(competition: CompetitionConfig, tables: JobTables) -> dict[str, Any]:
    """Return what of the keys is the same for all stages."""
    return {
        "columns": competition.model_dump(mode="json", include=COMPETITION_SETTINGS),
        "train": table_digest(tables.train),
        "seed": tables.job_seed(0, 0),  # keys change if seeds are derived in another way
        "time_ordered": tables.in_time_order,
    }


def key_of_settings(stage: Stage, task: Task) -> dict[str, Any]:
    """Return the part of the keys that depends on the settings of a stage."""
    excluded = NOT_IN_KEY | dict(user_code(stage.model_dump())).keys()
    if not stage.is_trained:
        excluded |= {"folder"}  # `key_settings` has the digests of its files
    return {
        "stage": stage.model_dump(mode="json", exclude=excluded),
        "weights": [digest_of_weights(weights) for weights in stage.weight_names()],
        "target_transform": stage.transform_for(task),
        **stage.key_settings(task),
    }


def key_of(
    paths: Paths, name: str, stage: Stage, settings: dict[str, Any], made_by: dict[str, str]
) -> tuple[str, dict[str, str]]:
    """Return the key of the jobs of a stage, and what they are made by.

    Finished jobs record what user code opened. If such a file has changed since, its present content is part
    of what they are made by, and so they have another key. A job that opened a file with another content than
    in its key, since the file was edited during the training, is deleted.
    """
    key = f"{digest(settings, 12)}-{digest(made_by, 12)}"
    code = stage.model_dump()
    if not any(user_code(code)):
        return key, made_by
    opened: dict[Path, Opened] = {}
    for report in (paths.root / "models" / name / key).glob(f"seed_*/fold_*/{REPORT}"):
        with suppress(DataError):  # the job of a damaged one is trained again anyway
            opened[report.parent] = read_json(report, "seconds").get("opened", {})
    now = made_by | changed_files(code, *opened.values())
    if now != made_by:
        return key_of(paths, name, stage, settings, now)
    for folder, record in opened.items():
        edited = changed_files(code, record)
        if edited:
            print(f"{display_path(folder)} is deleted: {join_first(edited, str)} was edited while it trained")
            shutil.rmtree(folder)
    return key, made_by


def key_of_test_table(paths: Paths) -> str:
    """Return the digest of the inputs of the test table, without groups: new tables have none."""
    return content_digest(read_prepared(paths.test).drop(columns=GROUP, errors="ignore"))[:16]


def jobs_of(
    name: str,
    stage: Stage,
    key: str,
    n_folds: int,
    paths: Paths,
    n_rows: Mapping[int, int] = MappingProxyType({}),
) -> list[Job]:
    """Return the jobs of a stage; the refit of a seed follows its folds.

    Args:
        n_rows: fold -> number of its training rows; 1 for a fold that is not in it.
    """
    jobs = []
    for seed in sorted(set(stage.seeds)):
        folds = []
        for fold in range(n_folds):
            folder = paths.job(name, key, seed, fold)
            predicts_test = stage.final_fit != "refit"
            n_rows_of_fold = n_rows.get(fold, 1)
            folds.append(Job(name, seed, fold, folder, predicts_test=predicts_test, n_rows=n_rows_of_fold))
        jobs += folds
        if stage.final_fit != "folds":
            folder = paths.job(name, key, seed, "all")
            jobs.append(Job(name, seed, REFIT_FOLD, folder, tuple(folds), n_rows=n_rows.get(REFIT_FOLD, 1)))
    return jobs


def library_versions(stage: Stage) -> dict[str, str]:
    """Return the versions of Python and of the libraries that train a stage, without the build (`+cpu`)."""
    versions = {name: metadata.version(name).partition("+")[0] for name in sorted(stage.libraries())}
    return {"python": f"{sys.version_info.major}.{sys.version_info.minor}", **versions}


def made_by(stage: Stage, context: Context) -> dict[str, str]:
    """Return what else trains a stage: library -> version, and source file -> digest of its code."""
    return library_versions(stage) | code_files(stage, context)


def code_files(stage: Stage, context: Context) -> dict[str, str]:
    """Return source file -> digest of its code, for all code that the result of a stage depends on.

    A class or function that the settings name, `file.py:name`, has an entry, too, and so has a file next to
    it that it names.
    """
    names = user_files(stage)
    code = closure(*names, *modules_of(stage, context))
    references: dict[str, str] = {}
    for _, code_ref in user_code(stage.model_dump()):
        file = Path(code_ref.rpartition(":")[0])
        references[short_ref(code_ref)] = "used"
        references |= {data.relative_to(file.parent).as_posix(): sha256_of(data) for data in data_files(file)}
    return {names.get(path) or source_name(path): value for path, value in code.items()} | references


def user_files(stage: Stage) -> dict[Path, str]:
    """Return file -> name, relative to the code, of the user code in a stage's settings, and its helpers."""
    names: dict[Path, str] = {}
    for _, code_ref in user_code(stage.model_dump()):
        file = Path(code_ref.rpartition(":")[0])
        names |= {helper: helper.relative_to(file.parent).as_posix() for helper in with_helpers(file)}
    duplicates = {name for name, n in Counter(names.values()).items() if n > 1}
    if duplicates:
        raise ConfigError(
            f"a stage has code in two files that are called {join_first(duplicates)}. Rename one."
        )
    return names


def modules_of(stage: Stage, context: Context) -> list[Path]:
    """Return the files of a stage, its base classes and its modules, and of the computation of a job."""
    classes = [cls for cls in type(stage).__mro__ if issubclass(cls, Stage)]
    files = [Path(inspect.getfile(cls)) for cls in classes]
    return [*files, *map(file_of, stage.modules(context)), Path(compute.__file__)]


def source_name(path: Path) -> str:
    """Return the name of a source file of this project, relative to its folder."""
    return path.relative_to(PROJECT).as_posix() if path.is_relative_to(PROJECT) else path.name


def key_with_most_jobs(paths: Paths, stage: str, key: str) -> str:
    """Return the key, also of other code, with the most finished jobs; this key, or else the latest, of several."""
    n_jobs = Counter(keys_of_any_code(paths, stage, key))
    return max([key, *n_jobs], key=lambda other: n_jobs[other])


def key_of_other_code(paths: Paths, stage: str, key: str) -> str | None:
    """Return the latest key of finished jobs of other code; None if there are jobs of this key."""
    keys = keys_of_any_code(paths, stage, key)
    return keys[0] if keys and key not in keys else None


def keys_of_any_code(paths: Paths, stage: str, key: str) -> list[str]:
    """Return the keys of finished jobs with the settings of a key, one for each job, the latest job first."""
    settings = key.partition("-")[0]
    reports = (paths.root / "models" / stage).glob(f"{settings}-*/seed_*/fold_*/{REPORT}")
    latest = sorted(reports, key=lambda report: report.stat().st_mtime, reverse=True)
    return [report.parents[2].name for report in latest]


def describe_retraining(plan: JobPlan) -> list[str]:
    """Return a line per stage with finished jobs that train again, since code or libraries have changed."""
    lines = []
    for stage in dict.fromkeys(job.stage for job in plan.jobs):
        key = key_of_other_code(plan.paths, stage, plan.keys[stage])
        if key is None:
            continue
        folder = plan.paths.root / "models" / stage / key
        reports = []
        for path in sorted(folder.glob(f"seed_*/fold_*/{REPORT}")):
            with suppress(DataError):  # a damaged one is of no use anyway
                reports.append(read_json(path, "seconds"))
        if not reports:
            continue
        seconds = sum(report["seconds"] for report in reports)
        lines.append(
            f"stage {stage}: {len(reports)} finished jobs ({format_duration(seconds)}) will be trained "
            f"again: {_changes(reports[-1].get('made_by', {}), plan.made_by[stage])}; --reuse keeps them"
        )
    return lines


def describe_other_code(plan: JobPlan) -> list[str]:
    """Return a WARNING per stage whose jobs were trained by other code or libraries than those that predict now.

    Packed jobs do not say what made them.
    """
    context = plan.tables.context()
    lines = []
    for name, stage in plan.stages.items():
        job = next(job for job in plan.jobs_of_stage(name) if job.predicts_test)
        before = read_json(job.folder / REPORT).get("made_by", {})
        now = {file: value for file, value in made_by(stage, context).items() if file in before}
        changes = _changes({file: before[file] for file in now}, now)
        if changes:
            lines.append(
                f"WARNING: the models of stage {name} were trained with other code or libraries ({changes}); "
                f"./run.sh full {plan.paths.on_command_line} trains them again"
            )
    return lines


def _changes(before: dict[str, str], now: dict[str, str]) -> str:
    """Return what differs between two results of `made_by`: versions of libraries, and files of code."""
    different = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    files = [name for name in different if "." in name or "/" in name]
    changes = [f"{name} {before.get(name)} -> {now.get(name)}" for name in different if name not in files]
    if files and "python" not in different:  # with another Python the digests of all files differ
        changes.append(f"changes of {join_first(files, str)}")
    return ", ".join(changes)
