"""All runs of a competition side by side: `./run.sh compare [COMPETITION] [--with RUN]`.

Each run is held against one of them, the latest unless --with names another: the settings that differ, and the paired
difference of the cross-fitted predictions on the training rows that both have predicted.

Reads: the prepared training table, its groups, and of every run run.json and cross_fitted.csv. Writes nothing.
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
from scipy import stats

from competition import command
from competition.errors import ConfigError, DataError
from competition.files import derive_seed, read_table
from competition.metrics import Array, Metric, load_metric
from competition.paths import Paths
from folds.table import read_groups
from submissions.blend.bootstrap import bootstrap_scores, fast
from submissions.config import Config, load_config
from submissions.run import BLEND, CHOICE, CROSS_FITTED, MANIFEST, STACK, read_manifest, read_part, user_code
from submissions.words import number, table

LONGEST = 50
"""Characters of a setting's value that are shown."""


@dataclass(frozen=True)
class Labels:
    """Training rows to compare predictions on: labels and groups by id, the metric, and how the bootstrap draws.

    metric_code: digest and name of the user's own function; None for a named metric.
    """

    y: pd.DataFrame
    groups: pd.Series
    metric: Metric
    metric_code: list[str] | None
    draws: int
    seed: int


def read_labels(config: Config, paths: Paths) -> Labels:
    """Labels of the prepared training table, to be scored as the YAML says now."""
    competition = config.competition
    train = read_table(paths.train).set_index(competition.id)
    metric, draws = load_metric(competition.metric, competition.greater_is_better), config.submissions.bootstrap
    return Labels(
        train[competition.targets],
        pd.Series(read_groups(paths.groups, list(train.index)), index=train.index),
        metric,
        user_code(config).get("metric"),
        draws if fast(metric) else max(100, draws // 10),
        derive_seed(competition.seed, "bootstrap"),
    )


def common_ids(labels: Labels, predictions: list[pd.DataFrame]) -> pd.Index:
    """Ids of the training rows that all have predicted."""
    ids = labels.y.index
    for each in predictions:
        ids = ids.intersection(each.dropna().index)
    return ids


def drawn_scores(
    labels: Labels, predictions: dict[str, pd.DataFrame], ids: pd.Index, seed: int, n_rows: int | None = None
) -> pd.DataFrame:
    """Scores of several predictions on the same draws of groups, (n_draws, n_predictions).

    Args:
        ids: of the rows to draw from.
        seed: of the draws.
        n_rows: rows in a draw, on average; None for as many as there are.
    """
    groups = pd.factorize(labels.groups.loc[ids])[0].astype(np.int64)
    n_groups = None if n_rows is None else max(1, round(n_rows / len(ids) * (groups.max() + 1)))
    arrays: dict[str, Array] = {name: part.loc[ids].to_numpy() for name, part in predictions.items()}
    y = labels.y.loc[ids].to_numpy()
    return pd.DataFrame(bootstrap_scores(labels.metric, y, arrays, groups, labels.draws, seed, n_groups))


def paired(this: pd.DataFrame, other: pd.DataFrame, labels: Labels) -> tuple[float, float, int] | None:
    """By how much one is better than the other, the standard error of that, and on how many rows; None below two.

    Args:
        this, other: id (its index) -> cross-fitted prediction per target, NaN where there is none.
    """
    ids = common_ids(labels, [this, other])
    if len(ids) < 2:
        return None
    drawn = drawn_scores(labels, {"this": this, "other": other}, ids, labels.seed)
    scores = [labels.metric(labels.y.loc[ids].to_numpy(), each.loc[ids].to_numpy()) for each in (this, other)]
    gain = scores[0] - scores[1] if labels.metric.greater_is_better else scores[1] - scores[0]
    return gain, float((drawn["this"] - drawn["other"]).std()), len(ids)


def stored_runs(paths: Paths) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Name -> run.json of the finished runs, the oldest first, and a line for each other folder."""
    runs, left_out = {}, []
    for manifest in sorted(paths.latest_run.parent.glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime):
        try:
            read_part(manifest.parent, CHOICE)
            runs[manifest.parent.name] = read_manifest(manifest.parent)
        except DataError as error:
            left_out.append(f"{manifest.parent.name} is left out: {error}")
    return runs, left_out


def settings_of(run: dict[str, Any]) -> dict[str, Any]:
    """The resolved YAML, with what else a run is made of."""
    keys = {stage["name"]: stage["key"] for stage in run["stages"]}
    tables = {name: sha256[:12] for name, sha256 in run["tables"].items()}
    return {**run["config"], "jobs": keys, "tables": tables, **{name: run[name] for name in ("user_code", "versions")}}


def differences(this: dict[str, Any], other: dict[str, Any], path: str = "") -> Iterator[str]:
    """A line for each key whose value differs, `key: value in other -> value in this`; nested keys with dots."""
    for key in sorted({*this, *other}):
        where = f"{path}{key}"
        if key not in this or key not in other:
            yield f"{where}: {'added' if key in this else 'removed'}"
        elif isinstance(this[key], dict) and isinstance(other[key], dict):
            yield from differences(this[key], other[key], f"{where}.")
        elif this[key] != other[key]:
            yield f"{where}: {json.dumps(other[key])[:LONGEST]} -> {json.dumps(this[key])[:LONGEST]}"


def comparison(runs: dict[str, dict[str, Any]], reference: str, labels: Labels, paths: Paths) -> str:
    """Tables of scores and of gains over `reference`, and what differs from it, the latest run first.

    Raises:
        DataError: if `reference` predicts other targets than the labels have.
    """
    targets, other = list(labels.y.columns), runs[reference]
    if other["targets"] != targets:
        raise DataError(
            f"The YAML predicts {', '.join(targets)}, and the run to compare with, {reference}, predicts "
            f"{', '.join(other['targets'])}. Name another one with --with."
        )
    oof = {
        name: read_table(paths.run(name) / CROSS_FITTED, ["id"]).set_index("id")
        for name, run in runs.items()
        if run["targets"] == targets
    }
    rows, remarks, changed = [], [], []
    for name, run in reversed(runs.items()):
        gain, error = "reference", ""
        if name != reference:
            found = paired(oof[name], oof[reference], labels) if name in oof else None
            gain, error = (number(found[0]), number(found[1])) if found else ("-", "-")
            if found is None:
                remarks.append(f"{name} has other targets or other rows, and is not compared.")
            elif found[2] < max(len(oof[name]), len(oof[reference])):
                remarks.append(f"{name} is compared on the {found[2]} rows that both runs predict.")
            if run["tables"]["folds.csv"] != other["tables"]["folds.csv"]:
                remarks.append(f"{name} has other folds, from which part of the difference may come.")
            lines = list(differences(settings_of(run), settings_of(other))) or ["nothing"]
            changed.append("\n".join([f"{name}:", *(f"- {line}" for line in lines)]))
        written = datetime.fromtimestamp((paths.run(name) / MANIFEST).stat().st_mtime)
        rows.append([name, f"{written:%Y-%m-%d %H:%M}", *_scores(run, labels), gain, error])
    header = ["run", "written", "chosen", "best stage", "in_sample", "cross_fitted", "gain", "standard_error"]
    said = (
        "best stage: cv_score. in_sample: of the chosen candidate. cross_fitted: with the choice. gain: of that "
        f"over {reference} on the same rows, above 0 is better."
    )
    parts = [table(header, rows), "\n".join([said, tried(len(runs)), *remarks])]
    return "\n\n".join([*parts, *([f"## What differs from {reference}"] if changed else []), *changed])


def tried(n: int) -> str:
    """How many runs were tried, and what that does to the best of them."""
    luck = stats.norm.ppf((n - 0.375) / (n + 0.25))  # Blom: the largest of n normal numbers
    best = f" The best of {n} equal runs looks about {luck:.1f} standard errors better than it is." if n > 2 else ""
    return f"Runs that were tried: {n}.{best}"


def _scores(run: dict[str, Any], labels: Labels) -> list[str]:
    """Name of the chosen candidate and three scores; dashes where the run was scored by another metric."""
    choice, used = run[CHOICE], run["config"]["competition"]["metric"]
    chosen = choice["chosen"]
    if Path(used).name != labels.metric.name or run["user_code"].get("metric") != labels.metric_code:
        return [f"{chosen} by {used}", "-", "-", "-"]
    candidates = run[BLEND]["candidates"] | run.get(STACK, {"candidates": {}})["candidates"]
    best, whole = choice["against"]["best_single"], choice["procedure"]
    scores = (best["cv_score"], candidates[chosen]["in_sample_score"], whole["cross_fitted_score"])
    return [chosen, *map(number, scores)]


def main() -> None:
    """Command line."""
    options = command.parser(__doc__, takes=("seed", "holdout"))
    options.add_argument("--with", dest="other", metavar="RUN", help="the run to compare with (default: the latest)")
    args = options.parse_args()
    config, paths = load_config(args.competition, args.seed), Paths.of(args.competition)
    runs, left_out = stored_runs(paths)
    if not runs:
        raise DataError(f"{paths.root} has no finished run; run ./run.sh full {paths.name} first.")
    latest = paths.latest_run.read_text(encoding="utf-8").strip() if paths.latest_run.exists() else ""
    reference = args.other or (latest if latest in runs else list(runs)[-1])
    if reference not in runs:
        raise ConfigError(f"--with takes one of {', '.join(runs)}; found {reference!r}.")
    labels = read_labels(config, paths)
    direction = "greater is better" if labels.metric.greater_is_better else "less is better"
    print(f"# Runs of {paths.name}: {labels.metric.name}, {direction}\n")
    print("\n".join([comparison(runs, reference, labels, paths), *left_out]))


if __name__ == "__main__":
    command.run(main)
