"""Does an affine correction of predictions gain under shift, if it is fitted on rows that are like test rows?

    python -m benchmarks.affine_to_test --data FOLDER_WITH_COMPETITIONS --cache FOLDER [--draws 2] [--sets ...]

The blends, holdouts and odds of similar rows are those of benchmarks/expected_score.py. A line a + b x prediction is
fitted on the out-of-fold predictions of the default blend by least squares, with equal weights or with the odds that a
row with this similarity to its training molecules is a test row, clipped to 1/3 and 3. It corrects test predictions.

The table has the change of the error on the test rows in per cent, below 0 better: the mean over targets and draws, the
largest loss, and the number of runs that gain and lose. "judged": the line is used only if its squared errors, weighted
and fitted without the fold, are lower by two standard errors.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.blenders import DEFAULT, matrices_of, predict
from benchmarks.expected_score import matrices_with_similarities
from benchmarks.family_blenders import SETS, lines_by_split
from benchmarks.oof_matrices import Matrix, arguments
from competition.types import Array
from submissions.blend.candidates import CANDIDATES
from submissions.blend.cross_fitting import cross_fitted
from submissions.expected_score import odds_of_test_row

MARGIN = 2.0
MAX_ODDS = 3.0


def fit_line(y_pred: Array, y: Array, weights: Array) -> Array:
    """Return slope and intercept by weighted least squares."""
    return np.polyfit(y_pred, y, 1, w=np.sqrt(weights))


def is_clearly_better(y_pred: Array, y: Array, folds: Array, weights: Array) -> bool:
    """Return whether lines that are fitted without the fold of a row lower its squared error by the margin."""
    corrected = np.empty_like(y_pred)
    for fold in np.unique(folds):
        rest = folds != fold
        corrected[~rest] = np.polyval(fit_line(y_pred[rest], y[rest], weights[rest]), y_pred[~rest])
    gains = weights * ((y - y_pred) ** 2 - (y - corrected) ** 2)
    return bool(gains.mean() > MARGIN * gains.std() / np.sqrt(len(gains)))


def changes(matrix: Matrix, odds: Array) -> dict[str, float]:
    """Return the change of both errors in per cent, for each way to fit the line."""
    data = matrices_of(matrix)
    default = CANDIDATES[DEFAULT]
    y_pred = cross_fitted(default, data)[:, 0]
    blend = default.fit(data)
    y_test = np.mean([predict(blend, columns) for columns in matrix.holdout], axis=0)
    found = {}
    for label, weights in (("all rows", np.ones(len(y_pred))), ("similar rows", odds)):
        corrected = np.polyval(fit_line(y_pred, matrix.y, weights), y_test)
        is_used = is_clearly_better(y_pred, matrix.y, matrix.folds, weights)
        for name, prediction in ((label, corrected), (f"{label}, judged", corrected if is_used else y_test)):
            errors = [matrix.y_holdout - each for each in (y_test, prediction)]
            before, after = (np.sqrt(np.mean(error**2)) for error in errors)
            found[f"RMSE, {name}"] = 100 * (after / before - 1)
            before, after = (np.mean(np.abs(error)) for error in errors)
            found[f"MAE, {name}"] = 100 * (after / before - 1)
    return found


def lines_of_run(name: str, draw: int, split: str, data: Path, cache: Path) -> list[dict[str, Any]]:
    """Return a line for each target."""
    lines = []
    for matrix, of_train, of_test, _ in matrices_with_similarities(name, split, draw, data, cache):
        odds = odds_of_test_row(of_train, of_test).clip(1 / MAX_ODDS, MAX_ODDS)
        lines.append({"set": name, "target": matrix.target, "draw": draw, **changes(matrix, odds)})
    return lines


def main() -> None:
    """Print the table of each split."""
    args = arguments(__doc__, SETS, draws=2)
    for split, lines in lines_by_split("affine", lines_of_run, args):
        table = lines.drop(columns=["set", "target", "draw"])
        summary = pd.DataFrame({"mean": table.mean(), "largest loss": table.max()})
        summary["gain"], summary["lose"] = (table < 0).sum(), (table > 0).sum()
        print(f"\nholdout by {split}: {len(table)} runs\n{summary.to_string(float_format='{:+.2f}'.format)}")


if __name__ == "__main__":
    main()
