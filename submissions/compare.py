"""All runs of a competition side by side: `./run.sh compare [COMPETITION] [--with RUN]`.

Each run is held against one of them, the latest unless --with names another: the settings that differ, and the paired
difference of the cross-fitted predictions on the training rows that both have predicted.

Reads: prepared/train.parquet, folds/groups.csv, and of every run run.json and cross_fitted.csv. Writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from competition import command
from competition.errors import ConfigError, DataError
from competition.files import derive_seed, read_table
from competition.metrics import Array, Metric, load_metric
from competition.paths import Paths
from folds.table import read_groups
from submissions.blend import number
from submissions.bootstrap import bootstrap_scores, fast
from submissions.config import Config, load_config
from submissions.report import table
from submissions.run import BLEND, CHOICE, CROSS_FITTED, MANIFEST, STACK, read_manifest, read_part, user_code

LONGEST = 60
"""Characters of a setting's value that are shown."""


@dataclass(frozen=True)
class StoredRun:
    """A finished run as its folder holds it."""

    folder: Path
    manifest: dict[str, Any]
    choice: dict[str, Any]
    candidates: dict[str, Any]

    @property
    def name(self) -> str:
        """A digest of its settings, tables and jobs."""
        return self.folder.name

    @property
    def written(self) -> float:
        """When its submission was chosen, in seconds since 1970."""
        return (self.folder / MANIFEST).stat().st_mtime

    @property
    def settings(self) -> dict[str, Any]:
        """The resolved YAML, with what else a run is made of."""
        keys = {stage["name"]: stage["key"] for stage in self.manifest["stages"]}
        tables = {name: sha256[:12] for name, sha256 in self.manifest["tables"].items()}
        others = {name: self.manifest[name] for name in ("user_code", "versions")}
        return {**self.manifest["config"], "jobs": keys, "tables": tables, **others}


@dataclass(frozen=True)
class Labels:
    """Training rows to compare runs on: labels by id, units that are drawn together, and the metric."""

    y: pd.DataFrame
    units: pd.Series
    metric: Metric
    metric_code: list[str] | None
    draws: int
    seed: int


@dataclass(frozen=True)
class Paired:
    """A run against another on `n_rows` rows; a gain above 0 is better."""

    gain: float
    standard_error: float
    n_rows: int


def stored_runs(paths: Paths) -> tuple[list[StoredRun], list[str]]:
    """The finished runs of a competition, the oldest first, and a line for each folder that is none or is damaged."""
    runs, left_out = [], []
    for manifest in sorted(paths.latest_run.parent.glob(f"*/{MANIFEST}")):
        folder = manifest.parent
        try:
            stored = read_manifest(folder)
            parts = [read_part(folder, step)["candidates"] for step in (BLEND, STACK) if step in stored]
            choice = read_part(folder, CHOICE)
        except DataError as error:
            left_out.append(f"{folder.name}: left out. {error}")
            continue
        runs.append(StoredRun(folder, stored, choice, {name: found for part in parts for name, found in part.items()}))
    return sorted(runs, key=lambda run: (run.written, run.name)), left_out


def differences(this: dict[str, Any], other: dict[str, Any], path: str = "") -> Iterator[str]:
    """A line for each key whose value differs, `key: value in other -> value in this`; nested keys with dots."""
    for key in sorted({*this, *other}):
        where = f"{path}{key}"
        if key not in this or key not in other:
            yield f"{where}: {'added' if key in this else 'removed'}"
        elif isinstance(this[key], dict) and isinstance(other[key], dict):
            yield from differences(this[key], other[key], f"{where}.")
        elif this[key] != other[key]:
            yield f"{where}: {_shown(other[key])} -> {_shown(this[key])}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."


def paired(this: pd.DataFrame, other: pd.DataFrame, labels: Labels) -> Paired | None:
    """The paired difference of two runs on the rows that both have predicted; None where these are fewer than two.

    Args:
        this, other: id (its index) -> cross-fitted prediction per target, NaN where there is none.
    """
    ids = labels.y.index.intersection(this.dropna().index).intersection(other.dropna().index)
    if len(ids) < 2:
        return None
    y = labels.y.loc[ids].to_numpy()
    predictions: dict[str, Array] = {"this": this.loc[ids].to_numpy(), "other": other.loc[ids].to_numpy()}
    units = pd.factorize(labels.units.loc[ids])[0].astype(np.int64)
    drawn = bootstrap_scores(labels.metric, y, predictions, units, labels.draws, labels.seed)
    spread = drawn["this"] - drawn["other"]
    gain = labels.metric(y, predictions["this"]) - labels.metric(y, predictions["other"])
    sign = 1 if labels.metric.greater_is_better else -1
    return Paired(sign * gain + 0.0, float(np.std(spread[np.isfinite(spread)], ddof=1)), len(ids))


def read_labels(config: Config, paths: Paths) -> Labels:
    """Labels of the prepared training table, to be scored as the YAML says now.

    Raises:
        DataError: if the table or its folds are not there.
    """
    competition = config.competition
    train = read_table(paths.train)
    metric, draws = load_metric(competition.metric, competition.greater_is_better), config.submissions.bootstrap
    return Labels(
        train.set_index(competition.id)[competition.targets],
        pd.Series(read_groups(paths.groups, list(train[competition.id])), index=train[competition.id]),
        metric,
        user_code(competition).get("metric"),
        draws if fast(metric) else max(100, draws // 10),
        derive_seed(competition.seed, "bootstrap"),
    )


def comparison(runs: list[StoredRun], reference: StoredRun, labels: Labels) -> str:
    """Tables of scores and of gains over `reference`, and what differs from it, the latest run first.

    Raises:
        DataError: if `reference` predicts other targets than the labels have.
    """
    if reference.manifest["targets"] != list(labels.y.columns):
        raise DataError(
            f"the run to compare with must predict {', '.join(labels.y.columns)}, as the YAML says; {reference.name} "
            f"predicts {', '.join(reference.manifest['targets'])}. Name another one with --with."
        )
    rows, remarks, changed = [], [], []
    for run in reversed(runs):
        gain = ["reference", ""]
        if run is not reference:
            gain, limits = _gain(run, reference, labels)
            remarks += [f"{run.name}: {line}" for line in limits]
            lines = list(differences(run.settings, reference.settings)) or ["nothing"]
            changed.append("\n".join([f"{run.name}:", *(f"- {line}" for line in lines)]))
        written = f"{datetime.fromtimestamp(run.written):%Y-%m-%d %H:%M}"
        rows.append([run.name, written, *_scores(run, labels), *gain])
    header = ["run", "written", "chosen", "best stage", "in_sample", "cross_fitted", "gain", "standard_error"]
    said = (
        "best stage: cv_score. in_sample: of the chosen candidate. cross_fitted: of the whole procedure. gain: of that "
        f"over {reference.name} on the same rows, above 0 is better."
    )
    parts = [table(header, rows), "\n".join([said, *remarks])]
    return "\n\n".join([*parts, *([f"## What differs from {reference.name}"] if changed else []), *changed])


def _gain(run: StoredRun, reference: StoredRun, labels: Labels) -> tuple[list[str], list[str]]:
    """Gain and standard error as cells, and what makes them less than paired on all rows."""
    targets = list(labels.y.columns)
    if run.manifest["targets"] != targets:
        return ["-", "-"], [f"its targets are {', '.join(run.manifest['targets'])}; not compared."]
    this, other = (read_table(each.folder / CROSS_FITTED, ["id"]).set_index("id") for each in (run, reference))
    found = paired(this, other, labels)
    if found is None:
        return ["-", "-"], ["no two rows are predicted by both runs; not compared."]
    limits = []
    if found.n_rows < max(len(this), len(other)):
        limits.append(
            f"compared on {found.n_rows} rows that both have; it has {len(this)}, {reference.name} has {len(other)}."
        )
    if run.manifest["tables"]["folds.csv"] != reference.manifest["tables"]["folds.csv"]:
        limits.append("other folds: part of the difference may come from them.")
    return [number(found.gain), number(found.standard_error)], limits


def _scores(run: StoredRun, labels: Labels) -> list[str]:
    """Name of the chosen candidate and three scores; dashes where the run was scored by another metric."""
    chosen = run.choice["chosen"]
    used = run.manifest["config"]["competition"]["metric"]
    if Path(used).name != labels.metric.name or run.manifest["user_code"].get("metric") != labels.metric_code:
        return [f"{chosen} by {used}", "-", "-", "-"]
    best = run.choice["against"]["best_single"]["cv_score"]
    in_sample = run.candidates[chosen]["in_sample_score"]
    return [chosen, *map(number, (best, in_sample, run.choice["procedure"]["cross_fitted_score"]))]


def main() -> None:
    """Command line."""
    options = command.parser(__doc__, takes=("seed", "holdout"))
    options.add_argument("--with", dest="other", metavar="RUN", help="the run to compare with (default: the latest)")
    args = options.parse_args()
    config, paths = load_config(args.competition, args.seed), Paths.of(args.competition)
    runs, unfinished = stored_runs(paths)
    if not runs:
        raise DataError(
            f"{paths.latest_run.parent} must hold at least one finished run, and has none; run "
            f"./run.sh full {paths.name} first."
        )
    by_name = {run.name: run for run in runs}
    latest = paths.latest_run.read_text(encoding="utf-8").strip() if paths.latest_run.exists() else ""
    name = args.other or (latest if latest in by_name else runs[-1].name)
    if name not in by_name:
        raise ConfigError(f"--with must be one of {', '.join(by_name)}; found {name!r}.")
    labels = read_labels(config, paths)
    direction = "greater is better" if labels.metric.greater_is_better else "less is better"
    print(f"# Runs of {paths.name}: {labels.metric.name}, {direction}\n")
    print("\n".join([comparison(runs, by_name[name], labels), *unfinished]))


if __name__ == "__main__":
    command.run(main)
