"""Results of a study: a tidy table of jobs, and paired gains with their intervals."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, stats

from competition.dataset import read_rows
from competition.metrics import METRICS
from competition.task import Task, build_metric, build_task, raw_rows_for
from core.files import read_json, read_text_table
from core.text import format_table
from core.types import Array
from models.jobs.job_files import read_predictions, verify_job
from models.jobs.plan import JobPlan
from studies.config import CLASS, Study, cells_of, value_label
from submissions.blend.logits import logits, probabilities
from submissions.blend.scoring import score_per_target

TABLE_NOTE = (
    "score: mean over seeds and held-out folds +- standard error. gain: over the baseline on the same seeds and "
    "folds, above 0 is better, with its 95 % interval (corrected resampled t, Nadeau and Bengio 2003). If the "
    "interval contains 0, the cell is not significantly different from the baseline."
)


def tidy(plans: dict[str, JobPlan], study: Study) -> pd.DataFrame:
    """Return a row per finished job: data, metric, stage, the axes, seed, fold, score, seconds, measures.

    The score is the score on the held-out fold. An axis without effect on a stage is empty. With several targets
    and a metric per target there are columns `score_<target>`. A metric of labels scores the most probable
    class, without thresholds.

    Args:
        plans: data -> jobs of its competition.
    """
    rows = []
    for data, plan in plans.items():
        competition, paths = plan.competition, plan.paths
        labelled, targets = read_rows(paths.train, competition, labelled=True), competition.targets
        task, metric, numbers = build_task(competition), build_metric(competition), labelled.y
        folds = labelled.folds
        if study.data[data].bin_edges:
            raw = read_text_table(competition.train).set_index(competition.id)
            numbers = raw.loc[labelled.ids, [targets[0].removesuffix(CLASS)]].to_numpy(dtype=np.float64)
        jobs = [(cell, job) for cell in cells_of(study, data) for job in plan.jobs_of_stage(cell.name)]
        for cell, job in jobs:
            if not job.finished or job.fold not in (study.folds or range(plan.n_folds)):
                continue
            in_fold = np.asarray(folds == job.fold)
            held_out = labelled.take(in_fold)
            y_pred = read_predictions(job.oof_file, held_out.ids, task.outputs)
            scored = task.default_labels(y_pred) if task.scores_labels else y_pred
            row: dict[str, Any] = {"data": data, "metric": metric.name, "stage": cell.stage}
            row |= {axis: cell.values.get(axis, "") for axis in study.axes}
            row |= {"seed": job.seed, "fold": job.fold}
            raw_rows = raw_rows_for(metric, competition.train, competition.id, held_out.ids)
            row |= {"score": metric(held_out.y, scored, raw_rows)}
            row |= {"seconds": verify_job(job)["seconds"]}
            if len(targets) > 1:
                of_targets = score_per_target(metric, held_out.y, scored)
                row |= {f"score_{name}": score for name, score in zip(targets, of_targets, strict=False)}
            row |= _other_metrics(study, task, held_out.y, y_pred, numbers[in_fold])
            rows.append(row | _measures(job.folder))
    return pd.DataFrame(rows)


def _other_metrics(study: Study, task: Task, y: Array, y_pred: Array, numbers: Array) -> dict[str, float]:
    """Return the scores of the metrics among the measures; a regression metric scores the expected class.

    tempered_log_loss is the log loss at the best temperature for these rows, so that only errors that no
    temperature can correct are left (Guo et al., On calibration of modern neural networks, ICML 2017).
    """
    values = {}
    if "tempered_log_loss" in study.extra_metrics and task.problem_type == "multiclass":
        log_loss, sums = METRICS["log_loss"], logits(y_pred, "softmax")
        tempered = optimize.minimize_scalar(
            lambda power: log_loss(y, probabilities(sums * np.exp(power), "softmax")), bounds=(-3, 3)
        )
        values["tempered_log_loss"] = float(tempered.fun)
    for name in study.extra_metrics:
        if name not in METRICS:
            continue
        metric = METRICS[name]
        if task.problem_type in metric.types:
            values[name] = metric(y, task.default_labels(y_pred) if metric.kind == "labels" else y_pred)
        elif task.problem_type == "multiclass" and "regression" in metric.types:
            values[name] = metric(numbers, y_pred @ np.arange(len(task.classes))[:, None])
    return values


def _measures(folder: Path) -> dict[str, float]:
    """Return the measurements of a job (`measures.json`); empty without the file."""
    path = folder / "measures.json"
    return dict(read_json(path)) if path.exists() else {}


def corrected_interval(differences: Array, test_over_train: float) -> tuple[float, float, float]:
    """Return the mean of paired differences (n_pairs,) and its 95 % interval, NaN for a single pair.

    Folds share training rows, so their differences are not independent, and the usual interval is far too
    narrow. The variance of the mean is (1 / pairs + test rows / training rows) times the variance of the
    differences; the second term, 1 / (folds - 1), does not shrink with more seeds. Source: Nadeau and Bengio,
    Inference for the Generalization Error, Machine Learning 52 (2003), equation 9; derived for random splits,
    and used here on folds times seeds.
    """
    n, mean = len(differences), float(np.mean(differences))
    if n < 2:
        return mean, math.nan, math.nan
    error = math.sqrt((1 / n + test_over_train) * float(np.var(differences, ddof=1)))
    half = float(stats.t.ppf(0.975, n - 1)) * error
    return mean, mean - half, mean + half


def gains(plans: dict[str, JobPlan], jobs_table: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Return a row per cell with a finished job: score, paired gain over the baseline, measures.

    The columns are data, stage, the axes, jobs, score, standard_error, gain, low and high (NaN for the
    baseline), pairs, and the means of the measures.
    """
    baseline = {axis: value_label(value) for axis, value in study.baseline.items()}
    rows, baselines = [], dict[Any, pd.Series]()
    for (data, stage, *values), jobs in jobs_table.groupby(["data", "stage", *study.axes], sort=False):
        place = {axis: value for axis, value in zip(study.axes, values, strict=True) if value}
        scores, plan = jobs.set_index(["seed", "fold"])["score"], plans[str(data)]
        row = {"data": data, "stage": stage, **place, "jobs": len(jobs), "score": scores.mean()}
        row |= {"standard_error": scores.sem(), **jobs.reindex(columns=study.extra_metrics).mean()}
        if place.items() <= baseline.items():  # comes first in its stage
            baselines[data, stage] = scores
        elif (data, stage) in baselines:
            direction = 1 if build_metric(plan.competition).greater_is_better else -1
            paired = (scores - baselines[data, stage]).dropna().to_numpy() * direction
            if len(paired):
                row["gain"], row["low"], row["high"] = corrected_interval(paired, 1 / (plan.n_folds - 1))
                row["pairs"] = len(paired)
        rows.append(row)
    columns = [
        "data",
        "stage",
        *study.axes,
        "jobs",
        "score",
        "standard_error",
        "gain",
        "low",
        "high",
        "pairs",
    ]
    return pd.DataFrame(rows).reindex(columns=[*columns, *study.extra_metrics])


def markdown(table: pd.DataFrame, study: Study) -> str:
    """Return the gains as Markdown, a table per data set and stage."""
    parts = [study.claim.strip()]
    for (data, stage), rows in table.groupby(["data", "stage"], sort=False):
        table_cells = rows.dropna(axis="columns", how="all").drop(columns=["data", "stage"]).astype(object)
        cells = table_cells.map(
            lambda value: f"{value:.4g}" if isinstance(value, float) else str(value)
        ).replace("nan", "")
        parts.append(
            f"## {data}, {stage}\n\n{format_table(cells.columns.tolist(), cells.to_numpy().tolist())}"
        )
    return "\n\n".join([*parts, TABLE_NOTE])
