"""Fit stacks, level-2 models of what the default blend leaves: `python -m submissions.stack [COMPETITION]`.

Reads: as submissions.blend; with `submissions.stack_features` the prepared tables and the cache of descriptors, too.
Writes into the run's folder: cross_fitted/<stack>.parquet, stack/<stack>_<t>.<txt or skops>, stack.csv (the best of
them by the rule of selection, or else by score) and, last, its part of run.json. Kept as they are while columns and
code stay the same.
Nothing with `submissions.stack: false`.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from competition import command
from competition.files import derive_seed
from submissions.apply import store_stack
from submissions.blend import rule_of, targets_of, write_cross_fitted
from submissions.crossfit import Comparison, CrossFitted, Fit, Rule, choose, compare, cross_fit, fit_of, repeats, scores
from submissions.features import features_of
from submissions.run import STACK, STACK_FILE, Run, at_work, open_run
from submissions.stacker import Corrector, fit_ridge, fit_stack, fit_trees, regressor
from submissions.target import NONE
from submissions.words import number


def stack(run: Run) -> dict[str, Any]:
    """The part `stack` of run.json, made or kept."""
    if run.has(STACK):
        return run.part(STACK)
    columns, names, rule = run.columns, run.task.targets, rule_of(run)
    train, test = (features_of(run.config, table, run.paths.cache) for table in (run.paths.train, run.paths.test))
    targets = targets_of(run, columns.oof, train)
    predictions = {rule.default: cross_fit(targets, fit_of(rule.default), run.plan.n_folds)}
    candidates, y_pred, files = {}, {}, [STACK_FILE]
    for name, corrector in _correctors(run).items():
        predictions[name] = cross_fit(targets, _fit_of(rule.default, corrector), run.plan.n_folds)
        files.append(write_cross_fitted(run, name, predictions[name]))
        fitted = [fit_stack(target, rule.default, NONE, corrector) for target in targets]
        for t in _untested(predictions[name], predictions[rule.default]):
            fitted[t] = replace(fitted[t], correction=None)
            predictions[name].in_sample[:, t] = predictions[rule.default].in_sample[:, t]
        models = [store_stack(run.folder, f"{name}_{t}", each, columns.names) for t, each in enumerate(fitted)]
        files += [model["correction"]["file"] for model in models if "file" in model["correction"]]
        candidates[name] = {"models": dict(zip(names, models, strict=True)), **scores(rule, predictions[name])}
        y_pred[name] = np.column_stack(
            [each.predict(np.hstack([columns.test[:, :, t], test])) for t, each in enumerate(fitted)]
        )
    compared = compare(
        rule, {name: part.cross_fitted for name, part in predictions.items()}, rule.folds >= 0, rule.draws
    )
    same = repeats({name: part.in_sample for name, part in predictions.items()}, rule.default)
    chosen = _best(rule, compared, same)
    run.write_submission(STACK_FILE, y_pred[chosen])
    found = {
        "candidates": {name: {**part, **asdict(compared[name])} for name, part in candidates.items()},
        "chosen": chosen,
        "same_as_default": same,
    }
    return run.keep(STACK, found, files)


def _untested(stack: CrossFitted, default: CrossFitted) -> list[int]:
    """Targets that a stack corrects for no held-out row: a correction from all rows would have no score of its own."""
    pairs = zip(stack.cross_fitted.T, default.cross_fitted.T, strict=True)
    return [t for t, (one, other) in enumerate(pairs) if np.array_equal(one, other, equal_nan=True)]


def _correctors(run: Run) -> dict[str, Corrector]:
    found: dict[str, Corrector] = {"lightgbm_stack": fit_trees, "ridge_stack": fit_ridge}
    own = run.config.submissions.stack_regressor
    if own is not None:
        seed = derive_seed(run.config.competition.seed, "sklearn_stack")
        found["sklearn_stack"] = regressor(own.name, own.parameters, seed)
    return found


def _fit_of(default: str, corrector: Corrector) -> Fit:
    return lambda target, without: fit_stack(target, default, without, corrector)


def _best(rule: Rule, compared: dict[str, Comparison], same: list[str]) -> str:
    """The stack that the rule of selection chooses; where it chooses none, that with the best cross-fitted score."""
    chosen, _ = choose(rule, {name: part for name, part in compared.items() if name not in same}, rule.folds >= 0)
    if chosen != rule.default:
        return chosen
    stacks = [name for name in compared if name != rule.default]
    differing = [name for name in stacks if name not in same] or stacks
    sign = 1 if rule.metric.greater_is_better else -1
    return max(differing, key=lambda name: sign * compared[name].difference)


def describe(content: dict[str, Any]) -> str:
    """The stack in the file and the cross-fitted scores of all, in one line."""
    parts = [f"{name} {number(part['cross_fitted_score'])}" for name, part in content["candidates"].items()]
    line = f"{STACK_FILE}: {content['chosen']}; cross_fitted_score: {', '.join(parts)}"
    return "".join([line, *(f"; {name}: {nothing(name)}: the default blend" for name in content["same_as_default"])])


def nothing(name: str) -> str:
    """What a stack has that corrects nothing."""
    return "no trees" if name == "lightgbm_stack" else "no correction"


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
