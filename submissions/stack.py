"""Fit stacks, level-2 models of what the default blend leaves: `python -m submissions.stack [COMPETITION]`.

Reads: as submissions.blend, and its predictions; with `submissions.stack_features` the cache of descriptors, too.
Writes into the run's folder: cross_fitted/<stack>.parquet, stack/<stack>_<t>.<txt or skops>, stack.csv (the best of
them by the rule of selection, or else by score) and, last, its part of run.json. Kept as they are while columns and
code stay the same. Nothing with `submissions.stack: false`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from competition import command
from competition.files import derive_seed
from submissions.blend.candidates import candidate
from submissions.blend.crossfit import cross_fit, decide
from submissions.blend.stacks import Corrector, Stacked, fit_ridge, fit_trees, regressor
from submissions.fitted import keep, matrices_of, read_cross_fitted, rule_of
from submissions.run import BLEND, STACK, STACK_FILE, Run, at_work, open_run
from submissions.stack_features import features_of
from submissions.words import number


def stack(run: Run) -> dict[str, Any]:
    """The part `stack` of run.json, made or kept.

    Raises:
        DataError: if `submissions.blend` has not run on the columns as they are.
    """
    if run.has(STACK):
        return run.part(STACK)
    run.part(BLEND)
    columns, rule = run.columns, rule_of(run)
    train, test = (features_of(run.config, table, run.paths.cache) for table in (run.paths.train, run.paths.test))
    m, default = matrices_of(run, columns.oof, train), read_cross_fitted(run, rule.default)
    found, predictions, fitted, files = {}, {rule.default: default}, {}, [STACK_FILE]
    for name, stacked in stacks_of(run).items():
        predictions[name], fitted[name] = cross_fit(stacked, m, run.plan.n_folds), stacked.fit(m)
        for t, (scaling, _) in enumerate(fitted[name].parts):
            tried = np.array_equal(predictions[name].cross_fitted[:, t], default.cross_fitted[:, t], equal_nan=True)
            if tried:  # no held-out row was corrected: a correction from all rows would have no score of its own
                fitted[name].parts[t] = scaling, None
                predictions[name].in_sample[:, t] = default.in_sample[:, t]
        found[name], more = keep(run, rule, name, fitted[name], predictions[name])
        files += more
    honest = {name: part.cross_fitted for name, part in predictions.items()}
    seen = {name: part.in_sample for name, part in predictions.items()}
    chosen, _, compared, same = decide(rule, honest, seen, rule.scored)
    if chosen == rule.default:  # the file holds a stack in any case
        chosen = max([n for n in fitted if n not in same] or fitted, key=lambda n: rule.gain(compared[n].difference))
    run.write_submission(STACK_FILE, fitted[chosen].predict(columns.test, test))
    part = {
        "candidates": {name: {**part, **asdict(compared[name])} for name, part in found.items()},
        "chosen": chosen,
        "same_as_default": same,
    }
    return run.keep(STACK, part, files)


def stacks_of(run: Run) -> dict[str, Stacked]:
    """The stacks that are compared, by name."""
    default, own = candidate(run.config.submissions.default), run.config.submissions.stack_regressor
    correctors: dict[str, Corrector] = {"lightgbm_stack": fit_trees, "ridge_stack": fit_ridge}
    if own is not None:
        seed = derive_seed(run.config.competition.seed, "sklearn_stack")
        correctors["sklearn_stack"] = regressor(own.name, own.parameters, seed)
    return {name: Stacked(default, corrector) for name, corrector in correctors.items()}


def describe(part: dict[str, Any]) -> str:
    """The stack in the file and the cross-fitted scores of all, in one line."""
    scores = [f"{name} {number(each['cross_fitted_score'])}" for name, each in part["candidates"].items()]
    same = [f"{name}: no correction: the default blend" for name in part["same_as_default"]]
    return "; ".join([f"{STACK_FILE}: {part['chosen']}", f"cross_fitted_score: {', '.join(scores)}", *same])


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
