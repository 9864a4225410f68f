"""Fit the linear candidates on the columns of all stages: `python -m submissions.blend [COMPETITION]`.

Reads: prepared tables, folds.csv, and out-of-fold and test predictions of all jobs.
Writes: submissions/<run>/run.json, cross_fitted/<candidate>.csv, blend.csv (the default, or the linear candidate that
is better by the rule of selection) and, last, blend.json. Kept as they are while columns and code stay the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from competition import command
from competition.files import read_json, write_table
from competition.metrics import Array
from submissions.apply import BLEND, BLEND_FILE, stored_blend
from submissions.blenders import BLENDERS
from submissions.bootstrap import fast
from submissions.columns import Run, load_columns, open_run, rule_of, stage_names, targets_of
from submissions.crossfit import Rule, choose, compare, cross_fit, cross_fitted, fit_of, scores
from submissions.products import (
    at_work,
    cross_fitted_file,
    cross_fitted_table,
    finish,
    is_done,
    write_manifest,
    write_predictions,
)
from submissions.target import Target


def blend(run: Run) -> dict[str, Any]:
    """Content of blend.json, made or kept."""
    write_manifest(run)
    if is_done(run, BLEND):
        return dict(read_json(run.folder / BLEND))
    columns = load_columns(run)
    targets, rule, names = targets_of(run, columns), rule_of(run, columns), run.config.competition.targets
    honest, candidates = {}, {}
    for name in run.candidates:
        predictions = cross_fit(targets, fit_of(name), run.plan.n_folds)
        write_table(run.folder / cross_fitted_file(name), cross_fitted_table(columns.ids, names, predictions))
        models = {t: stored_blend(target.fit(name), columns.stages) for t, target in zip(names, targets, strict=True)}
        candidates[name] = {"models": models, **scores(rule, predictions)}
        honest[name] = predictions.cross_fitted
    compared = compare(rule, honest, rule.folds >= 0, rule.draws)
    chosen, reason = choose(rule, compared, rule.folds >= 0)
    of_target = [columns.test_columns(t) for t in range(len(names))]
    y_pred = np.column_stack([t.fit(chosen).predict(part) for t, part in zip(targets, of_target, strict=True)])
    write_predictions(run, columns.test_ids, y_pred, BLEND_FILE)
    stages = stage_names(run.config) if len(run.config.stages) > 1 else []
    worth = drop_one(
        stages, lambda stage: targets_of(run, columns.without(stage)), rule, honest[rule.default], run.plan.n_folds
    )
    content = {
        "candidates": {name: {**part, **asdict(compared[name])} for name, part in candidates.items()},
        "default": rule.default,
        "chosen": chosen,
        "reason": reason,
        "drop_one": worth,
    }
    return finish(run, BLEND, content, [BLEND_FILE, *map(cross_fitted_file, run.candidates)])


def drop_one(
    stages: list[str], without: Callable[[str], list[Target]], rule: Rule, with_all: Array, n_folds: int
) -> dict[str, dict[str, float]]:
    """Cross-fitted score of the default blend refitted without each stage, and its paired difference to that with all.

    Args:
        stages: by name.
        without: makes the targets without the columns of a stage.
        with_all: (n_rows, n_targets), the cross-fitted predictions of the default blend.
        n_folds: number of folds.
    """
    all_stages = "all stages"
    y_pred = {stage: cross_fitted(without(stage), fit_of(rule.default), n_folds) for stage in stages}
    draws = rule.draws if fast(rule.metric) else max(100, rule.draws // 10)
    compared = compare(replace(rule, default=all_stages), {all_stages: with_all, **y_pred}, rule.folds >= 0, draws)
    return {stage: asdict(compared[stage]) for stage in stages}


def describe(content: dict[str, Any]) -> str:
    """The cross-fitted scores, and those of the default blend without each stage, a line each."""
    candidates, name = content["candidates"], content["default"]
    lines = [
        f"{BLEND_FILE}: {content['chosen']}; cross_fitted_score: {_listed(candidates, list(BLENDERS))}",
    ]
    if content["drop_one"]:
        lines.append(f"{name} without a stage: {_listed(content['drop_one'], sorted(content['drop_one']))}")
    return "\n".join(lines)


def _listed(parts: dict[str, Any], names: list[str]) -> str:
    return ", ".join(f"{name} {number(parts[name]['cross_fitted_score'])}" for name in names if name in parts)


def number(value: float | None) -> str:
    """Five significant digits; a dash where there is no number."""
    return "-" if value is None or not np.isfinite(value) else f"{value:#.5g}".rstrip(".")


def main() -> None:
    """Command line."""
    args = command.parser(__doc__).parse_args()
    run = open_run(args.competition, args.seed, args.reuse, args.budget)
    with at_work(run):
        print(describe(blend(run)))


if __name__ == "__main__":
    command.run(main)
