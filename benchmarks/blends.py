"""Do the blends hold outside the rows they were fitted on, and how long do they take?

    python -m benchmarks.blends --data FOLDER_WITH_COMPETITIONS --cache FOLDER [--draws 2] [--sets ...]

Out-of-fold predictions of cheap stages are made once (oof_matrices.py) and kept in --cache. The error is that of a
candidate on the holdout, where each stage predicts by the mean of its five fold models, as a submission has it: RMSE of
numbers, log loss of classes. The table has the geometric mean of its ratio to the default's error over the targets and
draws of a set, and over the sets, with a 95 % interval that draws sets; and the seconds of the fit on all rows and
without each fold.
"""

import time
from functools import partial

import numpy as np
import pandas as pd

from benchmarks.oof_matrices import (
    ALL_SETS,
    SETS,
    Matrix,
    arguments,
    cached_lines,
    class_matrices,
    in_per_cent,
    matrices,
    over_sets,
    per_set,
)
from competition.metrics import METRICS
from competition.task import Task
from submissions.blend.candidates import CANDIDATES, LIGHTGBM_STACK, fit_candidate
from submissions.blend.data import BlendData
from submissions.blend.selection import cross_fit
from submissions.blend.stack import fit_stack

OF_NUMBERS = [name for name in CANDIDATES if name != "shrunk_logits"]
OF_CLASSES = ["best_single", "mean", "convex", "shrunk_logits"]


def data_of(matrix: Matrix, metric: str = "rmse") -> BlendData:
    """Return the columns of a target, on which nothing is fitted yet."""
    task = Task(["y"])
    if METRICS[metric].types != ("regression",):
        n_outputs = matrix.oof.shape[2]
        classes = [str(number) for number in range(max(2, n_outputs))]
        task = Task(["y"], problem_type="multiclass" if n_outputs > 1 else "binary", classes=classes)
    preds = matrix.oof.reshape(*matrix.oof.shape[:2], -1)
    y = matrix.y[:, None].astype(np.float64)
    return BlendData(
        metric=METRICS[metric], task=task, y=y, folds=matrix.folds, groups=np.arange(len(y)), preds=preds
    )


def lines_of(matrix: Matrix, metric: str, names: list[str]) -> list[dict]:
    """Return a line for each candidate: its error on the holdout, and the seconds of its K + 1 fits."""
    holdout = matrix.holdout.mean(axis=0).reshape(*matrix.holdout.shape[1:3], -1)
    default = "shrunk_ridge" if metric == "rmse" else "shrunk_logits"
    lines = []
    for name in [*names, LIGHTGBM_STACK]:
        data = data_of(matrix, metric)
        fit = (
            partial(fit_stack, data, default)
            if name == LIGHTGBM_STACK
            else partial(fit_candidate, data, name)
        )
        started = time.process_time()
        fitted = cross_fit(data, fit).whole
        seconds = time.process_time() - started
        error = METRICS[metric](matrix.y_holdout[:, None].astype(np.float64), fitted.outputs(holdout))
        target = {"set": matrix.set_name, "target": matrix.target, "draw": matrix.draw}
        lines.append({**target, "candidate": name, "error": error, "seconds": seconds})
    return lines


def main() -> None:
    """Print the table of numbers and that of classes."""
    args = arguments(__doc__, ALL_SETS, draws=2)
    asked = args.sets

    def of_numbers(name: str, draw: int) -> list[dict]:
        parts = matrices(name, draw, args.data, args.cache)
        return [line for matrix in parts for line in lines_of(matrix, "rmse", OF_NUMBERS)]

    def of_classes(name: str, draw: int) -> list[dict]:
        parts = class_matrices(name, draw, args.data, args.cache)
        return [line for matrix in parts for line in lines_of(matrix, "log_loss", OF_CLASSES)]

    kinds = {
        "numbers": (of_numbers, "shrunk_ridge", [name for name in asked if name in SETS]),
        "classes": (of_classes, "shrunk_logits", asked),
    }
    for kind, (lines, default, args.sets) in kinds.items():
        table = pd.DataFrame(cached_lines(f"blends_{kind}", lines, args))
        print(f"\n{kind}: {len(table) // table['candidate'].nunique()} targets and draws")
        for name, rows in table.groupby("candidate", sort=False):
            of_default = table[table["candidate"] == default]["error"].to_numpy()
            of_set, interval = over_sets(np.log(rows["error"] / of_default), rows["set"])
            print(
                f"  {name:15s} {in_per_cent(interval)}  {rows['seconds'].median():.2f} s  {per_set(of_set)}"
            )


if __name__ == "__main__":
    main()
