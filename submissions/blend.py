"""Fit the linear candidates on the columns of all stages: `python -m submissions.blend [COMPETITION]`.

Reads: prepared tables, folds.csv, and oof.csv and test predictions of all jobs.
Writes: submissions/<run>/run.json, cross_fitted/<candidate>.csv, blend.csv (the default, or the linear candidate that
is better by the rule of selection) and, last, blend.json. Kept as they are while columns and code stay the same.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from competition import command
from competition.files import read_json, write_table
from submissions.apply import BLEND, BLEND_FILE, stored_blend
from submissions.blenders import BLENDERS
from submissions.columns import Run, load_columns, open_run, rule_of, targets_of
from submissions.crossfit import choose, compare, cross_fit, fit_of, scores
from submissions.products import (
    at_work,
    cross_fitted_file,
    cross_fitted_table,
    finish,
    is_done,
    write_manifest,
    write_predictions,
)


def blend(run: Run) -> dict[str, Any]:
    """Content of blend.json, made or kept."""
    write_manifest(run)
    if is_done(run, BLEND):
        return dict(read_json(run.folder / BLEND))
    columns = load_columns(run)
    targets, rule, names = targets_of(run, columns), rule_of(run, columns), run.config.competition.targets
    cross_fitted, candidates = {}, {}
    for name in BLENDERS:
        predictions = cross_fit(targets, fit_of(name), run.plan.n_folds)
        write_table(run.folder / cross_fitted_file(name), cross_fitted_table(columns.ids, names, predictions))
        models = {t: stored_blend(target.fit(name), columns.stages) for t, target in zip(names, targets, strict=True)}
        candidates[name] = {"models": models, **scores(rule, predictions)}
        cross_fitted[name] = predictions.cross_fitted
    compared = compare(rule, cross_fitted, rule.folds >= 0, rule.draws)
    chosen, reason = choose(rule, compared)
    of_target = [np.column_stack([columns.test[s][:, t] for s in columns.stages]) for t in range(len(names))]
    y_pred = np.column_stack([t.fit(chosen).predict(part) for t, part in zip(targets, of_target, strict=True)])
    write_predictions(run, columns.test_ids, y_pred, BLEND_FILE)
    content = {
        "candidates": {name: {**part, **asdict(compared[name])} for name, part in candidates.items()},
        "default": rule.default,
        "chosen": chosen,
        "reason": reason,
    }
    return finish(run, BLEND, content, [BLEND_FILE, *map(cross_fitted_file, BLENDERS)])


def describe(content: dict[str, Any]) -> str:
    """The cross-fitted scores in one line."""
    scores_of = {name: content["candidates"][name]["cross_fitted_score"] for name in BLENDERS}
    listed = ", ".join(f"{name} {number(score)}" for name, score in scores_of.items())
    return f"{BLEND_FILE}: {content['chosen']}; cross_fitted_score: {listed}"


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
