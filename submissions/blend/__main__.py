"""Blend the columns of all stages: `python -m submissions.blend [COMPETITION]`.

Reads: prepared tables, folds.csv, and the predictions of all jobs.
Writes into the run's folder: oof.parquet and oof.csv, each candidate in fitted/ and cross_fitted/, blend.csv (the
default, or the blend that is better by the rule of selection) and, last, its part of run.json. Kept as they are while
columns and code stay the same.
"""

from dataclasses import asdict, replace
from typing import Any

from competition import command
from competition.files import write_table
from competition.user_code import label
from submissions.blend.candidates import ALWAYS, ALWAYS_OF_CLASSES, candidate
from submissions.blend.crossfit import compare, scored
from submissions.blend.problem import Matrices
from submissions.fitted import describe, fit_all, matrices_of, rule_of
from submissions.run import BLEND, BLEND_FILE, OOF, OOF_TABLE, Run, at_work


def blend(run: Run) -> dict[str, Any]:
    """The part `blend` of run.json, made or kept."""
    if part := run.kept(BLEND):
        return part
    table, m = run.columns.table(run.task), matrices_of(run, run.columns.oof)
    for file in (OOF, OOF_TABLE):
        write_table(run.folder / file, table)
    part, files = fit_all(run, BLEND_FILE, {label(named): candidate(named) for named in candidates_of(run, m)}, m)
    return run.keep(BLEND, {**part, "drop_one": drop_one(run)}, [OOF, OOF_TABLE, *files])


def candidates_of(run: Run, m: Matrices) -> list[str]:
    """The blends that are compared: those that always are, then those that the YAML names."""
    if not m.has_probabilities:
        always = [*ALWAYS, *([] if m.exact else ["optuna"])]
    else:
        always = [*ALWAYS_OF_CLASSES, *["mean_of_ranks"] * (m.metric.kind == "ranks" and m.n_outputs == 1)]
    return list(dict.fromkeys([*always, *run.config.blends]))


def drop_one(run: Run) -> dict[str, dict[str, float]]:
    """Cross-fitted score of the default blend refitted without each stage, and its paired difference to the whole."""
    columns, default = run.columns, candidate(run.config.default_blend)
    stages = sorted(run.config.stages) if len(run.config.stages) > 1 else []
    kept = {"all stages": columns.oof, **{stage: columns.oof[:, ~columns.of(stage)] for stage in stages}}
    rule = replace(rule_of(run), default="all stages")
    found = {name: scored(rule, default, matrices_of(run, P)) for name, P in kept.items()}
    compared = compare(rule, found, rule.scored)
    return {stage: asdict(compared[stage]) for stage in stages}


def main() -> None:
    """Command line."""
    with at_work(__doc__) as run:
        print(describe(BLEND_FILE, blend(run)))


if __name__ == "__main__":
    command.run(main)
