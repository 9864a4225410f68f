"""Fit stacks, level-2 models of what the default blend leaves: `python -m submissions.stack [COMPETITION]`.

Reads: as submissions.blend, and its predictions; with `submissions.stack_features` the cache of descriptors, too.
Writes into the run's folder: each stack in fitted/ and cross_fitted/, stack.csv (the best of them by the rule of
selection, or else by score) and, last, its part of run.json. Kept as they are while columns and code stay the same.
Nothing with `submissions.stack: false`.
"""

from typing import Any

from competition import command
from competition.files import derive_seed
from submissions.blend.candidates import Candidate, candidate
from submissions.blend.stacks import Corrector, Stacked, fit_ridge, fit_trees, regressor
from submissions.fitted import describe, fit_all, matrices_of
from submissions.run import BLEND, STACK, STACK_FILE, Run, at_work
from submissions.stack_features import features_of


def stack(run: Run) -> dict[str, Any]:
    """The part `stack` of run.json, made or kept; it needs that of `submissions.blend`."""
    if part := run.kept(STACK):
        return part
    run.part(BLEND)
    train, test = (features_of(run.config, table, run.paths.cache) for table in (run.paths.train, run.paths.test))
    return run.keep(STACK, *fit_all(run, STACK_FILE, stacks_of(run), matrices_of(run, run.columns.oof, train), test))


def stacks_of(run: Run) -> dict[str, Candidate]:
    """The stacks that are compared, by name."""
    default, own = candidate(run.config.default_blend), run.config.submissions.stack_regressor
    correctors: dict[str, Corrector] = {"lightgbm_stack": fit_trees}
    if not run.task.has_probabilities:
        correctors["ridge_stack"] = fit_ridge
    if own is not None:
        seed = derive_seed(run.config.competition.seed, "sklearn_stack")
        correctors["sklearn_stack"] = regressor(own.name, own.parameters, seed)
    return {name: Stacked(default, corrector) for name, corrector in correctors.items()}


def main() -> None:
    """Command line."""
    with at_work(__doc__) as run:
        is_wanted = run.config.submissions.stack
        print(describe(STACK_FILE, stack(run)) if is_wanted else "submissions.stack is false: no stack")


if __name__ == "__main__":
    command.run(main)
