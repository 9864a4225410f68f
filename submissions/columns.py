"""What the four last steps start from: the run (its name, folder and manifest) and its columns of predictions."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition.durations import in_words
from competition.errors import DataError
from competition.files import derive_seed, digest, read_table, read_text_table, sha256_of
from competition.metrics import Array, Metric, load_metric
from competition.paths import PROJECT, Paths
from competition.tables import text_columns
from folds.table import read_folds, read_units
from models.jobs import Job, Plan, plan, sha256_of_required, stage_oof, stage_test
from submissions.blenders import Target
from submissions.config import Config, load_config
from submissions.crossfit import Rule

OWN = (
    "apply",
    "blend",
    "blenders",
    "bootstrap",
    "columns",
    "convex",
    "crossfit",
    "products",
    "stack",
    "stacker",
    "write",
)
CODE = (*(PROJECT / "submissions" / f"{name}.py" for name in OWN), PROJECT / "competition" / "metrics.py")
PACKAGES = (
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "lightgbm",
    "optuna",
    "rdkit",
    "torch",
    "transformers",
    "chemprop",
)


@dataclass(frozen=True)
class Run:
    """One resolved configuration with its tables and jobs.

    made_from: digest of what the products in the folder depend on beyond its name: columns, code, packages.
    left_out: which stages of the YAML are not in `config` and `plan`, and why, a line each.
    """

    config: Config
    paths: Paths
    plan: Plan
    name: str
    made_from: str
    left_out: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Of its products."""
        return self.paths.run(self.name)

    @property
    def metric(self) -> Metric:
        """What predictions are scored by."""
        return load_metric(self.config.competition.metric, self.config.competition.greater_is_better)

    @property
    def column_of(self) -> dict[str, str]:
        """Target -> name of its column in the sample."""
        competition = self.config.competition
        return dict(zip(competition.targets, competition.columns_in_sample, strict=True))


def open_run(competition: str, seed: int | None = None, reuse: bool = False, budget: float | None = None) -> Run:
    """The run as YAML, tables and jobs stand now. Reads digests, no predictions.

    Args:
        budget: seconds that training had; given, the run is that of a YAML without the stages that are not finished.

    Raises:
        ConfigError, DataError: if a section is wrong, a step before this one has not run, or a job is not finished.
    """
    config = load_config(competition, seed)
    paths = Paths.of(competition)
    jobs = plan(config.competition, dict(config.stages), paths, reuse)
    left_out: tuple[str, ...] = ()
    if budget is not None:
        config, jobs, left_out = _finished_stages(config, jobs, budget)
    tables = {path.name: sha256_of_required(path) for path in (paths.train, paths.test, paths.sample, paths.folds)}
    name = digest({"config": _portable(config), "tables": tables, "keys": jobs.keys}, 12)
    made_from = digest(
        {
            "code": [sha256_of(file) for file in CODE],
            "versions": package_versions(),
            "columns": [_digests(job, jobs.test_key) for job in jobs.jobs],
        }
    )
    return Run(config, paths, jobs, name, made_from, left_out)


def _finished_stages(config: Config, jobs: Plan, budget: float) -> tuple[Config, Plan, tuple[str, ...]]:
    """Configuration and jobs of the stages with all their jobs, and a line for each other stage.

    Raises:
        DataError: if no stage has all its jobs.
    """
    done = {
        name: [job.finished and job.has_predicted(jobs.test_key) for job in jobs.of(name)] for name in config.stages
    }
    stages = {name: stage for name, stage in config.stages.items() if all(done[name])}
    left_out = {name: f"{sum(part)} of {len(part)} jobs" for name, part in done.items() if not all(part)}
    within = f"within the budget of {in_words(budget)}"
    if not stages:
        raise DataError(
            f"at least one stage must finish all its jobs {within}, and none did "
            f"({', '.join(f'{name}: {found}' for name, found in left_out.items())}). Run again with a larger --budget "
            "or without one; finished jobs are kept."
        )
    keys = {name: jobs.keys[name] for name in stages}
    kept = Plan([job for job in jobs.jobs if job.stage in stages], keys, jobs.n_folds, jobs.test_key)
    lines = tuple(f"{name}: {found} finished {within}; left out" for name, found in left_out.items())
    return config.model_copy(update={"stages": stages}), kept, lines


def _portable(config: Config) -> dict[str, Any]:
    """The settings without the places of files; functions of the user's own are known by their content."""
    settings = config.model_dump(mode="json")
    for key in ("train", "test", "sample_submission", "answers"):
        del settings["competition"][key]
    del settings["folds"]["file"]  # its content is in folds.csv
    for extra in settings["competition"]["extra_train"]:
        del extra["file"]  # its rows are in the prepared training table
    for stage in settings["stages"].values():
        stage.pop("folder", None)  # the content of its files is in the job's key
    for key in ("metric", "features"):
        if ":" in (getattr(config.competition, key) or ""):
            file, function = getattr(config.competition, key).rsplit(":", 1)
            settings["competition"][key] = [sha256_of_required(Path(file)), function]
    return settings


def _digests(job: Job, test_key: str) -> list[str]:
    test = job.test_file(test_key)
    if not job.finished or not test.exists():
        raise DataError(
            f"every job must be finished and have predicted the test table; {job.folder} "
            f"{'lacks ' + test.name if job.finished else 'is not finished'}. Run ./run.sh train."
        )
    return [f"{job.stage} {job.seed} {job.fold}", sha256_of(job.folder / "oof.csv"), sha256_of(test)]


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter, of those that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Columns:
    """Predictions of all stages with what they are held against. Stages are in alphabetical order.

    oof: (n_rows, n_stages, n_targets), NaN where the fold is -1.
    y: (n_rows, n_targets), NaN where there is no label.
    folds: (n_rows,).
    units: (n_rows,), equal for rows that share a fold by construction.
    ids, test_ids: of the rows of `oof` and of `test`.
    test: stage -> (n_test_rows, n_targets).
    """

    stages: list[str]
    ids: list[str]
    oof: Array
    y: Array
    folds: NDArray[np.int64]
    units: NDArray[np.int64]
    test_ids: list[str]
    test: dict[str, Array]


def load_columns(run: Run) -> Columns:
    """All columns of a run, joined on id.

    Raises:
        DataError: if predictions do not fit the tables.
    """
    competition = run.config.competition
    train = read_table(run.paths.train, text_columns(competition))
    ids = list(train[competition.id])
    folds = read_folds(run.paths.folds, ids)
    test_ids = list(read_text_table(run.paths.test)[competition.id])
    stages = stage_names(run.config)
    oof = [stage_oof(run.plan.of(stage), ids, folds, competition.targets) for stage in stages]
    test = {s: stage_test(run.plan.of(s), run.plan.test_key, test_ids, competition.targets) for s in stages}
    return Columns(
        stages=stages,
        ids=ids,
        oof=np.stack(oof, axis=1),
        y=train[competition.targets].to_numpy(dtype=np.float64),
        folds=folds,
        units=read_units(run.paths.units, ids),
        test_ids=test_ids,
        test=test,
    )


def stage_names(config: Config) -> list[str]:
    """The stages in the order in which columns stand everywhere, whatever the order of the YAML."""
    return sorted(config.stages)


def targets_of(run: Run, columns: Columns) -> list[Target]:
    """What the candidates are fitted on, one for each target."""
    settings = run.config.submissions
    return [
        Target(
            np.ascontiguousarray(columns.oof[:, :, t]),
            columns.y[:, t],
            columns.folds,
            run.metric,
            settings.trials,
            derive_seed(run.config.competition.seed, "blend", name),
        )
        for t, name in enumerate(run.config.competition.targets)
    ]


def rule_of(run: Run, columns: Columns) -> Rule:
    """The rule of selection as the YAML sets it."""
    settings = run.config.submissions
    return Rule(
        metric=run.metric,
        y=columns.y,
        folds=columns.folds,
        units=columns.units,
        default=settings.default,
        margin=settings.margin,
        draws=settings.bootstrap,
        seed=run.config.competition.seed,
    )
