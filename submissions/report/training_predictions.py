"""What the submission predicts for training rows without their fold; of classes as labels, too."""

import numpy as np

from competition.files import read_table
from competition.types import Array
from submissions.blend.cross_fitting import CrossFitted
from submissions.run import CHOICE, Run, cross_fitted_file, scored_rows


def read_cross_fitted(run: Run, name: str, scored: bool = False) -> CrossFitted:
    """The predictions of a candidate for the training rows, or what the metric scores of them."""
    table = read_table(run.folder / cross_fitted_file(name, scored and run.task.scores_labels))
    return CrossFitted.from_table(
        table, run.columns.ids, len(run.task.scored_columns if scored else run.task.outputs)
    )


def cross_fitted(run: Run) -> Array:
    """What the metric scores, (n_rows, n_scored), by what was fitted and chosen without each row's fold."""
    return scored_rows(run.folder, run.task).loc[run.columns.ids].to_numpy()


def predictions(run: Run) -> Array:
    """The same before a decision, (n_rows, n_outputs): each fold by the candidate that was chosen without it."""
    if not run.task.scores_labels:
        return cross_fitted(run)
    y_pred = np.full((len(run.columns.ids), len(run.task.outputs)), np.nan)
    for fold, name in enumerate(run.stored[CHOICE]["procedure"]["chosen_without_fold"]):
        own = run.columns.folds == fold
        y_pred[own] = read_cross_fitted(run, name).cross_fitted[own]
    return y_pred


def labels(run: Run) -> Array:
    """Labels of classes, (n_rows, n_targets): decided where the metric scores labels, else by what is
    likeliest.
    """
    found = cross_fitted(run)
    return (
        found
        if run.task.scores_labels
        else np.where(np.isnan(found[:, :1]), np.nan, run.task.default_labels(found))
    )
