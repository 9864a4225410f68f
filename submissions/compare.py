"""Compare all runs of a competition: `./run.sh compare [COMPETITION] [--with RUN]`.

Each run is compared with the latest one, or that of --with: settings that differ, and the paired difference of
the cross-fitted predictions on the training rows of both.

Reads: the prepared training table, its groups, and run.json and cross_fitted.csv of each run. Writes nothing.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pandas as pd

from competition.dataset import GROUP
from competition.metrics import Metric
from competition.task import Task, raw_rows_for
from core import cli
from core.errors import ConfigError, DataError
from core.files import derive_seed, read_table, sha256_of
from core.paths import Paths
from core.settings import NO_OVERRIDES, Overrides
from core.text import format_duration, format_number, format_table
from core.types import Array
from submissions.blend.bootstrap import bootstrap_scores
from submissions.config import load_config
from submissions.run import (
    CHOICE,
    MANIFEST,
    SO_FAR,
    name_of_latest,
    read_manifest,
    scored_rows,
    verify_files,
)

MAX_VALUE_LENGTH = 50
"""Characters of the value of a setting."""


@dataclass(frozen=True)
class PairedScorer:
    """Scores predictions on the same training rows and bootstrap resamples.

    Attributes:
        y: labels, indexed by id.
        groups: group of each row, indexed by id.
        metric_code: name and digest of the file of a user-defined metric.
        rows: rows of the raw table for a metric that takes them, indexed by id; None for others.
    """

    task: Task
    y: pd.DataFrame
    groups: pd.Series
    metric: Metric
    seed: int
    metric_code: list[str] | None = None
    rows: pd.DataFrame | None = None

    def ids_of_all(self, predictions: list[pd.DataFrame]) -> pd.Index:
        """Return the ids of the rows that all have predicted; none if their outputs differ."""
        ids = self.y.index
        for table in predictions:
            ids = ids.intersection(table.reindex(columns=self.task.scored_columns).dropna().index)
        return ids

    def drawn_scores(
        self, predictions: dict[str, pd.DataFrame], seed: int, n_rows: int | None = None
    ) -> pd.DataFrame:
        """Return scores on bootstrap resamples by group, (n_resamples, n_predictions).

        Args:
            predictions: name -> what the metric scores (`Task.scored_columns`), indexed by id, NaN if missing.
            n_rows: mean number of rows in a resample; None for all rows.
        """
        ids = self.ids_of_all(list(predictions.values()))
        groups = pd.factorize(self.groups.loc[ids])[0]
        n_groups = None if n_rows is None else max(1, round(n_rows / len(ids) * (groups.max() + 1)))
        arrays = {name: self._of(table, ids) for name, table in predictions.items()}
        y = self.y.loc[ids].to_numpy()
        return bootstrap_scores(self.metric, y, arrays, groups, seed, n_groups, self._raw_rows(ids))

    def paired(self, this: pd.DataFrame, other: pd.DataFrame) -> tuple[float, float, int] | None:
        """Return the gain of `this` over `other`, its standard error and the number of rows; None below 2 rows."""
        ids = self.ids_of_all([this, other])
        if len(ids) < 2:
            return None
        drawn = self.drawn_scores({"this": this, "other": other}, self.seed)
        y = self.y.loc[ids].to_numpy()
        rows = self._raw_rows(ids)
        first, second = (self.metric(y, self._of(each, ids), rows) for each in (this, other))
        gain = first - second if self.metric.greater_is_better else second - first
        return gain, (drawn["this"] - drawn["other"]).std(), len(ids)

    def _of(self, table: pd.DataFrame, ids: pd.Index) -> Array:
        return table.loc[ids, self.task.scored_columns].to_numpy()

    def _raw_rows(self, ids: pd.Index) -> pd.DataFrame | None:
        return None if self.rows is None else self.rows.loc[ids]


def read_labels(name: str, overrides: Overrides = NO_OVERRIDES) -> PairedScorer:
    """Return the labels of the prepared training table, with the current metric of the YAML."""
    competition = load_config(name, overrides).competition
    train = read_table(competition.paths.train).set_index(competition.id)
    metric, file = competition.scorer, competition.metric.rpartition(":")[0]
    rows = raw_rows_for(metric, competition.train, competition.id, list(train.index))
    return PairedScorer(
        competition.task,
        train[competition.targets],
        train[GROUP],
        metric,
        derive_seed(competition.seed, "bootstrap"),
        [Path(file).name, sha256_of(Path(file))] if file else None,
        None if rows is None else rows.set_axis(train.index),
    )


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


def comparison(runs: dict[str, dict[str, Any]], reference: str, labels: PairedScorer, paths: Paths) -> str:
    """Return scores, gains over `reference` and settings that differ, the latest run first.

    Args:
        runs: name -> run.json, the oldest first.
    """
    oof = {name: scored_rows(paths.run(name), labels.task) for name in runs}
    rows, remarks, changed = [], [], []
    for name, run in reversed(runs.items()):
        gains = ["reference", ""]
        if name != reference:
            paired = labels.paired(oof[name], oof[reference])
            gains = [format_number(paired[0]), format_number(paired[1])] if paired else ["-", "-"]
            if paired is None:
                remarks.append(f"{name} has other targets, rows or classes, and is not compared.")
            elif paired[2] < max(len(oof[name]), len(oof[reference])):
                remarks.append(f"{name} is compared on the {paired[2]} rows that both runs predict.")
            if run["tables"]["folds.csv"] != runs[reference]["tables"]["folds.csv"]:
                remarks.append(f"{name} has other folds, from which part of the difference may come.")
            older, newer = sorted([name, reference], key=list(runs).index)
            lines = _changes(runs[older], runs[newer]) or ["nothing"]
            changed.append("\n".join([f"{older} -> {newer}:", *(f"- {line}" for line in lines)]))
        written = datetime.fromtimestamp((paths.run(name) / MANIFEST).stat().st_mtime)
        rows.append([name, f"{written:%Y-%m-%d %H:%M}", *_scores(run, labels), *gains])
    header = ["run", "written", "chosen", "best stage", "in_sample", "cross_fitted", "gain", "standard_error"]
    legend = (
        "best stage: its cv_score. in_sample: and cross_fitted: scores of the "
        f"chosen candidate. gain: its gain over {reference} on the same rows, above 0 is better."
    )
    n, tried = len(runs), f"Runs that were tried: {len(runs)}."
    if n > 2:
        luck = NormalDist().inv_cdf((n - 0.375) / (n + 0.25))  # Blom: the largest of n normal numbers
        tried += f" The best of {n} equal runs looks about {luck:.1f} standard errors better than it is."
    parts = [format_table(header, rows), "\n".join([legend, tried, *remarks])]
    return "\n\n".join(
        [*parts, *(["## What changed, from the older run to the newer"] if changed else []), *changed]
    )


def _changes(older: dict[str, Any], newer: dict[str, Any]) -> list[str]:
    """Return what changed from one run to another: the budget first, then settings, jobs, tables and code."""
    lines = []
    budgets = [format_duration(run["budget"]) if run["budget"] else "none" for run in (older, newer)]
    if budgets[0] != budgets[1]:
        lines.append(f"budget: {budgets[0]} -> {budgets[1]}")
    in_both = {stage["name"] for stage in older["stages"]} & {stage["name"] for stage in newer["stages"]}
    return [*lines, *differences(_settings(older, in_both), _settings(newer, in_both))]


def _settings(run: dict[str, Any], stages: set[str]) -> dict[str, Any]:
    """Return what a run was made from; keys of jobs only of some stages."""
    jobs = {stage["name"]: stage["key"] for stage in run["stages"] if stage["name"] in stages}
    return {
        **run["config"],
        "jobs": jobs,
        **{name: run[name] for name in ("tables", "user_code", "versions")},
    }


def _scores(run: dict[str, Any], labels: PairedScorer) -> list[str]:
    """Return the chosen candidate and three scores; dashes if the run was scored by another metric."""
    choice, used = run[CHOICE], run["config"]["competition"]["metric"]
    chosen = choice["chosen"]
    if Path(used).name != labels.metric.name or (
        labels.metric_code and labels.metric_code not in run["user_code"]
    ):
        return [f"{chosen} by {used}", "-", "-", "-"]
    best, in_sample = (
        choice["against"]["best_single"]["cv_score"],
        choice["candidates"][chosen]["in_sample_score"],
    )
    return [
        chosen,
        format_number(best),
        format_number(in_sample),
        format_number(choice["cross_fitted_score"]),
    ]


def main() -> None:
    """Parse the command line and run the command."""
    options = cli.parser(__doc__, takes=("seed", "holdout"))
    options.add_argument(
        "--with", dest="other", metavar="RUN", help="Run to compare with (default: the latest)."
    )
    args = options.parse_args()
    paths, runs, left_out = Paths.for_competition(args.competition), {}, []
    manifests = {*paths.latest_run.parent.glob(f"[!.]*/{MANIFEST}")} - {paths.run(SO_FAR) / MANIFEST}
    for manifest in sorted(manifests, key=lambda path: path.stat().st_mtime):
        try:
            verify_files(manifest.parent)
            runs[manifest.parent.name] = read_manifest(manifest.parent)
        except DataError as error:
            left_out.append(f"{manifest.parent.name} is left out: {error}")
    if not runs:
        raise DataError(f"{paths.root} has no finished run; run ./run.sh full {args.competition} first.")
    reference = args.other or name_of_latest(paths)
    if reference not in runs:
        raise ConfigError(f"--with takes one of {', '.join(runs)}; got {reference!r}.")
    labels = read_labels(args.competition, args.overrides)
    direction = "greater is better" if labels.metric.greater_is_better else "lower is better"
    print(f"# Runs of {paths.name}: {labels.metric.name}, {direction}\n")
    print("\n".join([comparison(runs, reference, labels, paths), *left_out]))


if __name__ == "__main__":
    cli.run(main)
