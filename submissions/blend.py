"""Fit the linear candidates on the columns of all stages: `python -m submissions.blend [COMPETITION]`.

Reads: prepared tables, folds.csv, and the predictions of all jobs.
Writes into the run's folder: oof.parquet and oof.csv, cross_fitted/<candidate>.parquet, blend.csv (the default, or the
linear candidate that is better by the rule of selection) and, last, its part of run.json. Kept as they are while
columns and code stay the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from competition import command
from competition.files import derive_seed, write_table
from competition.metrics import Array, Metric
from submissions.apply import stored_blend
from submissions.blenders import ALWAYS, BLENDERS
from submissions.bootstrap import fast
from submissions.crossfit import CrossFitted, Rule, as_table, choose, compare, cross_fit, cross_fitted, fit_of, scores
from submissions.run import BLEND, BLEND_FILE, OOF, OOF_TABLE, Run, at_work, open_run
from submissions.target import Target, exact_problem, share_weights
from submissions.words import number


def blend(run: Run) -> dict[str, Any]:
    """The part `blend` of run.json, made or kept."""
    if run.has(BLEND):
        return run.part(BLEND)
    columns, names = run.columns, run.task.targets
    table = columns.table(run.task)
    write_table(run.folder / OOF, table)
    write_table(run.folder / OOF_TABLE, table)
    targets, rule = targets_of(run, columns.oof), rule_of(run)
    honest, candidates, files = {}, {}, [OOF, OOF_TABLE, BLEND_FILE]
    for name in candidates_of(run):
        predictions = cross_fit(targets, fit_of(name), run.plan.n_folds)
        files.append(write_cross_fitted(run, name, predictions))
        models = {t: stored_blend(target.fit(name), columns.names) for t, target in zip(names, targets, strict=True)}
        candidates[name] = {"models": models, **scores(rule, predictions)}
        honest[name] = predictions.cross_fitted
    compared = compare(rule, honest, rule.folds >= 0, rule.draws)
    chosen, reason = choose(rule, compared, rule.folds >= 0)
    y_pred = np.column_stack([target.fit(chosen).predict(columns.test[:, :, t]) for t, target in enumerate(targets)])
    run.write_submission(BLEND_FILE, y_pred)
    stages = sorted(run.config.stages) if len(run.config.stages) > 1 else []

    def without(stage: str) -> list[Target]:
        return targets_of(run, columns.oof[:, ~columns.of(stage)])

    found = {
        "candidates": {name: {**part, **asdict(compared[name])} for name, part in candidates.items()},
        "default": rule.default,
        "chosen": chosen,
        "reason": reason,
        "drop_one": drop_one(stages, without, rule, honest[rule.default], run.plan.n_folds),
    }
    return run.keep(BLEND, found, files)


def candidates_of(run: Run) -> list[str]:
    """The blends that are compared, in the order of their page."""
    settings = run.config.submissions
    no_exact_form = exact_problem(_metric_of_one(run)) is None
    wanted = {*ALWAYS, settings.default, *settings.candidates, *(["optuna"] if no_exact_form else [])}
    return [name for name in BLENDERS if name in wanted]


def targets_of(run: Run, oof: Array, features: Array | None = None) -> list[Target]:
    """What the candidates are fitted on, one for each target; `features` (n_rows, n_features) are for stacks."""
    settings, columns = run.config.submissions, run.columns
    targets = [
        Target(
            np.ascontiguousarray(oof[:, :, t]),
            columns.y[:, t],
            columns.folds,
            _metric_of_one(run),
            settings.trials,
            derive_seed(run.config.competition.seed, "blend", name),
            settings.weight_trials,
            features,
        )
        for t, name in enumerate(run.task.targets)
    ]
    if settings.weights == "shared":
        share_weights(targets)
    return targets


def _metric_of_one(run: Run) -> Metric:
    """The metric as blends of one target can be tuned on it: a user's function, too, where there is one target only."""
    metric = run.metric
    if metric.column is None and len(run.task.targets) == 1:
        return replace(metric, column=lambda y, y_pred: metric(y[:, None], y_pred[:, None]))
    return metric


def rule_of(run: Run) -> Rule:
    """The rule of selection as the YAML sets it."""
    settings, columns = run.config.submissions, run.columns
    return Rule(
        metric=run.metric,
        y=columns.y,
        folds=columns.folds,
        groups=columns.groups,
        default=settings.default,
        margin=settings.margin,
        draws=settings.bootstrap,
        seed=run.config.competition.seed,
    )


def write_cross_fitted(run: Run, candidate: str, predictions: CrossFitted) -> str:
    """Keep the predictions of a candidate for the training rows; returns the file, relative to the run's folder."""
    file = f"cross_fitted/{candidate}.parquet"
    write_table(run.folder / file, as_table(run.columns.ids, run.task.outputs, predictions))
    return file


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


def main() -> None:
    """Command line."""
    args = command.parser(__doc__).parse_args()
    run = open_run(args.competition, args.seed, args.reuse, args.budget)
    with at_work(run):
        print(describe(blend(run)))


if __name__ == "__main__":
    command.run(main)
