"""Labels and weights of the rows of `competition.extra_train` in each fold, for sources that are not taken as they are.

    extra_train/labels.parquet   fold, id, a column per target, and __weight
    extra_train/oof.parquet      out-of-fold predictions of the model of the fold without and with each source
    extra_train/left_out.csv     labels that folds have left out because of max_residual
    extra_train/report.json      what was found for each source and fold

A fold calibrates a source on the inputs that it shares with the training rows of the fold, weights it by the
differences that remain, and leaves out labels that contradict the competition's labels or the model of the fold.
That model is the stage `lightgbm` with few trees. Labels of held-out rows are not read: a fold has its
own calibration, weight and model.
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import loky
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from competition.cli import require_no_training
from competition.config import CompetitionConfig
from competition.dataset import EXTRA, INPUT_KEY, WEIGHT, Dataset
from competition.errors import DataError
from competition.extra_config import ExtraTrain
from competition.extra_train import median_labels
from competition.files import digest, read_json, read_table, sha256_of, table_digest, write_json, write_table
from competition.paths import Paths
from competition.task import build_task
from competition.types import Array, Integers
from folds.fold_files import time_ordered
from models.feature_config import LightgbmConfig
from models.jobs.calibration import Calibration, can_calibrate, fit_calibration, robust_std
from models.jobs.job_rows import context_of, read_tables, training_rows, with_labels
from models.jobs.plan import COMPETITION_SETTINGS, REFIT_FOLD, JobPlan, made_by
from models.registry import build_stage
from models.stage import Context

FOLD_MODEL = LightgbmConfig(kind="lightgbm", learning_rate=0.1, max_trees=300, patience=30)
"""Model of a fold: its default features, and fewer trees than the default, since it is fitted several times a fold."""
MANY_ROWS = 2000
"""Number of rows from which trees are grown by several threads, which only cost time for fewer."""
ROUNDING = 1e-9
"""Differences of labels up to this share of the largest label of the competition are due to rounding."""
MIN_WEIGHT = 0.05
"""Smallest weight of `weight: auto`."""
MIN_LABELS = 2
"""Fewest labels of each target for a model, and for its errors."""
HELD_BACK = 5
"""One of this number of groups is held back for the error of a model, if the training rows have only one fold."""


@dataclass(frozen=True)
class Source:
    """Rows of one extra table that one fold may train on, and what was found for them.

    Attributes:
        y: (n_rows, n_targets) calibrated labels, NaN where one is missing or left out.
        weights: (n_rows,) in training.
        is_left_out: (n_rows, n_targets) whether a label is left out because of `max_residual`.
        targets: what was found for each target, for report.json.
    """

    y: Array
    weights: Array
    is_left_out: NDArray[np.bool_]
    targets: list[dict[str, Any]]


def make_extra_labels(competition: CompetitionConfig, paths: Paths) -> str:
    """Write the labels of extra rows for each fold, unless they are up to date; return lines about them.

    Nothing is written, and "" is returned, if all sources are taken as they are.
    """
    sources = competition.extra_train
    if not competition.judges_extra_rows:
        return ""
    made_from = digest(
        {
            "sources": [source.model_dump(mode="json", exclude={"file"}) for source in sources],
            "train": table_digest(paths.train),
            "folds": sha256_of(paths.folds),
            "groups": sha256_of(paths.groups),
            "columns": competition.model_dump(mode="json", include=COMPETITION_SETTINGS),
            "seed": competition.seed,
            "absolute_errors": build_task(competition).minimizes_absolute_error,
            "code": [
                made_by(FOLD_MODEL),
                *(sha256_of(file) for file in (Path(__file__), Path(__file__).with_name("calibration.py"))),
            ],
        }
    )
    report = paths.extra_report
    files = [report, paths.extra_labels, paths.extra_oof, paths.extra_left_out]
    if not all(file.exists() for file in files) or read_json(report, "made_from")["made_from"] != made_from:
        require_no_training(paths)  # jobs that train read these files
        report.unlink(missing_ok=True)  # written last
        labels, oof, left_out, summaries = _all_folds(competition, paths)
        write_table(paths.extra_labels, labels)
        write_table(paths.extra_oof, oof)
        write_table(paths.extra_left_out, left_out)
        write_json(report, {"made_from": made_from, "sources": summaries})
    summaries = read_json(report, "sources")["sources"]
    lines = list(_describe(competition, summaries))
    if any(target["left_out"] for summary in summaries for target in summary["targets"]):
        lines.append(f"labels that were left out: {paths.extra_left_out}")
    return "\n".join(lines)


def _describe(competition: CompetitionConfig, summaries: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each source and target."""
    for i, settings in enumerate(competition.extra_train, start=1):
        of_source = [summary for summary in summaries if summary["source"] == i]
        for t, name in enumerate(competition.targets):
            details = [summary["targets"][t] for summary in of_source]
            means = pd.DataFrame(details).mean()
            line = f"{settings.file.name}, {name}: {means['labels']:.0f} labels a fold, "
            line += f"{means['left_out']:.0f} left out"
            if "after" in means:
                line += (
                    f"; {means['shared']:.0f} inputs shared with the training rows, median difference "
                    f"{means['after']:.3g}; weight {means['weight']:.2g}"
                )
            n_unused = sum("after" not in detail for detail in details)
            if settings.needs_shared_inputs and n_unused:
                line += f"; not used in {n_unused} of {len(details)} folds, where shared labels are too few or constant"
            yield line


def _all_folds(
    competition: CompetitionConfig, paths: Paths
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, list[dict[str, Any]]]:
    """Return the labels of all folds, out-of-fold predictions without and with each source, the labels that are left
    out, and summaries.
    """
    no_jobs = JobPlan([], {}, 0, "", {}, competition, paths)  # names the tables and the columns
    rows, _, folds = read_tables(no_jobs)
    source_of_row = read_table(paths.train)[EXTRA].to_numpy(dtype=np.int64)
    threads = loky.cpu_count() if len(rows) >= MANY_ROWS else 1
    context = replace(context_of(no_jobs, competition.seed, rows), threads=threads)
    in_time_order = time_ordered(paths.folds_report)
    all_folds = [*range(int(folds.max()) + 1), REFIT_FOLD]
    label_tables = []
    oof_tables = []
    left_out = []
    summaries = []
    for fold in tqdm(all_folds, "folds of extra_train", disable=not sys.stderr.isatty(), leave=False):
        trains = training_rows(rows, folds, fold, in_time_order)
        is_main_row = trains & (source_of_row == 0)
        main = rows.take(is_main_row)
        model = FoldModel(context, main)
        error = np.full(rows.y.shape[1], np.nan)
        if any(source.weight == "auto" for source in competition.extra_train):
            error = held_back_error(context, main, folds[is_main_row])
        is_held_out = folds == fold
        oof = {"without": model.predict(rows.take(is_held_out))} if fold != REFIT_FOLD else {}
        for i, settings in enumerate(competition.extra_train, start=1):
            positions = np.flatnonzero(trains & (source_of_row == i))
            candidates = rows.take(positions)
            source = judge_source(settings, candidates, main, model.predict(candidates), error)
            if settings.is_judged:
                label_tables.append(_label_table(source, candidates, competition, fold))
            left_out.append(_left_out_labels(source, candidates, competition, i))
            summaries.append({"source": i, "fold": fold, "targets": source.targets})
            if oof:
                is_used = is_main_row.copy()
                is_used[positions] = np.isfinite(source.y).any(axis=1)
                labelled = with_labels(rows, positions, source.y, source.weights)
                with_source = FoldModel(context, labelled.take(is_used))
                oof[f"with {i}"] = with_source.predict(rows.take(is_held_out))
        oof_tables += [
            pd.DataFrame(y_pred, columns=competition.targets).assign(
                **{"id": rows.take(is_held_out).ids, "__model": name}
            )
            for name, y_pred in oof.items()
        ]
    tables = [pd.concat(parts, ignore_index=True) for parts in (label_tables, oof_tables, left_out)]
    return tables[0], tables[1], _count_folds(tables[2]), summaries


def _label_table(
    source: Source, candidates: Dataset, competition: CompetitionConfig, fold: int
) -> pd.DataFrame:
    """Return the labels of a fold, in single precision: rounding on another machine then changes no key of a job."""
    labels = pd.DataFrame(source.y.astype(np.float32), columns=competition.targets)
    labels.insert(0, "fold", fold)
    labels.insert(1, "id", candidates.ids)
    return labels.assign(**{WEIGHT: source.weights.astype(np.float32)})


def _left_out_labels(
    source: Source, candidates: Dataset, competition: CompetitionConfig, number: int
) -> pd.DataFrame:
    """Return a row for each label that a fold leaves out, with its row in the file."""
    row, target = np.nonzero(source.is_left_out)
    found = {
        "source": number,
        "table": competition.extra_train[number - 1].file.name,
        "row": np.array([int(candidates.ids[i].rpartition("_")[2]) for i in row], dtype=np.int64),
        "target": np.array(competition.targets)[target],
        "label": candidates.y[row, target],
    }
    inputs = candidates.inputs[competition.inputs].drop(columns=list(found), errors="ignore").iloc[row]
    return pd.concat([pd.DataFrame(found), inputs.reset_index(drop=True)], axis=1)


def _count_folds(labels: pd.DataFrame) -> pd.DataFrame:
    """Return each label once, with the number of folds that leave it out, including that of all training rows."""
    key = ["source", "row", "target"]
    n_folds = labels.groupby(key)["label"].transform("size")
    counted = labels.assign(n_folds=n_folds).drop_duplicates(key)
    return counted.sort_values(["n_folds", *key], ascending=[False, True, True, True])


class FoldModel:
    """The stage `FOLD_MODEL`, fitted on some rows."""

    def __init__(self, context: Context, train: Dataset) -> None:
        self._stage = build_stage(FOLD_MODEL, context)
        self._n_targets = len(context.task.targets)
        self._folder = tempfile.TemporaryDirectory()
        try:
            self._stage.fit(train, None, Path(self._folder.name))
        except DataError as error:
            raise DataError(
                f"the model that judges the tables of extra_train cannot be fitted: {error} Or judge none of them: "
                "calibrate: none, a number as weight, max_residual: null."
            ) from None

    def predict(self, rows: Dataset) -> Array:
        """Return predictions (n_rows, n_targets)."""
        if not len(rows):
            return np.empty((0, self._n_targets))
        return self._stage.predict(rows.without_labels(), Path(self._folder.name))


def held_back_error(context: Context, main: Dataset, fold_ids: Integers) -> Array:
    """Return the robust standard deviation of the errors of a model for each target, (n_targets,).

    The model is fitted without the last fold of the training rows that leaves labels of every target on both sides,
    and predicts it. Without such a fold, the standard deviation is that of the labels about their median.

    Args:
        main: training rows of a fold, without extra rows.
        fold_ids: (n_rows,) their folds.
    """
    parts = fold_ids
    if len(np.unique(parts)) == 1:
        groups = np.arange(len(main)) if main.groups is None else main.groups
        parts = np.unique(groups, return_inverse=True)[1] % HELD_BACK
    labels = pd.DataFrame(main.y)
    n_labels = labels.groupby(parts).count()
    fewest = np.minimum(n_labels, labels.count() - n_labels).min(axis=1)
    usable = fewest.index[fewest >= MIN_LABELS]
    if usable.empty:
        return np.array([robust_std(column) for column in (labels - labels.median()).to_numpy().T])
    is_held_back = parts == usable[-1]
    model = FoldModel(context, main.take(~is_held_back))
    held_back = main.take(is_held_back)
    errors = held_back.y - model.predict(held_back)
    return np.array([robust_std(column) for column in errors.T])


def judge_source(
    settings: ExtraTrain, candidates: Dataset, main: Dataset, y_pred: Array, fold_error: Array
) -> Source:
    """Calibrate, weight and filter the rows of one source for one fold.

    Args:
        candidates: rows of the source that the fold may train on.
        main: training rows of the fold, without extra rows.
        y_pred: (n_candidates, n_targets) predictions for them by a model of `main`.
        fold_error: (n_targets,) standard deviation of the errors of such a model.
    """
    keys = candidates.inputs[INPUT_KEY].to_numpy()
    y = candidates.y.copy()
    weights = np.full(y.shape, 1.0 if settings.weight == "auto" else settings.weight)
    is_left_out = np.zeros(y.shape, dtype=bool)
    details = []
    for t in range(y.shape[1]):
        of_main = median_labels(main.inputs[INPUT_KEY], main.y[:, t])
        label_of_main = np.asarray(pd.Series(keys).map(of_main), dtype=np.float64)
        of_source = median_labels(keys, y[:, t])
        shared = pd.concat([of_source, of_main], axis=1, join="inner", keys=["source", "main"])
        detail: dict[str, Any] = {"labels": int(np.isfinite(y[:, t]).sum()), "shared": len(shared)}
        fitted = None
        if can_calibrate(settings.calibrate, shared["source"].to_numpy(), shared["main"].to_numpy()):
            fitted = fit_calibration(
                settings.calibrate, shared["source"].to_numpy(), shared["main"].to_numpy()
            )
            y[:, t] = fitted(y[:, t])
            detail |= {"before": fitted.error_before, "after": fitted.error_after}
        elif settings.needs_shared_inputs:
            y[:, t] = np.nan
            detail["labels"] = 0
        if settings.weight == "auto" and fitted is not None:
            weights[:, t] = automatic_weight(fold_error[t], fitted.std)
        detail["left_out"] = 0
        if fitted is not None or not settings.needs_shared_inputs:
            detail["weight"] = float(weights[:, t].mean()) if len(y) else 0.0
        if settings.max_residual is not None:
            is_wrong = wrong_labels(y[:, t], label_of_main, y_pred[:, t], fitted, settings.max_residual)
            y[is_wrong, t] = np.nan
            is_left_out[:, t] = is_wrong
            detail["left_out"] = int(is_wrong.sum())
        details.append(detail)
    is_labelled = np.isfinite(y)
    row_weights = (weights * is_labelled).sum(axis=1) / np.maximum(is_labelled.sum(axis=1), 1)
    # Rows with labels of auxiliary targets only have the weight of the source.
    of_others = 1.0 if settings.weight == "auto" else settings.weight
    return Source(y, np.where(is_labelled.any(axis=1), row_weights, of_others), is_left_out, details)


def automatic_weight(fold_error: float, source_std: float) -> float:
    """Return the weight of rows of a source: the squared error of a model on the competition's labels, divided by
    what it is on labels with the differences of the source.

    This is the weight of generalised least squares for independent errors (Aitken 1935).
    """
    variance = fold_error**2
    total = variance + source_std**2
    return float(np.clip(variance / total, MIN_WEIGHT, 1.0)) if total > 0 else 1.0


def wrong_labels(
    y: Array, label_of_main: Array, y_pred: Array, calibration: Calibration | None, max_residual: float
) -> NDArray[np.bool_]:
    """Return which labels of a source are left out, (n_rows,).

    A label of an input that the competition's training rows have is compared with theirs, in standard deviations
    of the shared labels. Any other is compared with the prediction, in robust standard deviations of these
    differences.

    Args:
        y: (n_rows,) calibrated labels, NaN if missing.
        label_of_main: (n_rows,) label of the same input in the training rows of the fold, NaN without one.
        y_pred: (n_rows,) predictions of a model of the fold.
        calibration: of the shared labels; None if there are too few.
    """
    has_main_label = np.isfinite(label_of_main) & (calibration is not None)
    errors = np.where(has_main_label, y - label_of_main, y - y_pred)
    std = np.full(len(y), robust_std(errors[~has_main_label]))
    if calibration is not None:
        std[has_main_label] = calibration.std
    rounding = ROUNDING * np.abs(label_of_main[np.isfinite(label_of_main)]).max(initial=0.0)
    return np.asarray(np.abs(errors) > max_residual * std + rounding)
