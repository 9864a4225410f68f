"""Repeat the experiment that a default is based on: `./run.sh study STUDY`.

A study compares variants of a stage with its baseline. Each is a stage in a competition that is made from a
base, so its jobs are trained, resumed and skipped like others. Options of `./run.sh train`, such as
--workers=2 and --executor=ray, are passed on.

Reads: studies/<name>.yaml, the base's YAML and tables. Writes: work/study_<name>_<data>/ with the jobs;
work/study_<name>/ with results.csv (a row per finished job) and table.md. Exit status 3 if jobs are missing.
"""

import argparse
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator
from scipy import optimize, stats

from competition.cells import read_table_with_ids
from competition.config import CompetitionConfig, read_yaml, validate
from competition.metrics import METRICS, raw_rows_for
from competition.task import Task
from core import cli
from core.errors import ConfigError, DataError
from core.files import PROJECT, read_json, write_atomically, write_table
from core.paths import Paths, display_path, generated_yaml
from core.settings import StrictModel, UniqueList
from core.text import format_table
from core.types import Array
from core.user_tables import read_text_table
from core.yaml_files import dump_yaml, load_yaml
from models.jobs.job import Job, read_predictions
from models.jobs.job_files import verify_job
from models.jobs.plan import JobPlan, make_plan
from pipeline.check import check_all
from submissions.blend.logits import logits, probabilities
from submissions.config import load_config

STUDIES = PROJECT / "studies"
TEST_ROWS = 20
"""Number of test rows: a study scores held-out folds only, but every job predicts test rows."""
CLASS = "_class"
"""Suffix of the name of a target that was converted into classes."""
BASELINE = "baseline"
"""Name of a stage without changes, among its variants."""
TABLE_NOTE = (
    "score: mean over seeds and held-out folds +- standard error. "
    "gain: over the baseline on the same seeds and folds, above 0 is better, with its 95 % interval "
    "(corrected resampled t, Nadeau and Bengio 2003). "
    "If the interval contains 0, the variant is not significantly different from the baseline."
)
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*$")]
VariantName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]+$")]


class StudyData(StrictModel):
    """A data set on which stages are measured."""

    base: str
    """Name of a competition, or a YAML relative to the study's; its stages are not used."""
    folder: str | None = None
    """Folder below --data with the tables, for data whose tables are not in this project."""
    rows: int | None = Field(default=None, ge=10)
    """Number of training rows, sampled once; null: all."""
    folds: dict[str, Any] = {}
    """Settings of `folds:` that differ from those of the base."""
    bin_edges: list[float] = []
    """Bin edges that convert the single target of the base into classes; folds of kind kfold are the same as
    for the numbers.
    """
    metric: str = "f1_macro"
    """Metric of these classes."""


class StudyStage(StrictModel):
    """A stage without its variants is the baseline that each of them is compared with."""

    settings: dict[str, Any]
    """Block of the stage as in a competition's YAML."""
    variants: dict[VariantName, dict[str, Any]] = {}
    """Name -> the settings that differ from the baseline, merged into its block."""
    data: list[str] = []
    """Data sets that the stage is measured on; empty: all."""


class Study(StrictModel):
    """One study.

    The key `quick` has the changes of a small version (minutes on 2 cores), which are merged into the study;
    null removes a key.
    """

    claim: str = Field(min_length=1)
    """Claim of the literature, in one or two sentences."""
    data: dict[Name, StudyData] = Field(min_length=1)
    stages: dict[Name, StudyStage] = Field(min_length=1)
    seeds: Annotated[list[int], UniqueList] = Field(default=[0], min_length=1)
    folds: Annotated[list[int], UniqueList] | None = None
    """Folds to measure; null: all."""
    extra_metrics: list[str] = []
    """More columns of `results.csv` for the table: from the stage's `measures.json`, or other metrics.
    If classes were made from numbers, a regression metric scores the expected class.
    """

    @model_validator(mode="after")
    def _check_data_names(self) -> Self:
        for name, stage in self.stages.items():
            unknown = [data for data in stage.data if data not in self.data]
            if unknown:
                raise ValueError(
                    f"stages.{name}.data must name some of {', '.join(self.data)}; got {unknown[0]!r}"
                )
        return self


class Cell(NamedTuple):
    """A stage in one variant, and its block as in a competition's YAML."""

    stage: str
    variant: str
    block: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the stage in the competition of the study: `minilm`, or `minilm__rate_0_1`."""
        return self.stage if self.variant == BASELINE else f"{self.stage}__{self.variant.replace('.', '_')}"


def cells_of(study: Study, data: str) -> Iterator[Cell]:
    """Yield the cells of each stage on a data set, the baseline first."""
    for name, stage in study.stages.items():
        if data in (stage.data or study.data):
            for variant, changes in {BASELINE: {}, **stage.variants}.items():
                block = deep_merge(stage.settings, changes)
                yield Cell(name, variant, {**block, "seeds": study.seeds})


def load_study(path: Path, quick: bool = False) -> Study:
    """Return a study, or its quick version; files of custom stages are relative to its folder."""
    document = load_yaml(path)
    changes = document.pop("quick", {})
    study = validate(Study, deep_merge(document, changes) if quick else document, path)
    for stage in study.stages.values():  # settings are validated with their variants
        if ".py:" in str(stage.settings.get("kind")):
            stage.settings["kind"] = str(path.parent / stage.settings["kind"])
    return study


def deep_merge(document: Any, changes: Any) -> Any:
    """Return a document with merged changes: mappings merge, null removes a key, other values replace."""
    if not (isinstance(document, dict) and isinstance(changes, dict)):
        return changes
    both = {**document, **{key: deep_merge(document.get(key), value) for key, value in changes.items()}}
    return {key: value for key, value in both.items() if value is not None or key not in changes}


def run_study(
    file: Path, quick: bool = False, folder: Path | None = None, options: Sequence[str] = ()
) -> tuple[str, int]:
    """Train the missing jobs and write the results; return lines to print, and 3 if jobs are missing, else 0.

    Args:
        folder: folder that contains the tables that are not in this project.
        options: options of `./run.sh train`, such as --workers and --executor.
    """
    study = load_study(file, quick)
    name = f"{file.stem}_quick" if quick else file.stem
    yaml_files: dict[str, Path] = {}
    for data, settings in study.data.items():
        tables = (folder or Path()) / settings.folder if settings.folder else None
        if tables and not (tables / "train.csv").is_file():
            print(
                f"{data} is left out: there is no {tables / 'train.csv'}. Its tables are not in this project; --data "
                f"FOLDER is the folder that contains {settings.folder}."
            )
            continue
        yaml_files[data] = generated_yaml(f"study_{name}_{data}")
        base_file = file.parent / settings.base
        base = str(base_file) if base_file.is_file() else settings.base
        write_competition(yaml_files[data], base, tables, settings, list(cells_of(study, data)))
        check_all(load_config(str(yaml_files[data])))
    if not yaml_files:
        raise DataError(
            f"The study {file.stem} needs the tables of at least one of its data; name them with --data."
        )
    plans = {data: trained_plan(study, path, options) for data, path in yaml_files.items()}
    jobs = job_table(plans, study)
    text = markdown(gains(plans, jobs, study), study)
    results = Paths(f"study_{name}").root / "results.csv"
    write_table(results, jobs)
    write_atomically(results.with_name("table.md"), text + "\n")
    text += f"\n\nTable of jobs: {display_path(results)}"
    unfinished = [
        job for data, plan in plans.items() for job in measured_jobs(plan, study, data) if not job.finished
    ]
    if not unfinished:
        return text, 0
    stages = ", ".join(dict.fromkeys(job.stage for job in unfinished))
    warning = (
        f"WARNING: {len(unfinished)} jobs of {stages} are missing: they failed, or an option left them out"
    )
    return f"{text}\n{warning}. The same command trains what failed", 3


def write_competition(path: Path, base: str, folder: Path | None, data: StudyData, cells: list[Cell]) -> None:
    """Write the competition of the base with the cells as stages, fewer rows and no answers.

    Args:
        base: name or YAML.
        folder: folder of its tables, if they are not at the paths of the YAML.
    """
    yaml_file, document = read_yaml(base)
    if folder is not None:
        yaml_file = folder.resolve() / yaml_file.name
    config = validate(CompetitionConfig, document.get("competition", {}), yaml_file, "competition")
    folds = load_config(base).folds
    files = config.train, config.test, config.sample_submission
    train, test, sample = (read_table_with_ids(file, [config.id]) for file in files)
    if data.rows and data.rows < len(train):
        train = train.iloc[np.sort(np.random.default_rng(0).choice(len(train), data.rows, replace=False))]
    test = test[:TEST_ROWS]
    sample = sample[sample[config.id].isin(test[config.id])]
    competition = config.model_dump(mode="json", exclude_unset=True, exclude={"answers"})
    if data.bin_edges:
        (name,) = config.targets
        target = name + CLASS
        classes = [f"class_{number}" for number in range(len(data.bin_edges) + 1)]
        numbers = train[name].astype(float)
        train[target] = np.array(classes)[np.digitize(numbers, data.bin_edges)]
        sample = pd.DataFrame({config.id: sample[config.id], target: classes[0]})
        competition |= {"targets": [target], "problem_type": "multiclass", "classes": classes}
        competition["metric"] = data.metric
    for key, table in (("train", train), ("test", test), ("sample_submission", sample)):
        competition[key] = str(Paths(path.stem).raw / f"{key}.csv")
        write_table(Path(competition[key]), table)
    content = {
        "competition": competition,
        "folds": folds.model_dump(mode="json", exclude_unset=True) | data.folds,
        "stages": {cell.name: cell.block for cell in cells},
    }
    write_atomically(path, dump_yaml(content))


def trained_plan(study: Study, path: Path, options: Sequence[str]) -> JobPlan:
    """Train the folds of the study with `./run.sh train`; return the plan of the jobs."""
    choices = [["--fold", str(fold)] for fold in study.folds or ()] or [[]]
    for choice in choices:
        call = [sys.executable, "-m", "pipeline", "train", str(path), *options, *choice]
        status = subprocess.run(call, check=False).returncode
        if status not in (0, 3):  # 3: a job failed; the others are measured all the same
            sys.exit(status)
    config = load_config(str(path))
    return make_plan(config.competition, dict(config.stages))


def measured_jobs(plan: JobPlan, study: Study, data: str) -> list[Job]:
    """Return the jobs of all cells on a data set, with the folds of the study; they may be unfinished."""
    folds = study.folds or range(plan.n_folds)
    cells = cells_of(study, data)
    return [job for cell in cells for job in plan.jobs_of_stage(cell.name) if job.fold in folds]


def job_table(plans: dict[str, JobPlan], study: Study) -> pd.DataFrame:
    """Return a row per finished job: data, metric, stage, variant, seed, fold, score, seconds, measures.

    Args:
        plans: data set -> jobs of its competition.
    """
    rows = []
    for data, plan in plans.items():
        cells = {cell.name: cell for cell in cells_of(study, data)}
        for job in measured_jobs(plan, study, data):
            if job.finished:
                cell = cells[job.stage]
                row: dict[str, Any] = {"data": data, "metric": plan.competition.scorer.name}
                row |= {"stage": cell.stage, "variant": cell.variant, "seed": job.seed, "fold": job.fold}
                rows.append(row | measure_job(job, plan, study, data))
    columns = ["data", "metric", "stage", "variant", "seed", "fold", "score", "seconds"]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)


def measure_job(job: Job, plan: JobPlan, study: Study, data: str) -> dict[str, float]:
    """Return score, seconds and extra metrics of the held-out fold, and what the job wrote to `measures.json`.

    A metric of labels scores the most probable class, without thresholds.
    """
    competition = plan.competition
    task = competition.task
    labelled, _ = plan.tables.read()
    held_out = labelled.take(np.asarray(labelled.folds == job.fold))
    y_pred = read_predictions(job.oof_file, held_out.ids, task.outputs)
    scored = task.as_scored(y_pred)
    raw_rows = raw_rows_for(competition.scorer, competition.train, competition.id, held_out.ids)
    numbers = held_out.y
    if study.data[data].bin_edges:
        raw = read_text_table(competition.train).set_index(competition.id)
        target = competition.targets[0].removesuffix(CLASS)
        numbers = raw.loc[held_out.ids, [target]].to_numpy(dtype=np.float64)
    measures = job.folder / "measures.json"
    return {
        "score": competition.scorer(held_out.y, scored, raw_rows),
        "seconds": verify_job(job)["seconds"],
        **extra_scores(study, task, held_out.y, y_pred, numbers),
        **(read_json(measures) if measures.exists() else {}),
    }


def extra_scores(study: Study, task: Task, y: Array, y_pred: Array, numbers: Array) -> dict[str, float]:
    """Return the scores of the metrics among `extra_metrics`; a regression metric scores the expected class.

    tempered_log_loss is the log loss at the best temperature for these rows, so that only errors that no
    temperature can correct are left (Guo et al., On calibration of modern neural networks, ICML 2017).

    Args:
        numbers: (n_rows, n_targets) labels before they were converted into classes.
    """
    scores = {}
    if "tempered_log_loss" in study.extra_metrics and task.problem_type == "multiclass":
        log_loss = METRICS["log_loss"]
        sums = logits(y_pred, "softmax")
        tempered = optimize.minimize_scalar(
            lambda power: log_loss(y, probabilities(sums * np.exp(power), "softmax")), bounds=(-3, 3)
        )
        scores["tempered_log_loss"] = float(tempered.fun)
    for name in study.extra_metrics:
        metric = METRICS.get(name)
        if metric and task.problem_type in metric.types:
            scores[name] = metric(y, task.default_labels(y_pred) if metric.kind == "labels" else y_pred)
        elif metric and task.problem_type == "multiclass" and "regression" in metric.types:
            scores[name] = metric(numbers, y_pred @ np.arange(len(task.classes))[:, None])
    return scores


def corrected_interval(differences: Array, test_over_train: float) -> tuple[float, float, float]:
    """Return the mean of paired differences (n_pairs,) and its 95 % interval, NaN for a single pair.

    Folds share training rows, so their differences are not independent, and the usual interval is too narrow.
    The variance of the mean is (1 / pairs + test rows / training rows) times the variance of the differences;
    more seeds do not shrink the second term. Source: Nadeau and Bengio, Inference for the Generalization
    Error, Machine Learning 52 (2003), equation 9; derived for random splits, and used here on folds times
    seeds.
    """
    n = len(differences)
    mean = float(np.mean(differences))
    if n < 2:
        return mean, math.nan, math.nan
    error = math.sqrt((1 / n + test_over_train) * float(np.var(differences, ddof=1)))
    half = float(stats.t.ppf(0.975, n - 1)) * error
    return mean, mean - half, mean + half


def gains(plans: dict[str, JobPlan], jobs_table: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Return a row per cell with a finished job: score, paired gain over the baseline with its interval (low
    to high), and the means of the measures.
    """
    rows = []
    for (data, stage), jobs in jobs_table.groupby(["data", "stage"], sort=False):
        plan = plans[str(data)]
        scores = jobs.pivot(index=["seed", "fold"], columns="variant", values="score")
        direction = 1 if plan.competition.scorer.greater_is_better else -1
        for variant, of_variant in jobs.groupby("variant", sort=False):
            score = scores[variant]
            row: dict[Any, Any] = {"data": data, "stage": stage, "variant": variant, "jobs": len(of_variant)}
            row |= {"score": score.mean(), "standard_error": score.sem()}
            row |= of_variant.reindex(columns=study.extra_metrics).mean().to_dict()
            if variant != BASELINE and BASELINE in scores:
                paired = (score - scores[BASELINE]).dropna().to_numpy() * direction
                if len(paired):
                    row["gain"], row["low"], row["high"] = corrected_interval(paired, 1 / (plan.n_folds - 1))
                    row["pairs"] = len(paired)
            rows.append(row)
    statistics = ["jobs", "score", "standard_error", "gain", "low", "high", "pairs"]
    columns = ["data", "stage", "variant", *statistics, *study.extra_metrics]
    return pd.DataFrame(rows).reindex(columns=columns)


def markdown(table: pd.DataFrame, study: Study) -> str:
    """Return the gains as Markdown, a table per data set and stage."""
    parts = [study.claim.strip()]
    for (data, stage), rows in table.groupby(["data", "stage"], sort=False):
        columns = rows.dropna(axis="columns", how="all").drop(columns=["data", "stage"])
        texts = columns.astype(object).map(
            lambda value: f"{value:.4g}" if isinstance(value, float) else str(value)
        )
        cells = texts.replace("nan", "").to_numpy().tolist()
        parts.append(f"## {data}, {stage}\n\n{format_table(texts.columns.tolist(), cells)}")
    return "\n\n".join([*parts, TABLE_NOTE])


def find_study(name: str) -> Path:
    """Return the YAML of a study, given its path or its name in studies/."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else STUDIES / f"{name}.yaml"
    if not path.is_file():
        names = ", ".join(file.stem for file in sorted(STUDIES.glob("*.yaml")))
        raise ConfigError(f"{name!r} must be a YAML file or one of the studies {names} (docs/evidence.md).")
    return path.resolve()


def main() -> int:
    """Parse the command line and run the command."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("./run.sh study", description=__doc__, formatter_class=layout)
    parser.allow_abbrev = False  # options of ./run.sh train are passed on
    parser.add_argument("study", help="name in studies/, or a YAML file")
    parser.add_argument("--quick", action="store_true", help="a small version, minutes on 2 cores")
    where = "folder that contains the tables that are not in this project"
    parser.add_argument("--data", type=Path, metavar="FOLDER", help=where)
    args, of_train = parser.parse_known_args()
    text, status = run_study(find_study(args.study), args.quick, args.data, of_train)
    print(text)
    return status


if __name__ == "__main__":
    cli.run(main)
