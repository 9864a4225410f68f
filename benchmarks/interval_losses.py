"""Is st_rae better if blend weights, or trees, know the intervals in which a prediction has no error?

    python -m benchmarks.interval_losses --data FOLDER_WITH_COMPETITIONS --cache FOLDER [--draws 2] [--sets ...]

The columns and holdouts are those of `family_blenders`. Every label gets a confidence interval of 1.96 standard
deviations to each side; the standard deviations are lognormal, with a median of a tenth (or a fifth) of that of the
labels. The tables have the st_rae on the holdout relative to the first of what is compared, in per cent: mean over sets
with a 95 % interval by a bootstrap that draws sets, and each set.

Blends:
    rae: weights of at least 0 with sum 1 and the smallest sum of absolute errors, out of fold;
    st_rae: the same with the smallest sum of distances to the intervals;
    squared: the same with the smallest sum of squared errors;
    default: the default blend.
LightGBM on counts of Morgan fingerprints:
    squared: squared errors;
    interval: squared distances to the intervals;
    absolute: absolute errors.
"""

from pathlib import Path

import lightgbm
import numpy as np
from rdkit.Chem import MolFromSmiles
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator
from scipy.optimize import linprog

from benchmarks.blenders import DEFAULT, matrices_of, predict
from benchmarks.family_blenders import SETS, lines_by_split
from benchmarks.oof_matrices import (
    arguments,
    family_parts,
    in_per_cent,
    matrices_of_parts,
    molecules_of_halves,
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
TREES = {"learning_rate": 0.05, "num_leaves": 15, "bagging_fraction": 0.8, "bagging_freq": 1, "seed": 0,
         "feature_fraction": 0.3, "num_threads": 1, "verbosity": -1}  # fmt: skip
N_TREES = 300
MORGAN = GetMorganGenerator(radius=2, fpSize=1024)


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


def trees(counts: np.ndarray, y: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> lightgbm.Booster:
    """Boost trees on the squared distances to intervals; on squared errors, if both ends are the label."""

    def objective(y_pred: np.ndarray, _: lightgbm.Dataset) -> tuple[np.ndarray, np.ndarray]:
        return y_pred - np.clip(y_pred, lower, upper), np.ones(len(y))

    return lightgbm.train({**TREES, "objective": objective}, dataset(counts, y), N_TREES)


def dataset(counts: np.ndarray, y: np.ndarray) -> lightgbm.Dataset:
    """Return training rows whose predictions start at 0, where the mean label is."""
    return lightgbm.Dataset(counts, y, init_score=np.zeros(len(y)))


def errors_of(name: str, draw: int, split: str, data: Path, cache: Path) -> list[dict]:
    """Return a line for each target, width and method."""
    lines = []
    counts = [
        np.array([MORGAN.GetCountFingerprintAsNumPy(MolFromSmiles(text)) for text in part], dtype=np.float64)
        for part in molecules_of_halves(name, draw, split, data)
    ]
    parts = family_parts(name, draw, split, data, cache)
    targets = list(parts["targets"])
    for matrix in matrices_of_parts(name, draw, parts):
        t = targets.index(matrix.target)
        x = counts[0][np.isfinite(parts["y"][:, t])]
        x_holdout = counts[1][np.isfinite(parts["y_holdout"][:, t])]
        centre = matrix.y.mean()
        y = matrix.y - centre
        for width in WIDTHS:
            seed = name, matrix.target, draw, split
            train = intervals_of(matrix.y, width, *seed, "train")
            holdout = intervals_of(matrix.y_holdout, width, *seed, "holdout")
            lower, upper = train.lower[:, 0], train.upper[:, 0]
            blends = {
                "rae": least_distances(matrix.oof, matrix.y, matrix.y),
                "st_rae": least_distances(matrix.oof, lower, upper),
                "squared": CANDIDATES["convex"].fit(matrices_of(matrix)),
                "default": CANDIDATES[DEFAULT].fit(matrices_of(matrix)),
            }
            absolute = lightgbm.train({**TREES, "objective": "l1"}, dataset(x, y), N_TREES)
            boosters = {
                "squared": trees(x, y, y, y),
                "interval": trees(x, y, lower - centre, upper - centre),
                "absolute": absolute,
            }
            y_preds = {
                ("blend", label): predict(blend, matrix.holdout.mean(axis=0))
                for label, blend in blends.items()
            }
            y_preds |= {
                ("trees", label): centre + booster.predict(x_holdout) for label, booster in boosters.items()
            }
            for (kind, label), y_pred in y_preds.items():
                score = METRICS["rae"](holdout.y, holdout.move_to_labels(y_pred[:, None]))
                line = {"set": name, "target": matrix.target, "draw": draw, "width": width}
                lines.append({**line, "kind": kind, "label": label, "score": score})
    return lines


def main() -> None:
    """Print the tables."""
    args = arguments(__doc__, SETS, draws=2)
    for split, lines in lines_by_split("interval_losses", errors_of, args):
        for (width, kind), part in lines.groupby(["width", "kind"]):
            first, *others = part["label"].unique()
            scores = part.pivot(
                index=["set", "target", "draw"], columns="label", values="score"
            ).reset_index()
            print(
                f"\n{kind}, holdout by {split}, width {width}: st_rae of {first} {scores[first].mean():.3f}"
            )
            for label in others:
                of_set, interval = over_sets(np.log(scores[label] / scores[first]), scores["set"])
                print(f"  {label:8s} {in_per_cent(interval):26s} {per_set(of_set)}")


if __name__ == "__main__":
    main()
