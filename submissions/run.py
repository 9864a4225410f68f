"""A run: one configuration with its tables and jobs, its columns of predictions, and what the last steps make of them.

Its folder, work/<name>/submissions/<run>/, holds

    run.json                  what the run is made of and what each step found; each step writes its part last
    oof.parquet, oof.csv      ids, folds, labels and the out-of-fold predictions of all columns (`Run.oof_table`)
    cross_fitted/             predictions of each candidate that the scores and the choice are computed from
    labels/                   their labels where the metric scores these
    stages.parquet            what the metric scores of each stage alone, decided on without the row's fold
    cross_fitted.csv          what the metric scores of the training rows, by what was fitted and chosen without their
                              fold
    blend.csv, stack.csv, submission.csv, spread.csv
    left_out.txt              what a given time left out of the competition's stages, a line each
"""

import json
import math
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from competition import command
from competition.config import validate
from competition.errors import DataError
from competition.files import digest, read_json, read_table, sha256_of, table_digest, write_json
from competition.metrics import Metric
from competition.paths import PROJECT, Paths
from competition.task import Task, metric_of, task_of
from competition.types import Array
from competition.user_code import user_code_files
from models.jobs.plan import ALL, REPORT, Job, Plan, jobs_of, plan
from models.stages.file import COPY_OF_OOF, fold_mark
from submissions.blend.candidates import CANDIDATES
from submissions.columns import Columns, load_columns
from submissions.config import Config, load_config, relocated
from submissions.sample import write_submission

MANIFEST = "run.json"
BLEND, STACK, CHOICE = "blend", "stack", "choice"
"""The parts of run.json that the steps write: `submissions.blend`, `submissions.stack`, `submissions.write`."""
BLEND_FILE, STACK_FILE, SUBMISSION_FILE = "blend.csv", "stack.csv", "submission.csv"
OOF, OOF_TABLE, CROSS_FITTED = "oof.parquet", "oof.csv", "cross_fitted.csv"
STAGES, LEFT_OUT = "stages.parquet", "left_out.txt"
CODE = (
    "submissions/blend/*.py", "submissions/stack.py", "submissions/columns.py", "submissions/fitted.py",
    "submissions/sample.py", "submissions/write.py", "competition/*metrics.py", "competition/task.py",
)  # fmt: skip
"""What the products of a run depend on, beside the jobs and the settings; and so do these packages."""
PACKAGES = (
    "numpy", "scipy", "pandas", "scikit-learn", "lightgbm", "optuna", "rdkit", "torch", "transformers", "chemprop",
)  # fmt: skip


CONSTANTS = {"NaN": None, "Infinity": math.inf, "-Infinity": -math.inf}
"""What JSON makes of numbers: one that is none is null; an edge of a step of the user's may be infinite."""


@dataclass(frozen=True)
class Run:
    """One resolved configuration with its tables and jobs, and the folder of what is made of them.

    name: digest of the configuration, the tables and the keys of the jobs.
    made_from: digest of what else its products depend on: predictions, code, packages.
    """

    name: str
    made_from: str
    folder: Path
    config: Config
    paths: Paths
    plan: Plan

    @property
    def metric(self) -> Metric:
        """What predictions are scored by."""
        return metric_of(self.config.competition)

    @property
    def task(self) -> Task:
        """What is predicted."""
        return task_of(self.config.competition)

    @cached_property
    def columns(self) -> Columns:
        """All columns with ids, folds and labels; DataError if predictions do not fit the tables."""
        return load_columns(self.config, self.plan)

    def oof_table(self) -> pd.DataFrame:
        """Ids, folds, labels (under the names of the targets) and all out-of-fold columns (`column output`)."""
        return pd.read_parquet(self.folder / OOF)

    @property
    def stored(self) -> dict[str, Any]:
        """The content of run.json."""
        return read_manifest(self.folder)

    def part(self, step: str) -> dict[str, Any]:
        """What a step found on the predictions and the code as they are; a DataError if anything has changed since."""
        if self.stored["made_from"] != self.made_from:
            raise DataError(f"{self.folder} was made from other predictions or other code. Run ./run.sh full.")
        return read_manifest(self.folder, step)[step]

    def require_candidates(self) -> None:
        """A DataError unless blends and, where it is wanted, the stack have been fitted on things as they are."""
        for step in (BLEND, STACK) if self.config.submissions.stack else (BLEND,):
            self.part(step)

    def kept(self, step: str) -> dict[str, Any] | None:
        """The same; None where the step has to run, since it has not, or something has changed since."""
        try:
            return self.part(step)
        except DataError:
            return None

    def keep(self, step: str, found: dict[str, Any], files: list[str]) -> dict[str, Any]:
        """Write what a step found into run.json, with the digests of its files; returns it as it is read again."""
        same = (self.folder / MANIFEST).is_file() and self.stored["made_from"] == self.made_from
        content = self.stored if same else _manifest(self)
        part = {**found, "files": {name: sha256_of(self.folder / name) for name in files}}
        content[step] = json.loads(json.dumps(part), parse_constant=CONSTANTS.get)
        write_json(self.folder / MANIFEST, content)
        return self.part(step)

    @property
    def what_fills(self) -> str:
        """What rows that cannot be read get, in words."""
        if not self.task.decides:
            return "the mean of the training labels"
        return "the mean grade" if self.task.problem_type == "ordinal" else "the commonest class"

    def write_submission(self, file: str, scored: Array) -> int:
        """Write labels or predictions (n_test_rows, n_scored), checked; returns how many rows were filled."""
        sample, id_column = read_table(self.paths.sample), self.config.competition.id
        rows = self.columns.test_ids, scored, self.columns.label_means
        return write_submission(self.folder / file, sample, id_column, self.task, *rows)

    @property
    def candidates(self) -> dict[str, Any]:
        """The candidates of the finished steps with their models and scores, from simple to complex."""
        return candidates_in(self.stored)

    @property
    def chosen(self) -> str:
        """The candidate that is submitted."""
        return self.part(CHOICE)["chosen"]

    @property
    def weights(self) -> dict[str, dict[str, float]]:
        """Target -> weight of each column in the chosen blend, or in that below the chosen stack; else empty."""
        return self.candidates[self.chosen]["weights"]


def open_run(competition: str, seed: int | None = None, reuse: bool = False) -> Run:
    """The run as YAML, tables and jobs stand now, all of its jobs finished. Reads digests, no predictions."""
    config = load_config(competition, seed)
    paths = Paths.of(competition)
    jobs = plan(config.competition, dict(config.stages), paths, reuse)
    # Neither the places of files nor the answers are in a name: the content of files is in tables, jobs and user_code.
    settings = config.model_dump(exclude={"competition": {"answers", "kaggle"}, "folds": {"file"}})
    portable = {**relocated(settings, lambda path: path.name), "user_code": code_of_user(config)}
    name = digest({"config": portable, "tables": _tables(paths), "keys": jobs.keys}, 12)
    predictions = [_digests(job, jobs.test_key) for job in jobs.jobs]
    code = [sha256_of(file) for pattern in CODE for file in sorted(PROJECT.glob(pattern))]
    made_from = digest([code, _versions(), predictions])
    return Run(name, made_from, paths.run(name), config, paths, jobs)


def name_of_latest(paths: Paths) -> str:
    """The name of the run that was written last; nothing where there is none."""
    return paths.latest_run.read_text(encoding="utf-8").strip() if paths.latest_run.exists() else ""


def latest_run(competition: str) -> Run:
    """The run of a competition that was written last, as its folder holds it; needs no table."""
    paths = Paths.of(competition)
    if not (name := name_of_latest(paths)):
        raise DataError(
            f"{paths.root} must hold a finished run; run ./run.sh full {competition} first, and look at the name."
        )
    folder = paths.run(name)
    stored = read_manifest(folder)
    config = validate(Config, stored["config"], folder / MANIFEST)
    keys = {stage["name"]: stage["key"] for stage in stored["stages"]}
    jobs = [j for n, key in keys.items() for j in jobs_of(n, config.stages[n], key, stored["n_folds"], paths)]
    made = Plan(jobs, keys, stored["n_folds"], stored["test_key"], dict(config.stages), config.competition, paths)
    return Run(stored["run"], stored["made_from"], folder, config, paths, made)


def candidates_in(stored: dict[str, Any]) -> dict[str, Any]:
    """The candidates of the finished steps of a run.json, from simple to complex."""
    found = stored[BLEND]["candidates"] | stored.get(STACK, {"candidates": {}})["candidates"]
    return {name: found[name] for name in dict.fromkeys([*CANDIDATES, *found]) if name in found}


def scored_rows(folder: Path, task: Task) -> pd.DataFrame:
    """What a finished run has had scored of each training row (index: its id), as `cross_fitted.csv` holds it.

    No rows where it scored labels and `task` scores predictions, or the other way round, or had other classes.
    """
    stored = read_manifest(folder, CHOICE)
    is_same = stored[CHOICE].get("decides", False) == task.decides
    is_same &= stored["config"]["competition"].get("classes", []) == task.classes
    table = read_table(folder / CROSS_FITTED, ["id"]).set_index("id")
    return table if is_same else table.head(0)


def read_manifest(folder: Path, *steps: str) -> dict[str, Any]:
    """The content of a run's run.json; a DataError if one of `steps` has not run, or a file of it is not as it was."""
    stored: dict[str, Any] = read_json(folder / MANIFEST, "run")
    if "made_from" not in stored:
        raise DataError(f"{folder} was made by an earlier version of this code; run ./run.sh full for one of today's.")
    for step in steps:
        if step not in stored:
            raise DataError(f"{folder} is not finished: the step {step} has not run. Run ./run.sh full.")
        for name, known in stored[step]["files"].items():
            if not (folder / name).is_file() or sha256_of(folder / name) != known:
                raise DataError(
                    f"{folder} is not as the run wrote it; changed or gone: {name}. Run ./run.sh full to make it again."
                )
    return stored


@contextmanager
def at_work(description: str | None) -> Iterator[Run]:
    """The run that a command line names; holds the lock of its competition, and keeps sums on one thread: their order
    decides their last digits."""
    args = command.parser(description).parse_args()
    run = open_run(args.competition, args.seed, args.reuse)
    with command.locked(run.paths, wait=True), threadpool_limits(1):
        yield run


def code_of_user(config: Config) -> list[list[str]]:
    """Name and digest of each file of the user's code that the settings name, and of the modules that it imports."""
    files = user_code_files(config.model_dump())
    return sorted([file.name, sha256_of(file) if file.exists() else "gone"] for file in files)


def require_same_code(config: Config, stored: dict[str, Any]) -> None:
    """A DataError if the user's code that the settings name has changed since the run wrote `stored`."""
    if changed := [found[0] for found in code_of_user(config) if found not in stored["user_code"]]:
        raise DataError(f"Your code of {changed[0]} has changed since the run. Run ./run.sh full, then this again.")


def _tables(paths: Paths) -> dict[str, str]:
    return {file.name: table_digest(file) for file in (paths.train, paths.test, paths.sample, paths.folds)}


def _digests(job: Job, test_key: str) -> list[str]:
    """Name of a finished job and the digests of its predictions, which have to be as it wrote them."""
    test = job.test_file(test_key)
    if not job.has_predicted(test_key):
        raise DataError(f"{job.folder} is not finished, or has not predicted the test table. Run ./run.sh train.")
    if job.fold == ALL:
        return [job.name, sha256_of(test)]
    known = read_json(job.folder / REPORT, "files")["files"][job.oof_file.name]["sha256"]
    if not job.oof_file.is_file() or sha256_of(job.oof_file) != known:
        raise DataError(f"{job.oof_file} is not as its job wrote it; delete {job.folder} to train it again.")
    return [job.name, known, sha256_of(test)]


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}


def _manifest(run: Run) -> dict[str, Any]:
    """What a run is made of: all that a later `predict` needs to know, and what tables have to say of its stages."""
    competition, columns, stages = run.config.competition, run.columns, []
    for name, stage in sorted(run.config.stages.items()):
        jobs = run.plan.of(name)
        marks = {
            "other code": any(job.other_code for job in jobs),
            "optimistic": getattr(stage, "keep", None) == "best_on_held_out",
            "pseudo-labels": stage.pseudo_labels is not None,
            "refit": stage.final_fit != "folds",
            "class weights": stage.bends_probabilities,
        }
        if stage.kind == "file":
            theirs = jobs[0].folder / COPY_OF_OOF
            mark = fold_mark(theirs, competition.id, columns.ids, columns.folds)
            marks[str(mark)] = mark is not None
        said = [mark for mark, holds in marks.items() if holds]
        seeds, key = sorted(stage.seeds), run.plan.keys[name]
        stages.append({"name": name, "kind": stage.kind, "key": key, "seeds": seeds, "marks": said})
    return {
        "run": run.name,
        "made_from": run.made_from,
        "config": run.config.model_dump(mode="json"),
        "stages": stages,
        "columns": columns.names,
        "sample_columns": list(read_table(run.paths.sample).columns),
        "n_folds": run.plan.n_folds,
        "label_means": columns.label_means,
        "tables": _tables(run.paths),
        "test_key": run.plan.test_key,
        "user_code": code_of_user(run.config),
        "versions": _versions(),
    }
