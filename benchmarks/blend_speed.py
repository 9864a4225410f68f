"""Time and memory of the default blend of a large competition, with its cross-fitted score, on one thread.

    python -m benchmarks.blend_speed [--metric mae] [--rows N]

100,000 rows, 40 columns, 5 targets, 5 folds; it is meant to take at most 60 s and 4 GB for RMSE.
"""

import argparse
import resource
import time

import numpy as np
from threadpoolctl import threadpool_limits

from competition.metrics import METRICS
from submissions.blend.candidates import CANDIDATES
from submissions.blend.cross_fitting import cross_fitted
from submissions.blend.weight_problem import BlendData
from submissions.config import SubmissionsConfig

N_STAGES, N_TARGETS, N_FOLDS = 40, 5, 5


def made_up(n_rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns (n_rows, n_stages, n_targets) that share half of their errors, labels and folds."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(n_rows, N_TARGETS))
    oof = rng.normal(size=(n_rows, N_STAGES, N_TARGETS)) * np.linspace(0.3, 0.6, N_STAGES)[:, None]
    oof += y[:, None] + 0.3 * rng.normal(size=(n_rows, 1, N_TARGETS))
    return oof, y, rng.permutation(np.arange(n_rows) % N_FOLDS)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--metric", default="rmse", choices=METRICS)
    options.add_argument("--rows", type=int, default=100_000)
    args = options.parse_args()
    metric, blend, (oof, y, folds) = METRICS[args.metric], CANDIDATES["shrunk_ridge"], made_up(args.rows)
    started = time.perf_counter(), time.process_time()
    with threadpool_limits(1):
        m = BlendData(oof, y, folds, metric, trials=SubmissionsConfig().trials)
        score = metric(y, cross_fitted(blend, m))
        blend.fit(m)
    took, of_processor = time.perf_counter() - started[0], time.process_time() - started[1]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"cross_fitted_score {score:.5f}: {took:.1f} s ({of_processor:.1f} s CPU), {memory:.2f} GB")


if __name__ == "__main__":
    main()
