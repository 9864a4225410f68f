"""The score to expect of a submission: the cross-fitted score, with an error that counts the rows of both tables.

A test row gets the mean of all fold models, which is a little better than the one that predicts it out of
fold. Where test rows differ from training rows, the score is between this one and that of `submissions.shift`.
docs/benchmarks.md has how often that holds.
"""

import numpy as np
import pandas as pd

from core.errors import join_first
from core.text import format_number
from folds.comparison import read_comparison
from submissions.blend.selection import CrossFit
from submissions.manifest import Expected
from submissions.run import Run
from submissions.shift import expected_under_shift

MIN_ROWS = 30
"""Number of test rows below which their predictions are not compared with those of training rows."""
MAX_DISTANCE = 0.5
MAX_RATIO = 1.5
"""Limits for the test predictions: distance of their mean, in standard deviations of those out of fold, and ratio of
the two standard deviations in either direction."""


def expected_score(run: Run, chosen: CrossFit, compared: pd.Series) -> Expected:
    """Return the score to expect on the test table.

    Args:
        compared: row of `Selection.compared` of the chosen candidate.
    """
    columns = run.columns
    n_rows, n_test_rows = int(columns.has_fold.sum()), len(columns.test_ids)
    score = compared["score"]
    comparison = read_comparison(run.paths)
    return Expected(
        score=score,
        standard_error=compared["score_standard_error"] * np.sqrt(1 + n_rows / n_test_rows),
        shift=expected_under_shift(comparison, run.metric, score) if comparison else None,
        warnings=compare_predictions(run, chosen),
    )


def compare_predictions(run: Run, chosen: CrossFit) -> list[str]:
    """Return a warning about test predictions with another mean or spread than those out of fold; [] without one."""
    test = chosen.final.outputs(run.columns.test)
    out_of_fold = chosen.outputs[run.columns.has_fold]
    if len(test) < MIN_ROWS:
        return []
    means, stds = out_of_fold.mean(axis=0), out_of_fold.std(axis=0)
    test_means, test_stds = test.mean(axis=0), test.std(axis=0)
    differs = np.abs(test_means - means) > MAX_DISTANCE * stds
    differs |= (test_stds > MAX_RATIO * stds) | (stds > MAX_RATIO * test_stds)
    found = [
        f"{name} {format_number(test_means[k])} +- {format_number(test_stds[k])}, not {format_number(means[k])} +- "
        f"{format_number(stds[k])}"
        for k, name in enumerate(run.task.outputs)
        if differs[k]
    ]
    if not found:
        return []
    return [
        "WARNING: test predictions differ in mean or standard deviation from out-of-fold ones: "
        f"{join_first(found, str)}."
    ]
