"""Runs of a competition against each other: settings that differ, and paired differences of cross-fitted scores."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from core.errors import DataError
from core.paths import Paths
from core.text import format_duration, format_number, format_table
from core.types import Array
from submissions.blend.scoring import Scorer
from submissions.columns import training_labels
from submissions.config import Config
from submissions.run import (
    CHOICE,
    MANIFEST,
    SO_FAR,
    name_of_latest,
    read_manifest,
    scored_rows,
    user_code_of,
    verify_files,
)

MAX_VALUE_LENGTH = 50
"""Characters of the value of a setting."""


def differences(older: dict[str, Any], newer: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yield a line per key with different values, `key: older value -> newer value`, with dotted keys."""
    for key in sorted({*older, *newer}):
        where = f"{path}{key}"
        if key not in older or key not in newer:
            yield f"{where}: {'added' if key in newer else 'removed'}"
        elif isinstance(older[key], dict) and isinstance(newer[key], dict):
            yield from differences(older[key], newer[key], f"{where}.")
        elif older[key] != newer[key]:
            before, after = (json.dumps(value)[:MAX_VALUE_LENGTH] for value in (older[key], newer[key]))
            yield f"{where}: {before} -> {after}"


def comparison(runs: dict[str, dict[str, Any]], reference: str, config: Config, paths: Paths) -> str:
    """Return scores, gains over `reference` and settings that differ, the latest run first.

    Args:
        runs: name -> run.json, the oldest first.
    """
    labels = training_labels(config.competition, paths)
    labels = replace(labels, folds=np.zeros_like(labels.folds))  # those of the runs may differ
    scored = {name: labels.aligned(scored_rows(paths.run(name), labels.task)) for name in runs}
    rows, remarks, changed = [], [], []
    for name, run in reversed(runs.items()):
        gains = ["reference", ""]
        if name != reference:
            gains, remark = _gain_over(labels, scored, name, reference)
            remarks += remark
            if run["tables"]["folds.csv"] != runs[reference]["tables"]["folds.csv"]:
                remarks.append(f"{name} has other folds, from which part of the difference may come.")
            older, newer = sorted([name, reference], key=list(runs).index)
            lines = list(differences(_settings(runs[older]), _settings(runs[newer]))) or ["nothing"]
            changed.append("\n".join([f"{older} -> {newer}:", *(f"- {line}" for line in lines)]))
        written = datetime.fromtimestamp((paths.run(name) / MANIFEST).stat().st_mtime)
        rows.append([name, f"{written:%Y-%m-%d %H:%M}", *_scores(run, config), *gains])
    header = ["run", "written", "chosen", "best stage", "in_sample", "cross_fitted", "gain", "standard_error"]
    legend = (
        "best stage: its score. in_sample and cross_fitted: scores of the "
        f"chosen candidate. gain: its gain over {reference} on the same rows, above 0 is better."
    )
    n = len(runs)
    tried = f"Runs that were tried: {n}."
    if n > 2:
        luck = NormalDist().inv_cdf((n - 0.375) / (n + 0.25))  # Blom: the largest of n normal numbers
        tried += f" The best of {n} equal runs looks about {luck:.1f} standard errors better than it is."
    parts = [format_table(header, rows), "\n".join([legend, tried, *remarks])]
    if changed:
        parts += ["## What changed, from the older run to the newer", *changed]
    return "\n\n".join(parts)


def _gain_over(
    labels: Scorer, scored: dict[str, Array], name: str, reference: str
) -> tuple[list[str], list[str]]:
    """Return the gain of a run over another on the rows of both and its standard error, and remarks."""
    on_both = labels.on_rows_of(scored[name], scored[reference])
    n_rows = on_both.has_fold.sum()
    if n_rows < 2:
        return ["-", "-"], [f"{name} has other targets, rows or classes, and is not compared."]
    pair = {each: scored[each] for each in (name, reference)}
    paired = on_both.compare(pair, reference).T[name]
    gains = [format_number(labels.gain(paired["difference"])), format_number(paired["standard_error"])]
    if n_rows == max(labels.on_rows_of(values).has_fold.sum() for values in pair.values()):
        return gains, []
    return gains, [f"{name} is compared on the {n_rows} rows that both runs predict."]


def _settings(run: dict[str, Any]) -> dict[str, Any]:
    """Return what a run was made from: the budget, settings with the keys of jobs, tables and code."""
    settings = dict(run["config"])
    settings["stages"] = {
        stage["name"]: settings["stages"][stage["name"]] | {"jobs": stage["key"]} for stage in run["stages"]
    }
    settings["budget"] = format_duration(run["budget"]) if run["budget"] else "none"
    return {**settings, **{name: run[name] for name in ("tables", "user_code", "versions")}}


def _scores(run: dict[str, Any], config: Config) -> list[str]:
    """Return the chosen candidate and three scores; dashes if the run was scored by another metric."""
    choice = run[CHOICE]
    metric = config.competition.metric
    file = Path(metric.rpartition(":")[0]).name  # of the user's function, or ""
    code = [entry for entry in user_code_of(config) if entry[0] == file]
    of_run = run["config"]["competition"]["metric"]
    if Path(of_run).name != Path(metric).name or any(entry not in run["user_code"] for entry in code):
        return [f"{choice['chosen']} by {of_run}", "-", "-", "-"]
    scores = [
        choice["stages"][choice["best_stage"]]["score"],
        choice["candidates"][choice["chosen"]]["in_sample_score"],
        choice["cross_fitted_score"],
    ]
    return [choice["chosen"], *map(format_number, scores)]


def compare(config: Config) -> str:
    """Return a table of all runs of a competition, and what differs from the latest run."""
    paths = config.competition.paths
    runs = {}
    left_out = []
    manifests = [
        file for file in paths.latest_run.parent.glob(f"[!.]*/{MANIFEST}") if file.parent.name != SO_FAR
    ]
    for manifest in sorted(manifests, key=lambda path: path.stat().st_mtime):
        name = manifest.parent.name
        try:
            verify_files(manifest.parent)
            runs[name] = read_manifest(manifest.parent)
        except DataError as error:
            left_out.append(f"{name} is left out: {error}")
    reference = name_of_latest(paths)
    if reference not in runs:
        raise DataError(f"{paths.root} has no finished run; run ./run.sh full first.")
    metric = config.competition.scorer
    direction = "greater is better" if metric.greater_is_better else "lower is better"
    title = f"# Runs of {paths.name}: {metric.name}, {direction}\n"
    return "\n".join([title, comparison(runs, reference, config, paths), *left_out])
