"""Fit small trees on what the default blend leaves: `python -m submissions.stack [COMPETITION]`.

Reads: as submissions.blend.
Writes: submissions/<run>/cross_fitted/lightgbm_stack.csv, stack/target_<t>.txt (trees in LightGBM's text format),
stack.csv and, last, stack.json. Kept as they are while columns and code stay the same.
Nothing with `submissions.stack: false`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from competition import command
from competition.files import read_json, write_atomically, write_table
from submissions.apply import STACK, STACK_FILE, STACK_NAME, stored_stack
from submissions.blend import number
from submissions.columns import Run, load_columns, open_run, rule_of, targets_of
from submissions.crossfit import cross_fit, scores
from submissions.products import (
    at_work,
    cross_fitted_file,
    cross_fitted_table,
    finish,
    is_done,
    write_manifest,
    write_predictions,
)
from submissions.stacker import Stack, fit_stack
from submissions.target import Folds, Target


def stack(run: Run) -> dict[str, Any]:
    """Content of stack.json, made or kept."""
    write_manifest(run)
    if is_done(run, STACK):
        return dict(read_json(run.folder / STACK))
    columns = load_columns(run)
    targets, names = targets_of(run, columns), run.config.competition.targets

    def fit(target: Target, without: Folds) -> Stack:
        return fit_stack(target, run.config.submissions.default, without)

    predictions = cross_fit(targets, fit, run.plan.n_folds)
    write_table(run.folder / cross_fitted_file(STACK_NAME), cross_fitted_table(columns.ids, names, predictions))
    models, files, y_pred = {}, [STACK_FILE, cross_fitted_file(STACK_NAME)], []
    for t, (name, target) in enumerate(zip(names, targets, strict=True)):
        fitted = fit(target, frozenset())
        file = f"stack/target_{t}.txt" if fitted.trees else None
        if file and fitted.trees:
            write_atomically(run.folder / file, fitted.trees)
            files.append(file)
        models[name] = stored_stack(fitted, columns.stages, file)
        y_pred.append(fitted.predict(np.column_stack([columns.test[stage][:, t] for stage in columns.stages])))
    write_predictions(run, columns.test_ids, np.column_stack(y_pred), STACK_FILE)
    content = {"models": models, **scores(rule_of(run, columns), predictions)}
    return finish(run, STACK, content, files)


def describe(content: dict[str, Any]) -> str:
    """Score and sizes of the stack in one line."""
    trees = ", ".join(f"{name} {model['n_trees']}" for name, model in content["models"].items())
    return f"{STACK_FILE}: {STACK_NAME}; cross_fitted_score: {number(content['cross_fitted_score'])}; trees: {trees}"


def main() -> None:
    """Command line."""
    args = command.parser(__doc__).parse_args()
    run = open_run(args.competition, args.seed, args.reuse, args.budget)
    if not run.config.submissions.stack:
        print("submissions.stack is false: no stack")
        return
    with at_work(run):
        print(describe(stack(run)))


if __name__ == "__main__":
    command.run(main)
