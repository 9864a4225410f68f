"""Would a blend have a better st_rae if its weights were found for st_rae, instead of for rae?

    python -m benchmarks.interval_blends --data FOLDER_WITH_COMPETITIONS --cache FOLDER [--draws 2] [--sets ...]

The columns and holdouts are those of `family_blenders`. Every label gets a confidence interval of 1.96 standard
deviations to each side; the standard deviations are lognormal, with a median of a tenth (or a fifth) of that of the
labels. The tables have the st_rae on the holdout relative to that of the weights for rae, in per cent: mean over sets
with a 95 % interval by a bootstrap that draws sets, and each set.

Compared:
    st_rae: weights of at least 0 with sum 1 and the smallest sum of distances to the intervals, out of fold;
    squared: the same with the smallest sum of squared errors;
    default: the default blend.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import linprog

from benchmarks.blenders import DEFAULT, matrices_of, predict
from benchmarks.family_blenders import SETS, sets_of
from benchmarks.oof_matrices import (
    HALVES,
    arguments,
    cached_lines,
    family_matrices,
    in_per_cent,
    over_sets,
    per_set,
)
from competition.files import derive_seed
from competition.intervals import Intervals
from competition.metrics import METRICS
from submissions.blend.candidates import CANDIDATES, Blend

WIDTHS = (0.1, 0.2)
"""Median standard deviation of a measurement, in standard deviations of the labels."""
SPREAD = 0.5
"""Standard deviation of the logarithm of these."""


def intervals_of(y: np.ndarray, width: float, *seed: object) -> Intervals:
    """Return intervals around labels, (n_rows, 1)."""
    deviates = np.random.default_rng(derive_seed(0, *seed)).normal(size=len(y))
    half = 1.96 * width * y.std() * np.exp(SPREAD * deviates)
    return Intervals(*(column[:, None] for column in (y, y - half, y + half)))


def least_distances(columns: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> Blend:
    """Find the weights of at least 0 with sum 1 whose blend has the smallest sum of distances to intervals."""
    n_rows, n_columns = columns.shape
    distance = np.eye(n_rows)
    found = linprog(
        np.repeat([0.0, 1.0], [n_columns, n_rows]),
        A_ub=np.block([[-columns, -distance], [columns, -distance]]),
        b_ub=np.concatenate([-lower, upper]),
        A_eq=np.repeat([[1.0, 0.0]], [n_columns, n_rows], axis=1),
        b_eq=[1.0],
    )
    return Blend(found.x[:n_columns, None], np.zeros(1))


def errors_of(name: str, draw: int, split: str, data: Path, cache: Path) -> list[dict]:
    """Return a line for each target, width and blend."""
    lines = []
    for matrix in family_matrices(name, draw, split, data, cache):
        for width in WIDTHS:
            seed = name, matrix.target, draw, split
            train = intervals_of(matrix.y, width, *seed, "train")
            holdout = intervals_of(matrix.y_holdout, width, *seed, "holdout")
            blends = {
                "rae": least_distances(matrix.oof, matrix.y, matrix.y),
                "st_rae": least_distances(matrix.oof, train.lower[:, 0], train.upper[:, 0]),
                "squared": CANDIDATES["convex"].fit(matrices_of(matrix)),
                "default": CANDIDATES[DEFAULT].fit(matrices_of(matrix)),
            }
            for label, blend in blends.items():
                y_pred = predict(blend, matrix.holdout.mean(axis=0))
                score = METRICS["rae"](holdout.y, holdout.move_to_labels(y_pred[:, None]))
                line = {"set": name, "target": matrix.target, "draw": draw, "width": width}
                lines.append({**line, "blend": label, "score": score})
    return lines


def main() -> None:
    """Print the tables."""
    args = arguments(__doc__, SETS, draws=2)
    asked = args.sets
    for split in HALVES:
        args.sets = sets_of(split, asked)
        if not args.sets:
            continue
        lines_of = partial(errors_of, split=split, data=args.data, cache=args.cache)
        lines = pd.DataFrame(cached_lines(f"intervals_{split}", lines_of, args))
        for width, of_width in lines.groupby("width"):
            index = ["set", "target", "draw"]
            scores = of_width.pivot(index=index, columns="blend", values="score").reset_index()
            print(
                f"\nholdout by {split}, width {width}: {len(scores)} blends, st_rae {scores['rae'].mean():.3f}"
            )
            for label in ("st_rae", "squared", "default"):
                of_set, interval = over_sets(np.log(scores[label] / scores["rae"]), scores["set"])
                print(f"  {label:8s} {in_per_cent(interval):26s} {per_set(of_set)}")


if __name__ == "__main__":
    main()
