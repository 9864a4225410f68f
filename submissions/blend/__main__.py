"""Fit the blends on the columns of all stages: `python -m submissions.blend [COMPETITION]`.

Reads: prepared tables, folds.csv, and the predictions of all jobs.
Writes into the run's folder: oof.parquet and oof.csv, cross_fitted/<candidate>.parquet, blend.csv (the default, or the
blend that is better by the rule of selection) and, last, its part of run.json. Kept as they are while columns and code
stay the same.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from competition import command
from competition.files import write_table
from submissions.blend.candidates import ALWAYS, CANDIDATES, candidate
from submissions.blend.crossfit import choose, compare, cross_fit, cross_fitted
from submissions.blend.problem import Matrices
from submissions.blend.stored import label
from submissions.fitted import keep, matrices_of, rule_of
from submissions.run import BLEND, BLEND_FILE, OOF, OOF_TABLE, Run, at_work, open_run
from submissions.words import number


def blend(run: Run) -> dict[str, Any]:
    """The part `blend` of run.json, made or kept."""
    if run.has(BLEND):
        return run.part(BLEND)
    columns, rule = run.columns, rule_of(run)
    table, files = columns.table(run.task), [OOF, OOF_TABLE, BLEND_FILE]
    for file in (OOF, OOF_TABLE):
        write_table(run.folder / file, table)
    m = matrices_of(run, columns.oof)
    found, predictions, fitted = {}, {}, {}
    for named in candidates_of(run, m):
        name = label(named)
        predictions[name] = cross_fit(candidate(named), m, run.plan.n_folds)
        fitted[name] = candidate(named).fit(m)
        found[name], more = keep(run, rule, name, fitted[name], predictions[name])
        files += more
    honest = {name: part.cross_fitted for name, part in predictions.items()}
    compared = compare(rule, honest, rule.scored)
    chosen, reason = choose(rule, compared, rule.scored)
    run.write_submission(BLEND_FILE, fitted[chosen].predict(columns.test))
    part = {
        "candidates": {name: {**part, **asdict(compared[name])} for name, part in found.items()},
        "default": rule.default,
        "chosen": chosen,
        "reason": reason,
        "drop_one": drop_one(run),
    }
    return run.keep(BLEND, part, files)


def candidates_of(run: Run, m: Matrices) -> list[str]:
    """The blends that are compared: those of the table in its order, then the user's own."""
    settings = run.config.submissions
    where_no_form_is_exact = [] if m.problems[0].exact else ["optuna"]
    wanted = dict.fromkeys([*ALWAYS, settings.default, *settings.candidates, *where_no_form_is_exact])
    return [*(name for name in CANDIDATES if name in wanted), *(name for name in wanted if name not in CANDIDATES)]


def drop_one(run: Run) -> dict[str, dict[str, float]]:
    """Cross-fitted score of the default blend refitted without each stage, and its paired difference to the whole."""
    columns, default = run.columns, candidate(run.config.submissions.default)
    stages = sorted(run.config.stages) if len(run.config.stages) > 1 else []
    kept = {"all stages": columns.oof, **{stage: columns.oof[:, ~columns.of(stage)] for stage in stages}}
    y_pred = {name: cross_fitted(default, matrices_of(run, P), run.plan.n_folds) for name, P in kept.items()}
    rule = replace(rule_of(run), default="all stages")
    compared = compare(rule, y_pred, rule.scored)
    return {stage: asdict(compared[stage]) for stage in stages}


def describe(part: dict[str, Any]) -> str:
    """The cross-fitted scores, and those of the default blend without each stage, a line each."""
    scores, without = (
        ", ".join(f"{name} {number(each['cross_fitted_score'])}" for name, each in part[key].items())
        for key in ("candidates", "drop_one")
    )
    found = f"{BLEND_FILE}: {part['chosen']}; cross_fitted_score: {scores}"
    return f"{found}\nscore of {part['default']} without one stage: {without}" if without else found


def main() -> None:
    """Command line."""
    args = command.parser(__doc__, "blend").parse_args()
    run = open_run(args.competition, args.seed, args.reuse, args.budget)
    with at_work(run):
        print(describe(blend(run)))


if __name__ == "__main__":
    command.run(main)
