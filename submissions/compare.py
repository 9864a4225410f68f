"""Comparison of the runs of a competition: different settings, and paired differences of scores."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from itertools import chain
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import DataError
from core.files import table_digest
from core.text import format_duration, format_number, format_table, format_with_error
from core.types import Array
from core.user_code import changed_files
from submissions.blend.scoring import Scorer, describe_resamples, widened
from submissions.columns import labels_of, scored_rows, training_labels
from submissions.config import Config
from submissions.manifest import CROSS_FITTED, EPOCHS, MANIFEST, OOF_TABLE, SO_FAR, Manifest, verify_files
from submissions.run import Run, name_of_latest, user_code_of

SCORES = ("best_stage_score", "in_sample_score", "cross_fitted_score")
GAIN = ("gain", "standard_error", "comparable", "changes", "remarks")
"""Keys of `records` that compare a run with another one."""
FEW_GROUPS = 30
"""Number of groups of rows below which standard errors are too small to judge a gain by."""
N_DIGITS = 7
"""Characters of a digest."""


def differences(older: dict[str, Any], newer: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yield a line per key with different values, `key: older value -> newer value`, with dotted keys."""
    for key in sorted({*older, *newer}):
        where = f"{path}{key}"
        if key not in older or key not in newer:
            yield f"{where}: {'added' if key in newer else 'removed'}"
        elif isinstance(older[key], dict) and isinstance(newer[key], dict):
            yield from differences(older[key], newer[key], f"{where}.")
        elif older[key] != newer[key]:
            yield f"{where}: {json.dumps(older[key])} -> {json.dumps(newer[key])}"


def records(runs: dict[str, Manifest], reference: str, config: Config) -> list[dict[str, Any]]:
    """Return a record per run, the latest first: scores, gain over `reference`, and different settings.

    Args:
        runs: name -> run.json, the oldest first.

    Returns:
        Keys: run, written, chosen, best_stage_score, in_sample_score, cross_fitted_score, gain and
        standard_error (None if it is unknown), comparable (whether they tell about the changes only, None for
        the reference), remarks with the reasons why not, changes (a line for each setting).
    """
    paths = config.competition.paths
    labels = training_labels(config.competition, paths)
    if config.folds.is_ordered_in_time:  # blocks in time are drawn, as for the interval
        labels = replace(labels, groups=labels.folds)
    labels = replace(labels, folds=np.zeros_like(labels.folds))  # the folds of the runs may differ
    scored = {name: labels.aligned(scored_rows(paths.run(name), labels.task)) for name in runs}
    n_relabelled = dict.fromkeys(runs, 0)
    train = table_digest(paths.train)
    for name, run in runs.items():
        if run.tables[paths.train.name] != train:
            is_compared = np.isfinite(scored[name]).all(axis=1)
            has_same_labels = _has_same_labels(labels, paths.run(name))
            n_relabelled[name] = int((is_compared & ~has_same_labels).sum())
            scored[name] = np.where(has_same_labels[:, None], scored[name], np.nan)
    result = []
    for name, run in reversed(runs.items()):
        written = datetime.fromtimestamp((paths.run(name) / MANIFEST).stat().st_mtime)
        record = {"run": name, "written": f"{written:%Y-%m-%d %H:%M}", **_scores(run, config)}
        record |= {"gain": None, "standard_error": None, "comparable": None, "remarks": [], "changes": []}
        if name != reference:
            record |= _gain_over(labels, scored, name, reference)
            reasons = _unlike(run, runs[reference], name)
            reasons += [
                f"{each} was made with other labels of {n_relabelled[each]} rows, which are not compared."
                for each in (name, reference)
                if n_relabelled[each]
            ]
            record["comparable"] = record["gain"] is not None and not reasons
            record["remarks"] += reasons
            older, newer = sorted([name, reference], key=list(runs).index)
            lines = _changes(runs[older], runs[newer])
            record["changes"] = [f"{older} -> {newer}:", *(f"- {line}" for line in lines)]
        result.append(record)
    return result


def _has_same_labels(labels: Scorer, folder: Path) -> NDArray[np.bool_]:
    """Return the mask (n_rows,) of the rows that a run was made with the present labels of."""
    of_run = labels_of(folder, labels.task).reindex(labels.ids).to_numpy()
    is_missing = np.isnan(of_run) & np.isnan(labels.y)
    has_same: NDArray[np.bool_] = ((of_run == labels.y) | is_missing).all(axis=1)
    return has_same


def may_score(run: Run) -> bool:
    """Return whether a run may be scored once more: its metric has not failed, and with a budget it is not slow."""
    submitted = run.choice.submitted
    is_late = run.budget is not None and describe_resamples(submitted.n_resamples)
    return submitted.score is not None and not is_late


def gain_over(previous: str, run: Run, config: Config) -> dict[str, Any] | None:
    """Return the comparison of a run with the previous one; None if that is none, or one of them cannot be scored.

    Keys: over, the name of the previous run, and GAIN.
    """
    name = run.folder.name
    if previous in (name, SO_FAR) or not may_score(run):
        return None
    try:
        before = verify_files(run.paths.run(previous), CROSS_FITTED, OOF_TABLE)
    except DataError:  # `compare` says why
        return None
    if before.choice.submitted.score is None:
        return None
    record = records({previous: before, name: run.manifest}, previous, config)[0]
    return {"over": previous, **{key: record[key] for key in GAIN}}


def describe_gain(compared: dict[str, Any] | None) -> list[str]:
    """Return a line with the gain of `gain_over` and what else may explain it, or with why there is none."""
    if compared is None:
        return []
    gain = format_with_error(compared["gain"], compared["standard_error"])
    first = f"Gain over the previous run, {compared['over']}: {gain}, paired; above 0 is better."
    if compared["gain"] is None:
        first = f"Gain over the previous run, {compared['over']}: not known."
    return [" ".join([first, *compared["remarks"]])]


def _unlike(run: Manifest, other: Manifest, name: str) -> list[str]:
    """Return sentences on what else than changed settings may explain the difference of two runs."""
    reasons = []
    if run.tables["folds.csv"] != other.tables["folds.csv"]:
        reasons.append(f"{name} has different folds, which may explain part of the difference.")
    stages = {each.stage for each in [*run.left_out, *other.left_out]}
    if run.budget or other.budget:  # which trains more seeds if there is time
        stages |= run.stages.keys() & other.stages.keys()
    unlike = sorted(stage for stage in stages if _trained(run, stage) != _trained(other, stage))
    if unlike:
        reasons.append(
            f"{name} and the run that it is compared with have other seeds or epochs of {', '.join(unlike)}, or one "
            "lacks them, which may explain the difference. Compare runs that left out nothing, or the same."
        )
    if run.level != other.level:
        reasons.append(
            f"{name} was blended at the level {run.level}, the run that it is compared with at {other.level} "
            "(submissions/levels.py), since one had less time, which may explain the difference."
        )
    return reasons


def _trained(run: Manifest, stage: str) -> tuple[list[int], list[str]]:
    """Return the finished seeds of a stage, [] without it, and what was shortened."""
    seeds = run.config["stages"][stage]["seeds"] if stage in run.stages else []
    return seeds, [each.error for each in run.left_out if (each.stage, each.reason) == (stage, EPOCHS)]


def _gain_over(labels: Scorer, scored: dict[str, Array], name: str, reference: str) -> dict[str, Any]:
    """Return the gain of a run over another on the rows of both and its standard error, and remarks."""
    on_both = labels.on_rows_of(scored[name], scored[reference])
    n_rows = on_both.has_fold.sum()
    if n_rows < 2:
        return {"remarks": [f"{name} has other targets, rows, labels or classes, and is not compared."]}
    pair = {each: scored[each] for each in (name, reference)}
    paired = on_both.compare(pair, reference).T[name]
    remarks = [f"{name}: {line}" for line in describe_resamples(paired["n_resamples"])]
    if n_rows < max(labels.on_rows_of(values).has_fold.sum() for values in pair.values()):
        remarks.append(f"{name} is compared on the {n_rows} rows that both runs predict.")
    if 2 <= on_both.n_groups < FEW_GROUPS:
        needed = widened(2, on_both.n_groups)
        remarks.append(
            f"{name}: the rows form only {on_both.n_groups} groups, so a gain below {needed:.1f} standard errors "
            "may be chance."
        )
    gains = {"gain": labels.gain(paired["difference"]), "standard_error": paired["standard_error"]}
    return {**gains, "remarks": remarks}


def _changes(older: Manifest, newer: Manifest) -> list[str]:
    """Return a line for each setting that has changed, and one for all tables and one for all jobs that have."""
    lines = list(differences(_settings(older), _settings(newer)))
    files = sorted({*older.tables, *newer.tables})
    tables = [file for file in files if older.tables.get(file) != newer.tables.get(file)]
    if tables:
        lines.append(f"tables differ: {', '.join(tables)}")
    stages = [name for name in older.stages if name in newer.stages]
    retrained = [name for name in stages if older.stages[name].key != newer.stages[name].key]
    if retrained:
        lines.append(f"jobs differ: {', '.join(retrained)}")
    return lines or ["nothing"]


def _settings(run: Manifest) -> dict[str, Any]:
    """Return what a run was made from, without its tables and jobs: the budget, settings and code."""
    return {
        **run.config,
        "stages": {name: run.config["stages"][name] for name in run.stages},
        "level": run.level,
        "budget": format_duration(run.budget) if run.budget else "none",
        "user_code": {file: digest[:N_DIGITS] for file, digest in run.user_code},
        "versions": run.versions,
    }


def _scores(run: Manifest, config: Config) -> dict[str, Any]:
    """Return the chosen candidate and three scores, None if the run was scored by another metric."""
    choice = run.choice
    metric = config.competition.metric
    file = Path(metric.rpartition(":")[0]).name  # of the user's function, or ""
    code = [entry for entry in user_code_of(config) if entry[0] == file]
    is_edited = any(entry not in run.user_code for entry in code) or changed_files(metric, run.opened)
    if Path(run.metric).name != Path(metric).name or is_edited:
        return {"chosen": f"{choice.chosen} by {run.metric}", **dict.fromkeys(SCORES)}
    best_stage = choice.stages[choice.best_stage]
    submitted = choice.submitted
    scores = (best_stage.score, submitted.in_sample_score, submitted.score)
    return {"chosen": choice.chosen, **dict(zip(SCORES, scores, strict=True))}


def read_runs(config: Config) -> tuple[dict[str, Manifest], list[str]]:
    """Return name -> run.json of all runs of a competition, the oldest first, and why others are left out."""
    paths = config.competition.paths
    runs = {}
    left_out = []
    skipped = {SO_FAR} - {name_of_latest(paths)}
    files = paths.latest_run.parent.glob(f"[!.]*/{MANIFEST}")
    manifests = [file for file in files if file.parent.name not in skipped]
    for manifest in sorted(manifests, key=lambda path: path.stat().st_mtime):
        name = manifest.parent.name
        try:
            runs[name] = verify_files(manifest.parent)
        except DataError as error:
            left_out.append(f"{name} is left out: {error}")
    return runs, left_out


def compare(config: Config) -> tuple[str, dict[str, Any]]:
    """Return a table of all runs and their differences from the latest run, and what `--json` prints."""
    runs, left_out = read_runs(config)
    paths = config.competition.paths
    reference = name_of_latest(paths)
    if reference not in runs:
        missing = f"{paths.root} has no finished run; run ./run.sh full {paths.on_command_line} first."
        raise DataError("\n".join([missing, *left_out]))
    compared = records(runs, reference, config)
    rows = []
    for record in compared:
        gains = [format_number(record[name]) for name in ("gain", "standard_error")]
        if record["run"] == reference:
            gains = ["reference", ""]
        scores = [format_number(record[name]) for name in SCORES]
        rows.append([record["run"], record["written"], record["chosen"], *scores, *gains])
    header = ["run", "written", "chosen", "best stage", "in_sample", "cross_fitted", "gain", "standard_error"]
    metric = config.competition.scorer
    legend = (
        "best stage: score of the best single stage. in_sample and cross_fitted: scores of the "
        f"chosen candidate. gain: of the run over {reference} on the same rows, above 0 is better. "
        "standard_error: by the choice of the rows, not by the seeds of training."
    )
    n = len(runs)
    tried = f"Runs tried: {n}."
    # Blom: the largest of n normal numbers. Standard errors are of differences, so larger by the root of 2.
    luck = NormalDist().inv_cdf((n - 0.375) / (n + 0.25)) / math.sqrt(2)
    if n > 2:
        best = f"the best of {n} equally good runs looks about {luck:.1f} standard errors better than it is"
        tried += f" By chance, {best}."
    remarks = chain.from_iterable(record["remarks"] for record in compared)
    parts = [f"# Runs of {paths.name}: {metric.name}, {metric.direction}\n\n{format_table(header, rows)}"]
    parts.append("\n".join([legend, tried, *remarks]))
    changes = ["\n".join(record["changes"]) for record in compared if record["changes"]]
    if changes:
        parts += ["## What changed, from the older run to the newer", *changes]
    return "\n".join(["\n\n".join(parts), *left_out]), {"runs": compared, "luck": luck}
