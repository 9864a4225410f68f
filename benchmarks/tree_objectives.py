"""Should LightGBM minimize absolute errors if the metric is the MAE?

    python -m benchmarks.tree_objectives --data FOLDER_WITH_COMPETITIONS --cache FOLDER [--draws 1] [--sets ...]

The stages below are fitted on half of at most 2,000 rows of each set, and their folds' models are averaged on the other
half, drawn by rows or by Murcko scaffolds, as in `family_blenders`. The tables have the MAE on the holdout relative to
that of squared errors, in per cent: mean over sets with a 95 % interval by a bootstrap that draws sets, and each set.
"""

from pathlib import Path

import numpy as np

from benchmarks.family_blenders import SETS, lines_by_split
from benchmarks.oof_matrices import (
    arguments,
    cached_parts,
    in_per_cent,
    matrices_of_parts,
    over_sets,
    per_set,
)

STAGES: dict[str, dict] = {
    "squared": {"kind": "lightgbm"},
    "absolute": {"kind": "lightgbm", "parameters": {"objective": "regression_l1"}},
    "huber": {"kind": "lightgbm", "parameters": {"objective": "huber", "alpha": 0.5}},
}


def errors_of(name: str, draw: int, split: str, data: Path, cache: Path) -> list[dict]:
    """Return a line for each target and stage."""
    parts = cached_parts(f"objectives_{split}", name, draw, data, cache, STAGES, split)
    lines = []
    for matrix in matrices_of_parts(name, draw, parts):
        errors = np.abs(matrix.holdout.mean(axis=0) - matrix.y_holdout[:, None]).mean(axis=0)
        line = {"set": name, "target": matrix.target, "draw": draw}
        lines += [{**line, "stage": stage, "mae": mae} for stage, mae in zip(STAGES, errors, strict=True)]
    return lines


def main() -> None:
    """Print the tables."""
    args = arguments(__doc__, SETS, draws=1)
    for split, lines in lines_by_split("objectives", errors_of, args):
        errors = lines.pivot(index=["set", "target", "draw"], columns="stage", values="mae").reset_index()
        print(f"\nholdout by {split}: {len(errors)} targets")
        for stage in ("absolute", "huber"):
            of_set, interval = over_sets(np.log(errors[stage] / errors["squared"]), errors["set"])
            print(f"  {stage:8s} {in_per_cent(interval):26s} {per_set(of_set)}")


if __name__ == "__main__":
    main()
