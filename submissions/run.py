"""A run: one configuration with its tables and finished jobs, and the folder of the files that are made of
them.

Its folder, work/<name>/submissions/<run>/, holds

    run.json                  what the run is made of, its candidates, and the choice among them; written last
    oof.parquet, oof.csv      ids, folds, labels and the out-of-fold predictions of all columns (`Run.oof_table`)
    fitted/                   the fitted candidates
    cross_fitted/             predictions of each candidate that the scores and the choice are computed from
    labels/                   their labels where the metric scores these
    stages.parquet            what the metric scores of each stage alone, decided on without the row's fold
    cross_fitted.csv          what the metric scores of the training rows, by what was fitted and chosen without their
                              fold
    blend.csv, stack.csv, submission.csv, spread.csv
    NAME.yaml                 the competition with the stages, epochs and seeds that the run has, for any command
"""

import platform
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from competition.config import validate
from competition.errors import DataError, NothingToSubmit
from competition.files import digest, read_json, read_table, sha256_of, table_digest
from competition.metrics import Metric
from competition.paths import PROJECT, Paths, display_path
from competition.task import Task, build_metric, build_task
from competition.user_code import user_code_files
from models.jobs.job_files import recorded_failure
from models.jobs.plan import REFIT_FOLD, REPORT, Job, JobPlan, jobs_of
from models.jobs.scheduler import JobResult
from submissions.blend.candidates import CANDIDATES
from submissions.config import Config, rewrite_paths
from submissions.formatting import format_table
from submissions.stage_predictions import StagePredictions, load_stage_predictions

MANIFEST = "run.json"
BLEND, STACK, CHOICE = "blend", "stack", "choice"
"""Parts of run.json: the blends, the stack, and the choice among all candidates."""
BLEND_FILE, STACK_FILE, SUBMISSION_FILE = "blend.csv", "stack.csv", "submission.csv"
OOF, OOF_TABLE, CROSS_FITTED = "oof.parquet", "oof.csv", "cross_fitted.csv"
STAGES, KNOWN_LABELS = "stages.parquet", "known_labels.csv"
SO_FAR = "so_far"
"""Folder of the submission of the stages that are finished while others train."""
CODE = (
    "submissions/blend/*.py", "submissions/build_submission.py", "submissions/stage_predictions.py",
    "submissions/ensemble_std.py", "submissions/predictor.py", "submissions/submission_file.py",
    "submissions/selection.py", "competition/*metrics.py", "competition/task.py",
)  # fmt: skip
"""What the files of a run depend on in addition to the jobs and the settings; so do these packages."""
PACKAGES = (
    "numpy", "scipy", "pandas", "scikit-learn", "lightgbm", "optuna", "rdkit", "torch", "transformers", "chemprop",
)  # fmt: skip


LEFT_OUT_HEADER = ["stage", "seed", "reason", "error"]
ALL_SECONDS = "all"
"""In `Run.worker_seconds`: all seconds that the cores had, whether they were used or not."""
MAX_ERROR = 110
"""Characters of an error that tables show."""


@dataclass(frozen=True)
class LeftOut:
    """A stage, or one of its seeds, that is not in a run.

    seed: None for the whole stage.
    reason: see `models.jobs.scheduler.JobResult`.
    error: one line.
    log: file with the traceback.
    """

    stage: str
    seed: int | None
    reason: str
    error: str
    log: Path | None = None

    @property
    def row(self) -> list[str]:
        """Its row below LEFT_OUT_HEADER."""
        seed = "" if self.seed is None else str(self.seed)
        return [self.stage, seed, self.reason, textwrap.shorten(self.error, MAX_ERROR, placeholder=" ...")]


@dataclass(frozen=True)
class Run:
    """One resolved configuration with its tables and jobs, all finished, and the folder of what is made of
    them.

    name: digest of the configuration, the tables and the keys of the jobs.
    made_from: digest of what else its files depend on: predictions, code, packages, and what is left out.
    left_out: stages and seeds that were asked for and are not in `config` and `plan`.
    worker_seconds: stage or other group of tasks -> seconds of workers in the command that built the run.
    """

    name: str
    made_from: str
    folder: Path
    config: Config
    paths: Paths
    plan: JobPlan
    left_out: Sequence[LeftOut] = field(default=())
    worker_seconds: dict[str, float] = field(default_factory=dict)

    @property
    def metric(self) -> Metric:
        """What predictions are scored by."""
        return build_metric(self.config.competition)

    @property
    def task(self) -> Task:
        """What is predicted."""
        return build_task(self.config.competition)

    @cached_property
    def columns(self) -> StagePredictions:
        """All columns with ids, folds and labels; DataError if predictions do not fit the tables."""
        return load_stage_predictions(self.config, self.plan)

    def oof_table(self) -> pd.DataFrame:
        """Ids, folds, labels (under the names of the targets) and all out-of-fold columns (`column output`)."""
        return pd.read_parquet(self.folder / OOF)

    @property
    def stored(self) -> dict[str, Any]:
        """The content of run.json."""
        return read_manifest(self.folder)

    def part(self, step: str) -> dict[str, Any]:
        """A part of run.json; a DataError if one of its files has changed since."""
        return read_manifest(self.folder, step)[step]

    @property
    def is_built(self) -> bool:
        """Whether the folder holds the files of this run, made from the same predictions and code."""
        steps = [BLEND, STACK, CHOICE] if self.config.submissions.stack else [BLEND, CHOICE]
        try:
            stored = read_manifest(self.folder, *steps)
        except DataError:
            return False
        return (stored["run"], stored["made_from"]) == (self.name, self.made_from)

    @property
    def exit_status(self) -> int:
        """Of the command that builds the run: 3 if something failed, else 0."""
        return 3 if any(each.reason != "time" for each in self.left_out) else 0

    @property
    def what_fills(self) -> str:
        """What rows that cannot be read get, in words."""
        if not self.task.scores_labels:
            return "the mean of the training labels"
        return "the mean grade" if self.task.problem_type == "ordinal" else "the commonest class"

    @property
    def candidates(self) -> dict[str, Any]:
        """The candidates with their models and scores, from simple to complex."""
        return candidates_in(self.stored)

    @property
    def chosen(self) -> str:
        """The candidate that is submitted."""
        return self.part(CHOICE)["chosen"]

    @property
    def weights(self) -> dict[str, dict[str, float]]:
        """Target -> weight of each column in the chosen blend, or in that below the chosen stack; else empty."""
        return self.candidates[self.chosen]["weights"]


def open_run(config: Config, paths: Paths, plan: JobPlan, left_out: Sequence[LeftOut] = ()) -> Run:
    """The run of a configuration and its plan, all of its jobs finished. Reads digests, no predictions."""
    if not config.stages:
        raise NothingToSubmit(f"no stage has finished.\n{describe_left_out(left_out)}")
    # Neither the places of files nor the answers are in a name: the content of files is in tables, jobs and
    # user_code.
    settings = config.model_dump(
        exclude={"budget": True, "competition": {"answers", "kaggle"}, "folds": {"file"}}
    )
    portable = {**rewrite_paths(settings, lambda path: path.name), "user_code": user_code_of(config)}
    name = digest({"config": portable, "tables": table_digests(paths), "keys": plan.keys}, 12)
    predictions = [_digests(job, plan.test_key) for job in plan.jobs]
    code = [sha256_of(file) for pattern in CODE for file in sorted(PROJECT.glob(pattern))]
    made_from = digest([code, package_versions(), predictions, list(map(str, left_out))])
    return Run(name, made_from, paths.run(name), config, paths, plan, left_out)


def unfinished_seeds(plan: JobPlan) -> set[tuple[str, int]]:
    """Stage and seed of each job that is not finished, or that has pseudo-labels of such a job."""
    return {
        (job.stage, job.seed)
        for job in plan.jobs
        if not all(each.has_predicted(plan.test_key) for each in (job, *job.dependencies))
    }


def finished_part(config: Config, plan: JobPlan) -> tuple[Config, JobPlan]:
    """The configuration and plan of the seeds of which all jobs are finished, refits included, and of their
    stages.
    """
    unfinished, stages = unfinished_seeds(plan), {}
    for name, stage in config.stages.items():
        if seeds := [seed for seed in stage.seeds if (name, seed) not in unfinished]:
            stages[name] = stage.model_copy(update={"seeds": seeds})
    jobs = [job for job in plan.jobs if job.stage in stages and (job.stage, job.seed) not in unfinished]
    keys = {name: key for name, key in plan.keys.items() if name in stages}
    return config.model_copy(update={"stages": stages}), replace(plan, jobs=jobs, keys=keys, stages=stages)


def left_out_of(plan: JobPlan, results: dict[str, JobResult]) -> list[LeftOut]:
    """Return the seeds with a job that is not finished, each with why one of its jobs is not.

    Args:
        results: of the jobs that were run now, by their titles; of others the record in their folders counts.
    """
    left_out = []
    for stage, seed in sorted(unfinished_seeds(plan)):
        jobs = [job for job in plan.jobs_of_stage(stage) if job.seed == seed]
        ends = [
            results.get(job.title) or recorded_failure(job)
            for job in jobs
            if not job.has_predicted(plan.test_key)
        ]
        reasons = sorted([end for end in ends if end.status != "ok"], key=lambda end: end.status != "failed")
        if reasons:
            first = reasons[0]
            fold = first.name.rpartition("/fold_")[2]
            error = f"fold {fold}: {first.error}" if first.status == "failed" else first.error
            left_out.append(LeftOut(stage, seed, first.reason, error, first.log))
        else:
            left_out.append(
                LeftOut(stage, seed, "dependency", "it has pseudo-labels of a stage that is left out")
            )
    return left_out


def describe_left_out(left_out: Sequence[LeftOut]) -> str:
    """What is left out, as a table for the terminal, and where the tracebacks are; nothing if nothing is."""
    if not left_out:
        return ""
    lines = [
        "Left out:",
        "",
        format_table(LEFT_OUT_HEADER, [each.row for each in left_out]),
        *tracebacks(left_out),
    ]
    return "\n".join(lines)


def tracebacks(left_out: Sequence[LeftOut]) -> list[str]:
    """Return a line for each traceback of what is left out."""
    return [
        f"traceback of {each.stage}: {display_path(each.log)}" for each in left_out if each.log is not None
    ]


def name_of_latest(paths: Paths) -> str:
    """The name of the run that was written last; nothing where there is none."""
    return paths.latest_run.read_text(encoding="utf-8").strip() if paths.latest_run.exists() else ""


def latest_run(competition: str) -> Run:
    """The run of a competition that was written last, as its folder holds it; needs no table."""
    paths = Paths.for_competition(competition)
    if not (name := name_of_latest(paths)):
        raise DataError(
            f"{paths.root} must hold a finished run; run ./run.sh full {competition} first, and look at "
            f"the name."
        )
    folder = paths.run(name)
    stored = read_manifest(folder)
    config = validate(Config, stored["config"], folder / MANIFEST)
    keys = {stage["name"]: stage["key"] for stage in stored["stages"]}
    jobs = [j for n, key in keys.items() for j in jobs_of(n, config.stages[n], key, stored["n_folds"], paths)]
    made = JobPlan(
        jobs, keys, stored["n_folds"], stored["test_key"], dict(config.stages), config.competition, paths
    )
    left_out = [
        LeftOut(**{**each, "log": each["log"] and Path(each["log"])}) for each in stored.get("left_out", [])
    ]
    return Run(stored["run"], stored["made_from"], folder, config, paths, made, left_out)


def candidates_in(stored: dict[str, Any]) -> dict[str, Any]:
    """The candidates of a run.json, from simple to complex."""
    return by_complexity(stored[BLEND]["candidates"] | stored.get(STACK, {"candidates": {}})["candidates"])


def by_complexity(candidates: dict[str, Any]) -> dict[str, Any]:
    """The same candidates, from simple to complex."""
    return {
        name: candidates[name] for name in dict.fromkeys([*CANDIDATES, *candidates]) if name in candidates
    }


def fitted_file(name: str) -> str:
    """A fitted candidate, relative to the run's folder."""
    return f"fitted/{name.replace(':', '.')}.json"


def cross_fitted_file(name: str, labels: bool = False) -> str:
    """The predictions of a candidate for the training rows, or their labels, relative to the run's folder."""
    return f"{'labels' if labels else 'cross_fitted'}/{name.replace(':', '.')}.parquet"


def scored_rows(folder: Path, task: Task) -> pd.DataFrame:
    """What a finished run has had scored of each training row (index: its id), as `cross_fitted.csv` holds
    it.

    No rows where it scored labels and `task` scores predictions, or the other way round, or had other
    classes.
    """
    stored = read_manifest(folder, CHOICE)
    is_same = stored[CHOICE].get("decides", False) == task.scores_labels
    is_same &= stored["config"]["competition"].get("classes", []) == task.classes
    rows = read_table(folder / CROSS_FITTED, ["id"]).set_index("id")
    return rows if is_same else rows.head(0)


def read_manifest(folder: Path, *steps: str) -> dict[str, Any]:
    """The content of a run's run.json; a DataError if one of `steps` is not in it, or a file of it is not as
    it was.
    """
    stored: dict[str, Any] = read_json(folder / MANIFEST, "run")
    if "made_from" not in stored:
        raise DataError(
            f"{folder} was made by an earlier version of this code; run ./run.sh full for one of today's."
        )
    for step in steps:
        if step not in stored:
            raise DataError(f"{folder} is not finished: the step {step} has not run. Run ./run.sh full.")
        for name, known in stored[step]["files"].items():
            if not (folder / name).is_file() or sha256_of(folder / name) != known:
                raise DataError(
                    f"{folder} is not as the run wrote it; changed or gone: {name}. Run ./run.sh full to "
                    f"make it again."
                )
    return stored


def user_code_of(config: Config) -> list[list[str]]:
    """Name and digest of each file of the user's code that the settings name, and of the modules that it
    imports.
    """
    files = user_code_files(config.model_dump())
    return sorted([file.name, sha256_of(file) if file.exists() else "gone"] for file in files)


def require_same_code(config: Config, stored: dict[str, Any]) -> None:
    """A DataError if the user's code that the settings name has changed since the run wrote `stored`."""
    if changed := [found[0] for found in user_code_of(config) if found not in stored["user_code"]]:
        raise DataError(
            f"Your code of {changed[0]} has changed since the run. Run ./run.sh full, then this again."
        )


def table_digests(paths: Paths) -> dict[str, str]:
    """Digests of the prepared tables and of folds.csv, by file name."""
    return {file.name: table_digest(file) for file in (paths.train, paths.test, paths.sample, paths.folds)}


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that the files of a run depend on."""
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}


def _digests(job: Job, test_key: str) -> list[str]:
    """Name of a finished job and the digests of its predictions, which have to be as it wrote them."""
    test = job.test_file(test_key)
    if not job.has_predicted(test_key):
        raise DataError(
            f"{job.folder} is not finished, or has not predicted the test table. Run ./run.sh train."
        )
    if job.fold == REFIT_FOLD:
        return [job.name, sha256_of(test)]
    known = read_json(job.folder / REPORT, "files")["files"][job.oof_file.name]["sha256"]
    if not job.oof_file.is_file() or sha256_of(job.oof_file) != known:
        raise DataError(f"{job.oof_file} is not as its job wrote it; delete {job.folder} to train it again.")
    return [job.name, known, sha256_of(test)]
