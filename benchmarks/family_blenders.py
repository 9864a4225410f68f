"""Should a blend limit the weight of stages that share an encoder, or refuse negative weights?

    python -m benchmarks.family_blenders --data FOLDER_WITH_COMPETITIONS --cache FOLDER [--draws 2] [--sets ...]

Ten stages, of which five read MiniMol's vectors and two rxnfp's (`oof_matrices.FAMILY_STAGES`), are fitted on half of
at most 2,000 rows of each set. The other half is the holdout. It is drawn by rows or by Murcko scaffolds; in the second
case its molecules are unlike those that the blend was fitted on, and so are the folds of the training half. Draws 2 i
and 2 i + 1 swap the halves. None of the sets has dates, so there is no holdout by time.

The error is the RMSE on the holdout of the blend of the columns averaged over the folds' models. The table has the
ratio to the default blend, as a mean over sets with a 95 % interval by a bootstrap that draws sets, and each set.

Compared:
    non-negative: the default with a correction that leaves no weight below 0;
    cap .5, cap .33: the default, scaled so that no encoder has more than this share of the sum of absolute weights;
    convex: weights of at least 0 with sum 1.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from benchmarks.blenders import DEFAULT, matrices_of, predict, rmse
from benchmarks.oof_matrices import (
    FAMILY_STAGES,
    HALVES,
    arguments,
    cached_lines,
    family_matrices,
    in_per_cent,
    over_sets,
    per_set,
)
from submissions.blend import solvers
from submissions.blend.candidates import CANDIDATES, Blend, WeightedCandidate
from submissions.blend.weight_problem import Solution, WeightProblem

SETS = [
    "esol",
    "photoswitch",
    "biogen_adme",
    "qm9_electronic",
    "chembl204_ki",
    "chembl218_ec50",
    "chembl287_ki",
]
FAMILIES = [
    np.array([encoder in str(settings) for settings in FAMILY_STAGES.values()])
    for encoder in ("minimol", "rxnfp")
]
"""For each encoder a mask of the stages that read it."""


def sets_of(split: str, names: list[str]) -> list[str]:
    """Return the sets that can be divided so: photoswitch has hardly more than one scaffold."""
    return [name for name in names if name in SETS and (split == "rows" or name != "photoswitch")]


def lines_by_split(
    prefix: str, lines_of: Callable[..., list[Any]], args: argparse.Namespace
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield how the holdout is drawn, and the lines of all sets that can be divided so, made or kept.

    Args:
        lines_of: a function of set, draw, split, data and cache.
    """
    for split in HALVES:
        of_split = argparse.Namespace(**{**vars(args), "sets": sets_of(split, args.sets)})
        if of_split.sets:
            make = partial(lines_of, split=split, data=args.data, cache=args.cache)
            yield split, pd.DataFrame(cached_lines(f"{prefix}_{split}", make, of_split))


class NonNegativeRidge(solvers._ShrunkRidge):
    """Weights of the shrunk ridge that are at least 0."""

    def weights(self, towards_common: float, penalty: float) -> np.ndarray:
        start = towards_common * self.pooled_weights + (1 - towards_common) * self.convex_weights
        with_residual = np.einsum("pij,pj->pi", self.products.with_errors, start)
        found = []
        for gram, w0, right in zip(self.products.gram, start, with_residual, strict=True):
            # |y - X w|^2 + penalty |w - w0|^2 has the normal equations (gram + penalty) w = right + (gram + penalty) w0
            penalized = gram + penalty * np.eye(len(gram))
            lower = np.linalg.cholesky(penalized)
            found.append(nnls(lower.T, np.linalg.solve(lower, right + penalized @ w0))[0])
        return np.array(found)


def non_negative(problem: WeightProblem) -> Solution:
    """Find the weights of the default blend under the condition that none is below 0."""
    signed = solvers._ShrunkRidge
    solvers._ShrunkRidge = NonNegativeRidge
    try:
        return solvers.shrunk_ridge(problem)
    finally:
        solvers._ShrunkRidge = signed


def capped(blend: Blend, largest_share: float) -> Blend:
    """Scale the weights so that no family has more than a share of the absolute weights; their sum is kept."""
    weights = blend.weights.copy()
    for family in FAMILIES:
        share = np.abs(weights[family]).sum() / np.abs(weights).sum()
        rest = weights[~family].sum()
        if share <= largest_share or rest <= 0:
            continue
        of_family = np.abs(weights[family]).sum()
        of_rest = np.abs(weights[~family]).sum()
        factor = largest_share / (1 - largest_share) * of_rest / of_family
        total = weights.sum()
        weights[family] *= factor
        weights *= total / weights.sum()
    return Blend(weights, blend.intercept)


def errors_of(name: str, draw: int, split: str, data: Path, cache: Path) -> list[dict]:
    """Return a line for each target and blend."""
    lines = []
    for matrix in family_matrices(name, draw, split, data, cache):
        columns = matrix.holdout.mean(axis=0)
        default = CANDIDATES[DEFAULT].fit(matrices_of(matrix))
        blends = {
            "default": default,
            "non-negative": WeightedCandidate(non_negative).fit(matrices_of(matrix)),
            "cap .5": capped(default, 0.5),
            "cap .33": capped(default, 1 / 3),
            "convex": CANDIDATES["convex"].fit(matrices_of(matrix)),
        }
        weights = np.abs(default.weights)
        shares = [float(weights[family].sum() / weights.sum()) for family in FAMILIES]
        line = {"set": name, "split": split, "target": matrix.target, "draw": draw, "share": shares[0]}
        for label, blend in blends.items():
            lines.append({**line, "blend": label, "error": rmse(matrix.y_holdout, predict(blend, columns))})
    return lines


def main() -> None:
    """Print the tables."""
    args = arguments(__doc__, SETS, draws=2)
    for split, lines in lines_by_split("families", errors_of, args):
        errors = lines.pivot(index=["set", "target", "draw"], columns="blend", values="error").reset_index()
        share = lines.groupby("set")["share"].mean()
        print(
            f"\nholdout by {split}: {len(errors)} blends; MiniMol's share of the default's weights: ", end=""
        )
        print(", ".join(f"{name} {value:.2f}" for name, value in share.items()))
        for label in lines["blend"].unique():
            if label == "default":
                continue
            of_set, interval = over_sets(np.log(errors[label] / errors["default"]), errors["set"])
            print(f"  {label:13s} {in_per_cent(interval):26s} {per_set(of_set)}")


if __name__ == "__main__":
    main()
