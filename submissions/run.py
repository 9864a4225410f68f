"""A run: one configuration with its tables and finished jobs, and the folder of the files made from them.

`submissions/manifest.py` has the files of the folder and the fields of run.json.
"""

import math
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from competition.cells import as_written
from competition.config import validate
from competition.dataset import REFIT_FOLD, read_prepared, without_extra_rows
from competition.metrics import Metric
from competition.task import Task
from core.errors import DataError, NothingToSubmit, join_first
from core.files import PROJECT, digest, read_json, sha256_of, table_digest
from core.modules import code_without_comments
from core.paths import Paths
from core.user_code import Opened, changed_files, merge_opened, opened_files, user_code_files
from core.user_tables import read_text_table
from models.job_folder import REPORT
from models.jobs.budget_stages import Clock
from models.jobs.job import Job
from models.jobs.job_files import recorded_failure
from models.jobs.plan import JobPlan, jobs_of
from models.jobs.scheduler import JobResult
from models.stage import Stage
from submissions.blend.candidates import LIGHTGBM_STACK, complexity
from submissions.columns import Columns, load_columns
from submissions.config import Config, rewrite_paths
from submissions.manifest import (
    EPOCHS,
    MANIFEST,
    OOF_TABLE,
    SO_FAR,
    SUBMISSION_FILE,
    TIME,
    CandidateScores,
    Choice,
    LeftOut,
    Manifest,
    describe_left_out,
    read_manifest,
    verify_files,
)

PREDICTION = "prediction "
"""Prefix of columns of cross_fitted.csv with predictions before the decision, if the metric scores labels."""
CODE = ("submissions/*.py", "submissions/blend/*.py", "competition/*metrics.py", "competition/task.py")
"""Files of the code that a run depends on, in addition to the jobs and the settings."""
DIGESTS_OF_CODE = [code_without_comments(file) for pattern in CODE for file in sorted(PROJECT.glob(pattern))]
"""Digests at the import of this module, since an edit later does not change the process."""
PACKAGES = (
    "numpy", "scipy", "pandas", "scikit-learn", "lightgbm", "optuna", "rdkit", "torch", "transformers",
    "chemprop",
)  # fmt: skip


class Facts(NamedTuple):
    """What a page depends on in addition to the settings, tables and predictions that name a run.

    The expected score reads all of this from here, so that all of it is in `Run.made_from`. The shift of the test
    rows is not, since it is measured between two levels of a run (`submissions.shift.comparison_for`).

    Attributes:
        is_on_kaggle: whether the YAML names a competition on Kaggle.
        has_test_table: whether there is a test table, or the training rows are predicted.
        unit_warnings: of `folds.recommended.fold_warnings`, which also read columns that no setting reads.
        n_dropped: number of test rows that cannot be read.
        raw_train: digest of the raw training table, if the metric reads its rows; "" otherwise.
    """

    is_on_kaggle: bool
    has_test_table: bool
    unit_warnings: list[str]
    n_dropped: int
    raw_train: str


@dataclass(frozen=True)
class Run:
    """One configuration with its tables and finished jobs, and the folder of its files.

    Attributes:
        name: digest of the configuration, the tables and the keys of the jobs.
        made_from: digest of predictions, code, packages and facts.
        left_out: requested stages and seeds that are not in `config` and `plan`.
        budget: seconds of the command that built the run; None if it had no budget.
        is_late: whether its time is over, so that a metric of the user's is not called: all scores by it are
            NaN.
        clock: time of the command that makes the report; None for one without importances and time line.
    """

    name: str
    made_from: str
    folder: Path
    config: Config
    plan: JobPlan
    left_out: Sequence[LeftOut] = field(default=())
    budget: float | None = None
    is_late: bool = False
    clock: Clock | None = None

    @property
    def paths(self) -> Paths:
        """Paths of the files of the competition."""
        return self.plan.paths

    @cached_property
    def n_train_rows(self) -> int:
        """Number of training rows, without extra ones, which follow them."""
        return len(without_extra_rows(read_prepared(self.paths.train)))

    @cached_property
    def facts(self) -> Facts:
        """What its page depends on in addition to its name and predictions."""
        competition = self.config.competition
        report = read_json(self.paths.prepare_report, "folds", "dropped_test_ids")
        return Facts(
            is_on_kaggle=competition.kaggle is not None,
            has_test_table=competition.has_test_table,
            unit_warnings=report["folds"]["unit_warnings"],
            n_dropped=len(report["dropped_test_ids"]),
            raw_train=sha256_of(competition.train) if competition.scorer.takes_rows else "",
        )

    @cached_property
    def metric(self) -> Metric:
        """The metric of the competition."""
        metric = self.config.competition.scorer
        return replace(metric, table_score=lambda *_: math.nan) if self.is_unscored else metric

    @property
    def is_unscored(self) -> bool:
        """Whether nothing is scored, since no time is left for a metric of the user's."""
        return self.is_late and self.config.competition.scorer.table_score is not None

    @cached_property
    def task(self) -> Task:
        """Targets, outputs and classes of the competition."""
        return self.config.competition.task

    @cached_property
    def columns(self) -> Columns:
        """Predictions of all stages and the labels; a DataError if they do not match the tables.

        Standard errors have the number of resamples of an earlier level of the run.
        """
        n_resamples = 1 if self.is_unscored else None
        built = self.built
        if built and built.choice.submitted.score is not None:
            n_resamples = built.choice.submitted.n_resamples
        columns = load_columns(self.config, self.plan)
        return replace(columns, metric=self.metric, n_resamples=n_resamples)

    def fold_mark(self, stage: str) -> str | None:
        """Return why the scores of a stage of external predictions may be optimistic, see `Stage.fold_mark`."""
        folder = self.plan.jobs_of_stage(stage)[0].folder
        columns = self.columns
        return self.config.stages[stage].fold_mark(
            folder, self.config.competition.id, columns.ids, columns.folds
        )

    @property
    def has_all_folds(self) -> bool:
        """Whether there are models of all folds; else no stage is finished."""
        return len(folds_of(self.plan)) == self.plan.n_folds

    @property
    def incomplete(self) -> list[str]:
        """A warning if the submission was made while stages trained, or no stage was finished; [] otherwise."""
        if self.folder.name != SO_FAR:
            return []
        remedy = "The same command goes on from there"
        if self.has_all_folds:
            remedy = (
                "The same command makes one of all finished stages; after the end of its budget, only a "
                "larger one trains more"
            )
        return [
            f"WARNING: the submission of {self.paths.name} is not complete: it is of what was finished of "
            f"{', '.join(sorted(self.config.stages))} when it was made. {remedy}."
        ]

    @property
    def is_latest(self) -> bool:
        """Whether it is the latest submission of the competition."""
        return name_of_latest(self.paths) == self.folder.name

    @property
    def submission(self) -> Path:
        """The CSV file that is to be submitted."""
        return self.paths.submission if self.is_latest else self.folder / SUBMISSION_FILE

    def oof(self) -> pd.DataFrame:
        """Return id, fold, labels and predictions of the training rows, in the order of the prepared table.

        Labels are as in the training table, with its targets as names, and NaN if missing. Out-of-fold
        predictions are of each stage and of the submission, such as `gnn pIC50` and `submission pIC50`;
        several classes have a column each, such as `gnn tone=calm`. Where the metric scores labels,
        `submitted tone` has those that it scores: of tuned thresholds, which other folds have set. Predictions
        are NaN in rows of fold -1. Ids are text.
        """
        table = read_text_table(self.folder / OOF_TABLE).reset_index(drop=True)
        columns = table.columns.drop(["id", "fold"])
        return table.assign(**table[columns].apply(self.parsed), fold=table["fold"].astype(int))

    def parsed(self, cells: pd.Series) -> pd.Series:
        """Return cells as numbers or truth values, where they are some."""
        return as_written(cells)

    @cached_property
    def manifest(self) -> Manifest:
        """Content of run.json in the folder; it is read once."""
        return read_manifest(self.folder)

    @property
    def choice(self) -> Choice:
        """The candidates and the choice among them."""
        return self.manifest.choice

    @property
    def built(self) -> Manifest | None:
        """Content of run.json; None unless all files exist and are of the same run, predictions and code.

        The files that user code opened must also be unchanged.
        """
        try:
            manifest = verify_files(self.folder)
        except DataError:
            return None
        is_same = (manifest.run, manifest.made_from) == (self.name, self.made_from)
        return manifest if is_same and not self.changed_files else None

    @property
    def changed_files(self) -> list[str]:
        """What user code opened for the run in the folder, and what has changed since; [] without one."""
        try:
            return [*changed_files(self.config.model_dump(), read_manifest(self.folder).opened)]
        except DataError:
            return []

    @property
    def exit_status(self) -> int:
        """Exit status of the command that built the run: 3 if a failure left something out, else 0."""
        has_failed = any(each.reason not in (TIME, EPOCHS) for each in self.left_out)
        return 3 if has_failed or any(line.startswith("WARNING") for line in self.choice.failed) else 0

    @property
    def candidates(self) -> dict[str, CandidateScores]:
        """The candidates with their weights and scores, from simple to complex."""
        return dict(sorted(self.choice.candidates.items(), key=lambda item: complexity(item[0])))

    @property
    def chosen(self) -> str:
        """The candidate that is submitted."""
        return self.choice.chosen

    @property
    def weights(self) -> dict[str, dict[str, float]]:
        """Target -> weight of each stage in the chosen blend, or the base of the chosen stack; else empty."""
        return self.choice.submitted.weights

    @property
    def stages_with_weight(self) -> dict[str, Stage]:
        """The stages that the submission is computed from; a stack, and an own blend without weights, reads all."""
        used = {stage for weights in self.weights.values() for stage, weight in weights.items() if weight}
        if not used or self.chosen == LIGHTGBM_STACK:
            used = {*self.config.stages}
        return {name: stage for name, stage in self.config.stages.items() if name in used}


def open_run(config: Config, plan: JobPlan, left_out: Sequence[LeftOut] = ()) -> Run:
    """Return the run of a configuration with the stages of a plan of finished jobs.

    Predictions are not read.
    """
    if not plan.stages:
        raise NothingToSubmit(describe_left_out(left_out))
    config = config.model_copy(update={"stages": plan.stages})
    # The name does not depend on file paths or the answers: tables, jobs and user code enter by their
    # content.
    settings = config.model_dump(
        exclude={"budget": True, "competition": {"answers", "kaggle"}, "folds": {"file"}}
    )
    portable = {**rewrite_paths(settings, lambda path: path.name), "user_code": user_code_of(config)}
    content = {"config": portable, "tables": table_digests(plan.paths), "keys": plan.keys}
    folds = folds_of(plan)
    has_all_folds = len(folds) == plan.n_folds
    name = digest(content if has_all_folds else {**content, "folds": folds}, 12)
    folder = plan.paths.run(name if has_all_folds else SO_FAR)
    run = Run(name, "", folder, config, plan, left_out)
    predictions = [_digests(job, plan.test_key) for job in plan.jobs]
    return replace(run, made_from=digest([DIGESTS_OF_CODE, package_versions(), predictions, run.facts]))


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


def finished_folds(plans: Iterable[JobPlan]) -> JobPlan | None:
    """Return the plan of the stage and seed with the most finished folds; None if no fold is finished."""
    plans_of_seeds = []
    for plan in plans:
        jobs_of_seed: dict[tuple[str, int], list[Job]] = {}
        for job in plan.jobs:
            if job.fold != REFIT_FOLD and job.has_predicted(plan.test_key):
                jobs_of_seed.setdefault((job.stage, job.seed), []).append(replace(job, predicts_test=True))
        for (stage, seed), jobs in jobs_of_seed.items():
            settings = plan.stages[stage].model_copy(update={"seeds": [seed], "final_fit": "folds"})
            keys = {stage: plan.keys[stage]}
            plans_of_seeds.append(replace(plan, jobs=jobs, keys=keys, stages={stage: settings}))
    return max(plans_of_seeds, key=lambda plan: len(plan.jobs), default=None)


def folds_of(plan: JobPlan) -> list[int]:
    """Return the folds that the jobs of a plan validate."""
    return sorted({job.fold for job in plan.jobs} - {REFIT_FOLD})


def name_of_latest(paths: Paths) -> str:
    """Return the name of the folder of the latest submission; "" without one."""
    if not paths.latest_run.exists():
        return ""
    name = paths.latest_run.read_text(encoding="utf-8", errors="replace").strip()
    return name if paths.run(name).exists() else ""


def latest_run(competition: str) -> Run:
    """Return the latest run of a competition from its folder, with a WARNING if it is not complete."""
    paths = Paths.for_competition(competition)
    name = name_of_latest(paths)
    if not name:
        raise DataError(
            f"{paths.root} has no finished run: run ./run.sh full {competition} first, or check the name."
        )
    run = stored_run(paths, name)
    for warning in run.incomplete:
        print(warning, flush=True)
    return run


def stored_run(paths: Paths, name: str) -> Run:
    """Return a run from its folder; tables are not needed."""
    folder = paths.run(name)
    manifest = read_manifest(folder)
    config = validate(Config, manifest.config, folder / MANIFEST, yaml_file=Path(f"{paths.name}.yaml"))
    keys = {stage: record.key for stage, record in manifest.stages.items()}
    n_folds = manifest.n_folds
    jobs = []
    for stage, key in keys.items():
        jobs += jobs_of(stage, config.stages[stage], key, n_folds, paths)
    jobs = [job for job in jobs if job.fold in (*manifest.folds, REFIT_FOLD)]
    plan = JobPlan(jobs, keys, n_folds, manifest.test_key, dict(config.stages), config.competition, paths)
    return Run(manifest.run, manifest.made_from, folder, config, plan, manifest.left_out, manifest.budget)


def user_code_of(config: Config) -> list[tuple[str, str]]:
    """Return name and digest of each file of user code in the settings and of its imported modules."""
    files = user_code_files(config.model_dump())
    return sorted((file.name, sha256_of(file) if file.exists() else "gone") for file in files)


def opened_by(config: Config, plan: JobPlan) -> Opened:
    """Return what user code has opened for the tables, by the jobs of a plan, and in this process."""
    files = [plan.paths.prepare_report, *(job.folder / REPORT for job in plan.jobs)]
    records = [read_json(file).get("opened", {}) for file in files]
    return merge_opened(*records, opened_files(config.model_dump()))


def require_same_code(config: Config, manifest: Manifest) -> None:
    """Raise a DataError if user code in the settings, or a file that it opened, has changed since the run."""
    full = f"./run.sh full {config.competition.paths.on_command_line}"
    changed = [entry[0] for entry in user_code_of(config) if entry not in manifest.user_code]
    if changed:
        raise DataError(f"Your code in {changed[0]} has changed since the run. Run {full}, then this again.")
    opened = [*changed_files(config.model_dump(), manifest.opened)]
    if opened:
        raise DataError(
            f"{join_first(opened, str)}, which your code opened, changed since the run. "
            f"Run {full}, then this again."
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
            f"{job.folder} is not finished, or has not predicted the test table. Run ./run.sh train NAME."
        )
    if job.fold == REFIT_FOLD:
        return [job.title, sha256_of(test)]
    oof_digest = read_json(job.folder / REPORT, "files")["files"][job.oof_file.name]["sha256"]
    if not job.oof_file.is_file() or sha256_of(job.oof_file) != oof_digest:
        raise DataError(f"{job.oof_file} is missing or has changed; delete {job.folder} to train it again.")
    return [job.title, oof_digest, sha256_of(test)]


def unfinished_seeds(plan: JobPlan) -> set[tuple[str, int]]:
    """Return stage and seed of each job that is not finished."""
    return {(job.stage, job.seed) for job in plan.jobs if not job.has_predicted(plan.test_key)}


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
        first = reasons[0]
        fold = first.name.rpartition("/fold_")[2]
        error = f"fold {fold}: {first.error}" if first.status == "failed" else first.error
        left_out.append(LeftOut(stage, seed, first.reason, error, first.log))
    return left_out
