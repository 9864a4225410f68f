"""Fit the stack, a level-2 model of what the default blend leaves: `python -m submissions.stack [COMPETITION]`.

Reads: as submissions.blend, and its predictions.
Writes into the run's folder: the stack in fitted/ and cross_fitted/, stack.csv and, last, its part of run.json. Kept as
they are while columns and code stay the same. Nothing with `submissions.stack: false`.
"""

from typing import Any

from competition import command
from submissions.blend.candidates import candidate
from submissions.blend.stacks import LIGHTGBM_STACK, Stacked
from submissions.fitted import describe, fit_all, matrices_of
from submissions.run import BLEND, STACK, STACK_FILE, Run, at_work


def stack(run: Run) -> dict[str, Any]:
    """The part `stack` of run.json, made or kept; it needs that of `submissions.blend`."""
    if part := run.kept(STACK):
        return part
    run.part(BLEND)
    stacked = Stacked(candidate(run.config.default_blend))
    return run.keep(STACK, *fit_all(run, STACK_FILE, {LIGHTGBM_STACK: stacked}, matrices_of(run, run.columns.oof)))


def main() -> None:
    """Command line."""
    with at_work(__doc__) as run:
        is_wanted = run.config.submissions.stack
        print(describe(STACK_FILE, stack(run)) if is_wanted else "submissions.stack is false: no stack")


if __name__ == "__main__":
    command.run(main)
