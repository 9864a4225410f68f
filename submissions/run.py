"""A run: one configuration with its tables and finished jobs, and the folder of the files made from them.

Its folder, work/<name>/submissions/<run>/, has

    run.json                  configuration, candidates, and the choice among them; written last
    oof.csv                   ids, folds, labels and the out-of-fold predictions of all stages (`Run.oof_table`)
    candidates/NAME.json      a fitted candidate
    candidates/NAME.csv       its submission
    stages/NAME.csv           the submission of a single stage
    candidates.parquet        cross-fitted predictions, or labels, of each candidate
    cross_fitted.csv          the same of the submission
    submission.csv            the submission of the chosen candidate
    spread.csv                standard deviation of each row's prediction over seeds and folds
    NAME.yaml                 the competition with the stages, epochs and seeds of the run, for any command
"""

import platform
import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from competition.config import validate
from competition.dataset import REFIT_FOLD
from competition.metrics import Metric
from competition.task import Task
from core.errors import DataError, NothingToSubmit
from core.files import PROJECT, digest, read_json, read_table, sha256_of, table_digest
from core.paths import Paths, config_folders, display_path
from core.text import format_table
from core.user_code import user_code_files
from folds.comparison import read_comparison
from models.jobs.job_files import recorded_failure
from models.jobs.plan import REPORT, Job, JobPlan, jobs_of
from models.jobs.scheduler import JobResult
from submissions.blend.candidates import complexity
from submissions.columns import Columns, load_columns
from submissions.config import Config, rewrite_paths

MANIFEST = "run.json"
FORMAT = 2
"""Version of the keys of run.json and of the files of candidates."""
CHOICE = "choice"
"""Key of run.json: the candidates and the choice among them."""
PREDICTION = "prediction "
"""Prefix of columns of cross_fitted.csv with predictions before the decision, if the metric scores labels."""
SUBMISSION_FILE = "submission.csv"
OOF_TABLE, CROSS_FITTED, CANDIDATES_TABLE = "oof.csv", "cross_fitted.csv", "candidates.parquet"
SO_FAR = "so_far"
"""Folder of the interim submission, next to those of the runs, while stages still train."""
CODE = ("submissions/*.py", "submissions/blend/*.py", "competition/*metrics.py", "competition/task.py")
"""Files of the code that a run depends on, in addition to the jobs and the settings."""
PACKAGES = (
    "numpy", "scipy", "pandas", "scikit-learn", "lightgbm", "optuna", "rdkit", "torch", "transformers", "chemprop",
)  # fmt: skip
LEFT_OUT_HEADER = ["stage", "seed", "reason", "error"]
TIME, EPOCHS = "time", "epochs"
"""Reasons of a budget: a stage or seed is left out, or a network has fewer epochs than the YAML says."""
BUDGET_ADVICE = "A larger --budget trains more, and --budget none everything in full; finished jobs are kept."
MAX_ERROR = 110
"""Characters of an error in tables."""


@dataclass(frozen=True)
class LeftOut:
    """A stage, or one of its seeds, that is not in a run.

    Attributes:
        seed: None for the whole stage.
        reason: see `models.jobs.scheduler.JobResult`; EPOCHS for a stage that is in the run with fewer
            epochs.
        error: one line.
        log: file with the traceback.
    """

    stage: str
    seed: int | None
    reason: str
    error: str
    log: Path | str | None = None

    @property
    def row(self) -> list[str]:
        """Row of a table with the columns LEFT_OUT_HEADER."""
        seed = "all" if self.seed is None else str(self.seed)
        return [self.stage, seed, self.reason, textwrap.shorten(self.error, MAX_ERROR, placeholder=" ...")]


@dataclass(frozen=True)
class Run:
    """One configuration with its tables and finished jobs, and the folder of its files.

    Attributes:
        name: digest of the configuration, the tables and the keys of the jobs.
        made_from: digest of predictions, code, packages, and of what is left out.
        left_out: requested stages and seeds that are not in `config` and `plan`.
        budget: seconds of the command that built the run; None if it had no budget.
    """

    name: str
    made_from: str
    folder: Path
    config: Config
    plan: JobPlan
    left_out: Sequence[LeftOut] = field(default=())
    budget: float | None = None

    @property
    def paths(self) -> Paths:
        """Files of the competition."""
        return self.plan.paths

    @property
    def metric(self) -> Metric:
        """The metric of the competition."""
        return self.config.competition.scorer

    @property
    def task(self) -> Task:
        """Targets, outputs and classes of the competition."""
        return self.config.competition.task

    @cached_property
    def columns(self) -> Columns:
        """Predictions of all stages and the labels; a DataError if they do not match the tables."""
        return load_columns(self.config, self.plan)

    @property
    def name_on_command_line(self) -> str:
        """The competition as commands take it: its name, or its YAML if that is in another folder."""
        name = self.paths.name
        if self.paths.owner.exists():
            yaml_file = Path(self.paths.owner.read_text(encoding="utf-8").strip())
            if yaml_file.parent not in [folder.resolve() for folder in config_folders()]:
                name = str(display_path(yaml_file))
        return shlex.quote(name)

    def oof_table(self) -> pd.DataFrame:
        """Return ids, folds, labels (named as the targets) and out-of-fold predictions.

        Their columns are named by column and output, such as `gnn pIC50` or `gnn:1 pIC50` (stage gnn, seed
        1).
        """
        return read_table(self.folder / OOF_TABLE).astype({"fold": int})

    @property
    def stored(self) -> dict[str, Any]:
        """Content of run.json in the folder."""
        return read_manifest(self.folder)

    @property
    def choice(self) -> dict[str, Any]:
        """The part of run.json about the candidates and the choice."""
        return dict(self.stored[CHOICE])

    @property
    def without_stack(self) -> "Run":
        """The same run, in the same folder, with the blends only."""
        settings = self.config.submissions.model_copy(update={"stack": False})
        return replace(self, config=self.config.model_copy(update={"submissions": settings}))

    @property
    def is_built(self) -> bool:
        """Whether the folder has the files of this run, made from the same predictions and code."""
        try:
            verify_files(self.folder)
        except DataError:
            return False
        stored = self.stored
        has_stack = stored["config"]["submissions"]["stack"]
        of_files = [stored["run"], stored["made_from"], has_stack, stored.get("shift")]
        has_to_be = [self.name, self.made_from, self.config.submissions.stack, self.digest_of_shift]
        return of_files == has_to_be

    @property
    def digest_of_shift(self) -> str | None:
        """Digest of what was measured of the shift of the test rows; None if nothing was."""
        comparison = read_comparison(self.paths)
        return comparison.digest_of_shift if comparison else None

    @property
    def exit_status(self) -> int:
        """Exit status of the command that built the run: 3 if a failure left something out, else 0."""
        has_failed = any(each.reason not in (TIME, EPOCHS) for each in self.left_out)
        return 3 if has_failed or any(line.startswith("WARNING") for line in self.choice["failed"]) else 0

    @property
    def candidates(self) -> dict[str, Any]:
        """The candidates with their weights and scores, from simple to complex."""
        return dict(sorted(self.choice["candidates"].items(), key=lambda item: complexity(item[0])))

    @property
    def chosen(self) -> str:
        """The candidate that is submitted."""
        return str(self.choice["chosen"])

    @property
    def weights(self) -> dict[str, dict[str, float]]:
        """Target -> weight of each stage in the chosen blend, or in the base of the chosen stack; else empty."""
        return dict(self.choice["candidates"][self.chosen]["weights"])


def open_run(config: Config, plan: JobPlan, left_out: Sequence[LeftOut] = ()) -> Run:
    """Return the run of a configuration with the stages of a plan, whose jobs are finished. It reads no predictions."""
    if not plan.stages:
        raise NothingToSubmit(describe_left_out(left_out))
    config = config.model_copy(update={"stages": plan.stages})
    # The name does not depend on file paths or the answers: tables, jobs and user code enter by their content.
    settings = config.model_dump(
        exclude={"budget": True, "competition": {"answers", "kaggle"}, "folds": {"file"}}
    )
    portable = {**rewrite_paths(settings, lambda path: path.name), "user_code": user_code_of(config)}
    name = digest({"config": portable, "tables": table_digests(plan.paths), "keys": plan.keys}, 12)
    predictions = [_digests(job, plan.test_key) for job in plan.jobs]
    code = [sha256_of(file) for pattern in CODE for file in sorted(PROJECT.glob(pattern))]
    made_from = digest([code, package_versions(), predictions, list(map(str, left_out))])
    return Run(name, made_from, plan.paths.run(name), config, plan, left_out)


def finished_part(plan: JobPlan) -> JobPlan:
    """Return the plan of the seeds with all jobs finished, refits included."""
    unfinished = unfinished_seeds(plan)
    stages = {}
    for name, stage in plan.stages.items():
        seeds = [seed for seed in stage.seeds if (name, seed) not in unfinished]
        if seeds:
            stages[name] = stage.model_copy(update={"seeds": seeds})
    jobs = [job for job in plan.jobs if job.stage in stages and (job.stage, job.seed) not in unfinished]
    keys = {name: plan.keys[name] for name in stages}
    return replace(plan, jobs=jobs, keys=keys, stages=stages)


def name_of_latest(paths: Paths) -> str:
    """Return the name of the latest run; "" if there is none."""
    return paths.latest_run.read_text(encoding="utf-8").strip() if paths.latest_run.exists() else ""


def latest_run(competition: str) -> Run:
    """Return the latest run of a competition from its folder; tables are not needed."""
    paths = Paths.for_competition(competition)
    name = name_of_latest(paths)
    if not name:
        raise DataError(
            f"{paths.root} has no finished run: run ./run.sh full {competition} first, or check the name."
        )
    folder = paths.run(name)
    stored = read_manifest(folder)
    config = validate(Config, stored["config"], folder / MANIFEST, yaml_file=Path(f"{paths.name}.yaml"))
    keys = {stage["name"]: stage["key"] for stage in stored["stages"]}
    jobs = []
    for stage, key in keys.items():
        jobs += jobs_of(stage, config.stages[stage], key, stored["n_folds"], paths)
    plan = JobPlan(
        jobs, keys, stored["n_folds"], stored["test_key"], dict(config.stages), config.competition, paths
    )
    left_out = [LeftOut(**record) for record in stored["left_out"]]
    return Run(stored["run"], stored["made_from"], folder, config, plan, left_out)


def candidate_file(name: str, suffix: str) -> str:
    """Return a file of a candidate, relative to the folder of the run: .json if it is fitted, .csv its submission."""
    return f"candidates/{name.replace(':', '.')}{suffix}"


def stage_file(name: str) -> str:
    """Return the submission of a single stage, relative to the folder of the run."""
    return f"stages/{name}.csv"


def scored_rows(folder: Path, task: Task) -> pd.DataFrame:
    """Return the content of `cross_fitted.csv` of a finished run, indexed by id.

    There are no rows if the run scored labels and `task` scores predictions, or vice versa, or if the classes
    differ.
    """
    verify_files(folder, CROSS_FITTED)
    stored = read_manifest(folder)
    # "decides" is `Task.scores_labels` of that run.
    is_same = stored[CHOICE]["decides"] == task.scores_labels
    is_same &= stored["config"]["competition"]["classes"] == task.classes
    rows = read_table(folder / CROSS_FITTED).set_index("id")
    return rows if is_same else rows.head(0)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the content of run.json of a run; a DataError if it is missing or of another version of the code."""
    stored: dict[str, Any] = read_json(folder / MANIFEST, "run")
    if stored.get("format") != FORMAT:
        raise DataError(
            f"{folder} was made by an older version of this code; run ./run.sh full to make it again."
        )
    return stored


def verify_files(folder: Path, *files: str) -> None:
    """Raise a DataError if one of these files of a run, or of all if none is named, is missing or has changed."""
    digests = read_manifest(folder)["files"]
    for name in files or digests:
        if name not in digests or not (folder / name).is_file() or sha256_of(folder / name) != digests[name]:
            raise DataError(
                f"{folder}: {name} is missing or has changed. Run ./run.sh full to make it again."
            )


def user_code_of(config: Config) -> list[list[str]]:
    """Return name and digest of each file of user code in the settings, and of the modules that it imports."""
    files = user_code_files(config.model_dump())
    return sorted([file.name, sha256_of(file) if file.exists() else "gone"] for file in files)


def require_same_code(config: Config, stored: dict[str, Any]) -> None:
    """Raise a DataError if user code in the settings has changed since the run."""
    changed = [name for name, code in user_code_of(config) if [name, code] not in stored["user_code"]]
    if changed:
        raise DataError(
            f"Your code in {changed[0]} has changed since the run. Run ./run.sh full, then this again."
        )


def table_digests(paths: Paths) -> dict[str, str]:
    """Return file name -> digest of the prepared tables and of folds.csv."""
    return {file.name: table_digest(file) for file in (paths.train, paths.test, paths.sample, paths.folds)}


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a run depends on."""
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}


def _digests(job: Job, test_key: str) -> list[str]:
    """Return name and digests of the predictions of a finished job; a DataError if they have changed."""
    test = job.test_file(test_key)
    if not job.has_predicted(test_key):
        raise DataError(
            f"{job.folder} is not finished, or has not predicted the test table. Run ./run.sh train."
        )
    if job.fold == REFIT_FOLD:
        return [job.title, sha256_of(test)]
    oof_digest = read_json(job.folder / REPORT, "files")["files"][job.oof_file.name]["sha256"]
    if not job.oof_file.is_file() or sha256_of(job.oof_file) != oof_digest:
        raise DataError(f"{job.oof_file} is missing or has changed; delete {job.folder} to train it again.")
    return [job.title, oof_digest, sha256_of(test)]


def unfinished_seeds(plan: JobPlan) -> set[tuple[str, int]]:
    """Return stage and seed of each job that is not finished, or has pseudo-labels of such a job."""
    return {
        (job.stage, job.seed)
        for job in plan.jobs
        if not all(each.has_predicted(plan.test_key) for each in (job, *job.dependencies))
    }


def left_out_of(plan: JobPlan, results: dict[str, JobResult]) -> list[LeftOut]:
    """Return the seeds with an unfinished job, each with the reason.

    Args:
        results: title of a job (`gnn/seed_0/fold_3`) -> result, for the jobs of this command; others have a
            record in their folders.
    """
    left_out = []
    for stage, seed in sorted(unfinished_seeds(plan)):
        jobs = [job for job in plan.jobs_of_stage(stage) if job.seed == seed]
        unfinished = [job for job in jobs if not job.has_predicted(plan.test_key)]
        outcomes = [results.get(job.title) or recorded_failure(job) for job in unfinished]
        reasons = [outcome for outcome in outcomes if outcome.status == "failed"]
        reasons += [outcome for outcome in outcomes if outcome.status not in ("failed", "ok")]
        if reasons:
            first = reasons[0]
            fold = first.name.rpartition("/fold_")[2]
            error = f"fold {fold}: {first.error}" if first.status == "failed" else first.error
            left_out.append(LeftOut(stage, seed, first.reason, error, first.log))
        else:
            error = "it has pseudo-labels of a stage that is left out"
            left_out.append(LeftOut(stage, seed, "dependency", error))
    return left_out


def describe_left_out(left_out: Sequence[LeftOut]) -> str:
    """Return a table of what is left out, and the files of the tracebacks; "" if nothing is."""
    if not left_out:
        return ""
    lines = [
        "Left out:",
        "",
        format_table(LEFT_OUT_HEADER, [each.row for each in left_out]),
        *left_out_notes(left_out),
    ]
    return "\n".join(lines)


def left_out_notes(left_out: Sequence[LeftOut]) -> list[str]:
    """Return what to do about what a budget left out, and a line per traceback."""
    advice = [BUDGET_ADVICE] if any(each.reason in (TIME, EPOCHS) for each in left_out) else []
    logs = [
        f"traceback of {each.stage}: {display_path(Path(each.log))}"
        for each in left_out
        if each.log is not None
    ]
    return [*advice, *logs]
