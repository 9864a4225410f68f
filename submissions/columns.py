"""What the four last steps start from: the run (its name, folder and manifest) and its columns of predictions."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition.config import CompetitionConfig
from competition.durations import in_words
from competition.errors import DataError
from competition.files import derive_seed, digest, read_json, read_table, sha256_of, table_digest
from competition.metrics import Array, Metric, load_metric
from competition.paths import PROJECT, Paths
from competition.tables import INPUT_KEY
from folds.table import read_folds, read_groups
from models.jobs.plan import ALL, REPORT, Job, Plan, plan, sha256_of_required
from models.jobs.predictions import stage_oof, stage_test
from submissions.blenders import ALWAYS, BLENDERS
from submissions.config import Config, load_config
from submissions.crossfit import Rule
from submissions.target import Target, exact_problem, share_weights

OWN = (
    "apply",
    "blend",
    "blenders",
    "bootstrap",
    "columns",
    "convex",
    "crossfit",
    "features",
    "postprocess",
    "products",
    "stack",
    "stacker",
    "target",
    "write",
)
TOO_FAR = 1e6
"""Standard deviations of the labels. Beside such a column the sums of a blend have no digits left for the labels."""
CODE = (
    *(PROJECT / "submissions" / f"{name}.py" for name in OWN),
    PROJECT / "competition" / "metrics.py",
    PROJECT / "models" / "stages" / "estimators.py",
    PROJECT / "models" / "inputs" / "features.py",
)
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
    left_out: which stages and seeds of the YAML are not in `config` and `plan`, and why, a line each.
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
    def candidates(self) -> list[str]:
        """The blends that are compared, in the order of their page."""
        settings = self.config.submissions
        no_exact_form = exact_problem(_metric_of_one(self)) is None
        wanted = {*ALWAYS, settings.default, *settings.candidates, *(["optuna"] if no_exact_form else [])}
        return [name for name in BLENDERS if name in wanted]

    @property
    def column_of(self) -> dict[str, str]:
        """Target -> name of its column in the sample."""
        competition = self.config.competition
        return dict(zip(competition.targets, competition.columns_in_sample, strict=True))


def open_run(competition: str, seed: int | None = None, reuse: bool = False, budget: float | None = None) -> Run:
    """The run as YAML, tables and jobs stand now. Reads digests, no predictions.

    Args:
        budget: seconds that training had; given, the run is that of a YAML without unfinished stages and seeds.

    Raises:
        ConfigError, DataError: if a section is wrong, a step before this one has not run, or a job is not finished.
    """
    config = load_config(competition, seed)
    paths = Paths.of(competition)
    jobs = plan(config.competition, dict(config.stages), paths, reuse)
    left_out: tuple[str, ...] = ()
    if budget is not None:
        config, jobs, left_out = _finished_seeds(config, jobs, budget)
    tables = {path.name: table_digest(path) for path in (paths.train, paths.test, paths.sample, paths.folds)}
    name = digest({"config": _portable(config), "tables": tables, "keys": jobs.keys}, 12)
    made_from = digest(
        {
            "code": [sha256_of(file) for file in CODE],
            "versions": package_versions(),
            "columns": [_digests(job, jobs.test_key) for job in jobs.jobs],
        }
    )
    return Run(config, paths, jobs, name, made_from, left_out)


def _finished_seeds(config: Config, jobs: Plan, budget: float) -> tuple[Config, Plan, tuple[str, ...]]:
    """Configuration and jobs of the stages' seeds that have all their jobs, and a line for what else there is.

    Raises:
        DataError: if there is none.
    """
    stages: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name, stage in config.stages.items():
        done = jobs.done_by_seed(name)
        whole = [seed for seed in stage.seeds if all(done[seed])]
        if whole:
            stages[name] = stage.model_copy(update={"seeds": whole})
            cut = {f"{name}, seed {seed}": part for seed, part in done.items() if seed not in whole}
        else:
            cut = {name: [is_done for part in done.values() for is_done in part]}
        left_out |= {which: f"{sum(part)} of {len(part)} jobs" for which, part in cut.items()}
    within = f"within the budget of {in_words(budget)}"
    if not stages:
        found = "; ".join(f"{which}: {jobs_done}" for which, jobs_done in left_out.items())
        raise DataError(
            f"at least one stage must finish all jobs of a seed {within}, and none did ({found}). Run again with a "
            "larger --budget or without one; finished jobs are kept."
        )
    keys = {name: jobs.keys[name] for name in stages}
    kept = [job for job in jobs.jobs if job.stage in stages and job.seed in stages[job.stage].seeds]
    lines = tuple(f"{which}: {jobs_done} finished {within}; left out" for which, jobs_done in left_out.items())
    new_config = config.model_copy(update={"stages": stages})
    return new_config, Plan(kept, keys, jobs.n_folds, jobs.test_key), lines


def user_code(competition: CompetitionConfig) -> dict[str, list[str]]:
    """The user's own metric and features, where there are some: digest of the file, name of the function."""
    named = {"metric": competition.metric.rpartition(":"), "features": (competition.features or "").rpartition(":")}
    return {key: [sha256_of_required(Path(file)), name] for key, (file, _, name) in named.items() if file}


def _portable(config: Config) -> dict[str, Any]:
    """The settings without the places of files; functions of the user's own are known by their content."""
    settings = config.model_dump(mode="json")
    for key in ("train", "test", "sample_submission", "answers", "kaggle"):
        del settings["competition"][key]
    del settings["folds"]["file"]  # its content is in folds.csv
    for extra in settings["competition"]["extra_train"]:
        del extra["file"]  # its rows are in the prepared training table
    for stage in settings["stages"].values():
        stage.pop("folder", None)  # the content of its files is in the job's key
    settings["competition"] |= user_code(config.competition)
    return settings


def _digests(job: Job, test_key: str) -> list[str]:
    test = job.test_file(test_key)
    if not job.finished or not test.exists():
        raise DataError(
            f"every job must be finished and have predicted the test table; {job.folder} "
            f"{'lacks ' + test.name if job.finished else 'is not finished'}. Run ./run.sh train."
        )
    if job.fold == ALL:
        return [f"{job.stage} {job.seed} {job.fold}", sha256_of(test)]
    oof, known = job.oof_file, read_json(job.folder / REPORT, "files")["files"][job.oof_file.name]["sha256"]
    if not oof.is_file() or sha256_of(oof) != known:
        raise DataError(f"{oof} must be as its job wrote it, and is not; delete {job.folder} to train it again.")
    return [f"{job.stage} {job.seed} {job.fold}", known, sha256_of(test)]


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
    """Predictions of all stages with what they are held against. Columns are in alphabetical order.

    stages: name of each column: its stage, or `stage:seed`.
    stage_of: column -> its stage.
    oof: (n_rows, n_columns, n_targets), NaN where the fold is -1.
    y: (n_rows, n_targets), NaN where there is no label.
    folds: (n_rows,).
    units: (n_rows,), equal for rows that share a fold by construction.
    ids, test_ids: of the rows of `oof` and of `test`.
    test: column -> (n_test_rows, n_targets).
    inputs, test_inputs: of the rows, equal where the whole input is the same.
    """

    stages: list[str]
    stage_of: dict[str, str]
    ids: list[str]
    oof: Array
    y: Array
    folds: NDArray[np.int64]
    units: NDArray[np.int64]
    test_ids: list[str]
    test: dict[str, Array]
    inputs: list[str]
    test_inputs: list[str]

    def oof_of(self, stage: str) -> Array:
        """Mean of the columns of one stage, (n_rows, n_targets)."""
        return self.oof[:, [self.stage_of[name] == stage for name in self.stages]].mean(axis=1)

    def test_of(self, stage: str) -> Array:
        """The same for the test rows."""
        return np.mean([self.test[name] for name in self.stages if self.stage_of[name] == stage], axis=0)

    def test_columns(self, target: int) -> Array:
        """All columns of one target for the test rows, (n_test_rows, n_stages)."""
        return np.column_stack([self.test[name][:, target] for name in self.stages])

    def without(self, stage: str) -> Columns:
        """All but the columns of one stage."""
        kept = [name for name in self.stages if self.stage_of[name] != stage]
        oof = self.oof[:, [self.stages.index(name) for name in kept]]
        return replace(self, stages=kept, oof=oof, test={name: self.test[name] for name in kept})


def load_columns(run: Run) -> Columns:
    """All columns of a run, joined on id.

    Raises:
        DataError: if predictions do not fit the tables.
    """
    competition = run.config.competition
    train = read_table(run.paths.train)
    ids = list(train[competition.id])
    folds = read_folds(run.paths.folds, ids)
    test_table = read_table(run.paths.test)
    test_ids = list(test_table[competition.id])
    names = column_names(run.config)
    jobs = {name: [job for job in run.plan.of(stage) if job.seed in seeds] for name, (stage, seeds) in names.items()}
    oof = {name: stage_oof(part, ids, folds, competition.targets) for name, part in jobs.items()}
    y = train[competition.targets].to_numpy(dtype=np.float64)
    for name, column in oof.items():
        _require_near(name, column[folds >= 0], y[folds >= 0], competition.targets)
    return Columns(
        stages=list(names),
        stage_of={name: stage for name, (stage, _) in names.items()},
        ids=ids,
        oof=np.stack(list(oof.values()), axis=1),
        y=y,
        folds=folds,
        units=read_groups(run.paths.groups, ids),
        test_ids=test_ids,
        test={name: stage_test(part, run.plan.test_key, test_ids, competition.targets) for name, part in jobs.items()},
        inputs=list(train[INPUT_KEY]),
        test_inputs=list(test_table[INPUT_KEY]),
    )


def _require_near(name: str, oof: Array, y: Array, targets: list[str]) -> None:
    """Check that predictions (n_rows, n_targets) are so near to the labels that the sums of a blend keep digits."""
    for t, target in enumerate(targets):
        known = y[~np.isnan(y[:, t]), t]
        gap = float(np.abs(oof[:, t] - known.mean()).max()) if len(known) else 0.0
        if len(known) > 1 and gap > TOO_FAR * known.std() > 0:
            raise DataError(
                f"out-of-fold predictions must be near the labels; one of {name} for {target} is {gap:.3g} from their "
                f"mean, and their standard deviation is {known.std():.3g}. Leave the stage out, or mend it: its "
                "learning_rate, its target_transform, the units of predictions made elsewhere."
            )


def stage_names(config: Config) -> list[str]:
    """The stages in alphabetical order, whatever the order of the YAML."""
    return sorted(config.stages)


def column_names(config: Config) -> dict[str, tuple[str, list[int]]]:
    """Column -> its stage and the seeds it is the mean of, in the order in which columns stand everywhere."""
    found: dict[str, tuple[str, list[int]]] = {}
    for stage, settings in config.stages.items():
        seeds = sorted(set(settings.seeds))
        if config.submissions.seeds == "separate" and len(seeds) > 1:
            found |= {f"{stage}:{seed}": (stage, [seed]) for seed in seeds}
        else:
            found[stage] = (stage, seeds)
    return dict(sorted(found.items()))


def targets_of(run: Run, columns: Columns, features: Array | None = None) -> list[Target]:
    """What the candidates are fitted on, one for each target; `features` (n_rows, n_features) are for stacks."""
    settings = run.config.submissions
    targets = [
        Target(
            np.ascontiguousarray(columns.oof[:, :, t]),
            columns.y[:, t],
            columns.folds,
            _metric_of_one(run),
            settings.trials,
            derive_seed(run.config.competition.seed, "blend", name),
            settings.weight_trials,
            features,
        )
        for t, name in enumerate(run.config.competition.targets)
    ]
    if settings.weights == "shared":
        share_weights(targets)
    return targets


def _metric_of_one(run: Run) -> Metric:
    """The metric as blends of one target can be tuned on it: a user's function, too, where there is one target only."""
    metric = run.metric
    if metric.column is None and len(run.config.competition.targets) == 1:
        return replace(metric, column=lambda y, y_pred: metric(y[:, None], y_pred[:, None]))
    return metric


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
