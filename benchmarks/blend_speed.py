"""Time and memory of the blends of a large competition on one thread: 100,000 rows, 40 columns, 5 targets, 5 folds.

    python -m benchmarks.blend_speed [--metric mae] [--rows N] [--all]

Without --all: the default blend with its cross-fitted score, which is meant to take at most 60 s and 4 GB for RMSE.
With --all: what submissions.blend does beyond that: the candidates that always run with the predictions that the choice
needs, the differences to the default, and each stage's worth.
"""

import argparse
import resource
import time

import numpy as np
from threadpoolctl import threadpool_limits

from competition.metrics import METRICS
from competition.task import Task
from submissions.blend.candidates import ALWAYS, CANDIDATES
from submissions.blend.crossfit import Rule, compare, cross_fit, cross_fitted
from submissions.blend.problem import Matrices
from submissions.config import SubmissionsConfig

N_STAGES, N_TARGETS, N_FOLDS = 40, 5, 5
SETTINGS = SubmissionsConfig()


def made_up(n_rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns (n_rows, n_stages, n_targets) that share half of their errors, labels and folds."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(n_rows, N_TARGETS))
    oof = rng.normal(size=(n_rows, N_STAGES, N_TARGETS)) * np.linspace(0.3, 0.6, N_STAGES)[:, None]
    oof += y[:, None] + 0.3 * rng.normal(size=(n_rows, 1, N_TARGETS))
    return oof, y, rng.permutation(np.arange(n_rows) % N_FOLDS)


class Clock:
    """Says how long each part took, by the clock and on the processor, and the most memory so far."""

    def __init__(self) -> None:
        self.last = time.perf_counter(), time.process_time()

    def say(self, what: str) -> None:
        now, peak = (time.perf_counter(), time.process_time()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        took = [after - before for before, after in zip(self.last, now, strict=True)]
        print(f"{what}: {took[0]:.1f} s ({took[1]:.1f} s CPU); most memory so far {peak / 2**20:.2f} GB", flush=True)
        self.last = now


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--metric", default="rmse", choices=METRICS)
    options.add_argument("--rows", type=int, default=100_000)
    options.add_argument("--all", action="store_true")
    args = options.parse_args()
    metric, default = METRICS[args.metric], "shrunk_ridge"
    oof, y, folds = made_up(args.rows)

    def matrices(P: np.ndarray) -> Matrices:
        return Matrices(P, y, folds, metric, trials=SETTINGS.trials)

    clock = Clock()
    clock.say("made up the columns")
    with threadpool_limits(1):
        m, blend = matrices(oof), CANDIDATES[default]
        honest = cross_fitted(blend, m, N_FOLDS)
        blend.fit(m)
        clock.say(f"{default} on all rows and without each fold, cross_fitted_score {metric(y, honest):.5f}")
        if not args.all:
            return
        y_pred = {}
        for name in ALWAYS:
            y_pred[name] = cross_fit(CANDIDATES[name], m, N_FOLDS).cross_fitted
            clock.say(f"{name} with all that the choice needs")
        rule = Rule(
            metric, Task(["y"]), y, folds, np.arange(len(y)), default, SETTINGS.margin, SETTINGS.bootstrap, seed=0
        )
        compare(rule, y_pred, folds >= 0)
        clock.say("differences to the default")
        without = {str(j): cross_fitted(blend, matrices(np.delete(oof, j, axis=1)), N_FOLDS) for j in range(N_STAGES)}
        compare(rule, {default: honest, **without}, folds >= 0)
        clock.say("each stage's worth")


if __name__ == "__main__":
    main()
