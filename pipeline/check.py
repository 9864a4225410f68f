"""Checks of settings, tables, folds, weights and user-defined functions before anything is trained."""

import json
import math
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition.config import CompetitionConfig
from competition.dataset import FOLD, GROUP, LOWER, UPPER, without_extra_rows
from competition.labels import describe_code, describe_range
from competition.metrics import Metric, raw_rows_for, take_rows
from competition.prepare import Prepared, describe, prepare
from competition.task import Task
from core.errors import ConfigError, DataError, Mistake
from core.files import as_json, read_json
from core.text import format_duration, format_number
from core.types import Array
from core.user_code import MAX_SECONDS, load_user_code, short_ref, time_limit, user_code, user_code_errors
from folds.leaks import describe_leaks
from folds.make import make_folds
from folds.soundness import missing_class_warnings
from folds.training_rows import trains_fold
from models.context import CheckTables
from models.hardware import why_no_gpu
from models.inputs.weights import describe_labels, digest_of_weights
from models.jobs.plan import code_files, describe_retraining, make_plan, tables_of
from models.stage import Stage
from models.targets import labelled_rows, require_log1p
from submissions.blend.candidates import fit_candidate, mean
from submissions.blend.data import BlendData, from_json, to_json
from submissions.blend.selection import Fitted, require_probabilities
from submissions.config import Config

N_TRIED = 100
"""Made-up rows on which functions of the user's are tried."""
SECONDS_OF_METRIC = 5.0
"""Seconds after which the metric is tried on no more rows."""
MIN_ROWS_OF_CLASS = 15
"""Rows of a class below which one of a thousand draws with repetition may have none: exp(-15) is 3e-7."""
MAX_SECONDS_WITHOUT_GPU = 3600.0
"""Budget up to which a GPU that torch does not see is only reported."""
MUST_RETURN = "return a dataclass of numbers, texts and arrays, which is written as JSON and read again"


def check_all(config: Config, here: bool = True, reuse: bool | None = None) -> str:
    """Check a configuration with tables and folds that are made for this check only; see `check`.

    Args:
        reuse: whether finished jobs of other code are kept. The last lines are then about those that would be trained
            again; None leaves them out.
    """
    competition = config.competition
    tables = make_folds(competition, config.folds, prepare(competition))
    lines = [check(config, tables, here)]
    if reuse is not None and _are_written(competition.paths.prepare_report, tables.report):
        lines += describe_retraining(make_plan(competition, dict(config.stages), reuse))
    return "\n".join(lines)


def check(config: Config, prepared: Prepared, here: bool = True) -> str:
    """Check a configuration with its tables, folds and weights; return lines about them.

    Errors of the tables are reported first; errors of all stages are reported together.

    Args:
        here: whether this machine trains, so that it must have the memory of the stages and support their precision.
    """
    competition = config.competition
    train_rows = without_extra_rows(prepared.train)
    folds = prepared.train[FOLD].to_numpy(dtype=np.int64)
    tables = CheckTables(
        tables_of(competition, competition.paths, "", config.folds.is_ordered_in_time).context(
            inputs=prepared.train.columns
        ),
        competition.task,
        train=prepared.train,
        test=prepared.test,
        folds=folds[: len(train_rows)],  # rows of extra_train are the last
        groups=train_rows[GROUP].to_numpy(dtype=np.int64),
        in_time_order=config.folds.is_ordered_in_time,
        has_weights=competition.weight is not None,
        has_extra_weights=any(extra.weight != 1 for extra in competition.extra_train),
        here=here,
    )
    with time_limit(MAX_SECONDS):
        metric_lines = _check_metric(tables, competition)
        _try_user_blending(config, tables.y)
    labels = prepared.train[competition.targets]
    n_folds = int(folds.max()) + 1
    if any(stage.is_trained for stage in config.stages.values()):
        for fold in range(n_folds):
            is_train_row = trains_fold(folds, fold, tables.in_time_order)
            labelled_rows(labels[is_train_row].to_numpy(), competition.targets)
    warnings = [
        *missing_class_warnings(labels, competition.classes, folds, tables.in_time_order),
        *prepared.report["folds"]["warnings"],
        *prepared.report["folds"]["unit_warnings"],
        *describe_leaks(prepared, competition),
    ]
    lines = [describe(prepared.report), *warnings, *metric_lines]
    lines += _label_lines(config, labels)
    lines += _check_stages(config, tables, n_folds)
    return "\n".join(lines)


def _label_lines(config: Config, labels: pd.DataFrame) -> list[str]:
    """Return lines about numbers whose spread or zeros need attention, and about how stages transform them."""
    competition = config.competition
    lines = []
    transforms = {stage.transform_for(competition.task) for stage in config.stages.values()}
    describe_labels_of = describe_range if transforms == {"none"} else describe_code
    if not competition.classes:
        sentences = [describe_labels_of(name, labels[name]) for name in competition.targets]
        lines += [f"WARNING: {sentence}" for sentence in sentences if sentence]
    transform = competition.task.target_transform
    if transform != "none":
        lines.append(
            f"target_transform: {transform} for {competition.metric}, unless a stage sets another one"
        )
    return [*lines, *_zero_warnings(competition, labels)]


def _check_stages(config: Config, tables: CheckTables, n_folds: int) -> list[str]:
    """Return a line about each stage; a ConfigError with the errors of all of them."""
    lines = []
    errors = []
    for name, stage in config.stages.items():
        try:
            description = _check_stage(stage, tables)
        except (ConfigError, DataError) as error:  # one line per error
            setting = f"stages.{name}"
            errors += [Mistake(f"{setting}: {line}", setting) for line in str(error).splitlines()]
            continue
        n_jobs = len(stage.seeds) * (n_folds + (stage.final_fit != "folds"))
        lines.append(f"stage {name}: {description}; {n_jobs} jobs")
    if errors:
        raise ConfigError("\n".join(error.message for error in errors), errors)
    return lines


def _zero_warnings(competition: CompetitionConfig, labels: pd.DataFrame) -> list[str]:
    """Return a warning per target with labels that are 0, if the metric divides by them.

    Args:
        labels: columns of the targets, NaN for a missing label.
    """
    if competition.scorer.name != "mape":
        return []
    counts = {name: int((labels[name] == 0).sum()) for name in competition.targets}
    return [
        f"WARNING: mape divides by the labels, and {count:,} of {labels[name].count():,} labels of {name} "
        "are 0, where a prediction other than 0 has an error of 1e15 times itself; "
        "see whether the competition scores them so"
        for name, count in counts.items()
        if count
    ]


def require_visible_gpu(config: Config, budget: float = math.inf) -> None:
    """Raise a ConfigError if stages rely on a GPU that torch does not see, on a machine with its driver.

    A stage relies on it if its `gpu` is set, or if the budget (seconds) is so long that a night on the cores
    would be lost.
    """
    is_long = budget > MAX_SECONDS_WITHOUT_GPU
    relying = [
        name
        for name, stage in config.stages.items()
        if stage.gpu and (is_long or "gpu" in stage.model_fields_set)
    ]
    reason = why_no_gpu() if relying else ""
    if reason:
        options = " ".join(f"--set stages.{name}.gpu=false" for name in relying)
        raise ConfigError(
            f"this machine has an NVIDIA driver, but {reason}. Install a torch build for this driver "
            f"(drivers before 580 need the one for CUDA 12.6; docs/scale.md says how), or train on the CPU: {options}"
        )


def _check_stage(stage: Stage, tables: CheckTables) -> str:
    """Check one stage; return its description: its kind and weights, and warnings."""
    if tables.here:
        stage.check_machine()
    stage.require_inputs(tables.context.inputs)
    tables = replace(tables, task=stage.task_for(tables.task))
    for setting, code_ref in user_code(stage.model_dump(), stage.kind):
        load_user_code(setting, code_ref, code_ref.rpartition(":")[2])
    if stage.transform_for(tables.task) == "log1p":
        columns = [bound + name for bound in ("", LOWER, UPPER) for name in tables.task.targets]
        require_log1p(tables.train.filter(items=columns).to_numpy())  # also of extra rows
    warnings = list(dict.fromkeys(stage.check(tables)))  # several features of one encoder warn alike
    code_files(stage, tables.context)
    description = stage.kind
    for weights in stage.weight_names():
        digest_of_weights(weights)
        description += f" from {weights}"
        labels = describe_labels(weights)
        description += f" ({labels})" if labels else ""
    return "; ".join([description, *warnings])


def _try_user_blending(config: Config, labels: Array) -> None:
    """Fit, save and apply the user's candidates and post-processing on a few made-up rows."""
    functions = list(user_code(config.blends))
    postprocess = config.submissions.postprocess
    if not functions and postprocess is None:
        return
    metric = config.competition.scorer
    task = config.competition.task
    rng = np.random.default_rng(0)
    y = np.column_stack([rng.choice(column[np.isfinite(column)], N_TRIED) for column in labels.T])
    y[0, np.isnan(labels).any(axis=0)] = np.nan
    preds = np.stack([_predictions_near(y, task, rng) for _ in config.stages], axis=1)
    rows = np.arange(N_TRIED)
    data = BlendData(metric=metric, task=task, y=y, folds=rows % 5, groups=rows, preds=preds)
    for _, code_ref in functions:
        fitted = fit_candidate(data, code_ref, data.all_folds)
        with user_code_errors(code_ref, MUST_RETURN):
            from_json(json.loads(as_json(to_json(fitted))), code_ref).predict(preds)
    y_pred = Fitted(mean(data, data.all_folds), postprocess=postprocess).outputs(preds)
    try:
        require_probabilities(task, y_pred)
    except DataError as error:
        raise ConfigError(f"submissions.postprocess {short_ref(str(postprocess))}: {error}") from None


def _predictions_near(y: Array, task: Task, rng: np.random.Generator) -> Array:
    """Return predictions near labels: 80 % the label, 10 % the label of another row, 10 % the mean."""
    truth = task.one_hot(y)
    truth = np.where(np.isnan(truth), np.nanmean(truth, axis=0), truth)
    return 0.8 * truth + 0.1 * truth[rng.permutation(len(truth))] + 0.1 * truth.mean(axis=0)


def _check_metric(tables: CheckTables, competition: CompetitionConfig) -> list[str]:
    """Raise a ConfigError if the metric has no finite value for predictions near the labels.

    It is tried wherever a run uses it: on all rows, on the rows of each fold, and on bootstrap resamples, in
    which a rare class may be missing. A line is returned if it is too slow for all of them.
    """
    task = tables.task
    y = tables.y
    metric = competition.scorer
    ids = list(tables.train[competition.id][: len(y)])
    raw_rows = raw_rows_for(metric, competition.train, competition.id, ids)
    rng = np.random.default_rng(0)
    y_pred = _predictions_near(y, task, rng)
    scored = task.as_scored(y_pred)
    subsets = {"all rows that are scored": np.flatnonzero(tables.folds >= 0)}
    for fold in range(int(tables.folds.max()) + 1):
        subsets[f"the rows of fold {fold}"] = np.flatnonzero(tables.folds == fold)
    subsets["rows drawn with repetition"] = rng.integers(len(y), size=len(y))
    for (t, name), (c, label) in product(enumerate(task.targets), enumerate(task.classes)):
        if 0 < (y[:, t] == c).sum() < MIN_ROWS_OF_CLASS:
            subsets[f"rows drawn without {name}={label}"] = np.flatnonzero(y[:, t] != c)
    started = time.monotonic()
    for i, (subset, rows) in enumerate(subsets.items()):
        seconds = time.monotonic() - started
        if seconds > SECONDS_OF_METRIC:
            seconds_of_call = format_duration(seconds / i)
            return [
                f"{metric.name}: a call takes {seconds_of_call}, "
                f"so it was tried on {i} of {len(subsets)} sets of rows"
            ]
        score = metric(y[rows], scored[rows], take_rows(raw_rows, rows))
        labels = pd.DataFrame(y[rows], columns=task.targets)
        constant = list(labels.columns[labels.nunique() < 2])
        if np.isfinite(score) or (constant and i):  # R2 and correlations may be undefined in a fold
            continue
        advice = "Correct the function (NaN in y_true is a missing label)"
        if constant:
            advice = (
                f"In these rows {', '.join(constant)} has only one label; remove it from competition.targets"
            )
        raise ConfigError(
            f"the metric {metric.name} is {score} for predictions near the labels on {subset} ({len(rows)}), "
            f"and must be a finite number. {advice}, or choose another competition.metric."
        )
    return _describe_direction(metric, y, scored, raw_rows)


def _describe_direction(metric: Metric, y: Array, scored: Array, raw_rows: pd.DataFrame | None) -> list[str]:
    """Return a WARNING if a user's metric prefers predictions in another order of rows to those near the labels."""
    if metric.table_score is None:
        return []
    near = metric(y, scored, raw_rows)
    shuffled = metric(y, np.random.default_rng(0).permutation(scored), raw_rows)
    is_better = shuffled > near if metric.greater_is_better else shuffled < near
    if not is_better:
        return []
    return [
        f"WARNING: {metric.name} is {format_number(near)} for predictions near the labels and "
        f"{format_number(shuffled)} for the same in another order of rows, which greater_is_better: "
        f"{str(metric.greater_is_better).lower()} prefers; set the other direction"
    ]


def _are_written(file: Path, report: dict[str, Any]) -> bool:
    """Return whether the written tables have this report, whatever code made their folds."""
    try:
        written = read_json(file, "folds")
    except DataError:
        return False
    folds = {**report["folds"], "made_from": written["folds"].get("made_from")}
    return as_json(written) == as_json({**report, "folds": folds})
