"""Predictions of the training rows by the whole procedure, each row without its fold."""

import numpy as np

from competition.files import read_table
from competition.types import Array
from submissions.blend.cross_fitting import CrossFitted
from submissions.run import CHOICE, STAGES, Run, cross_fitted_file, scored_rows


def read_cross_fitted(run: Run, name: str) -> CrossFitted:
    """Return the predictions of a candidate for the training rows."""
    table = read_table(run.folder / cross_fitted_file(name))
    return CrossFitted.from_table(table, run.stage_predictions.ids, len(run.task.outputs))


def cross_fitted(run: Run) -> Array:
    """Return what the metric scores, (n_rows, n_scored), fitted and selected without the fold of each row."""
    return scored_rows(run.folder, run.task).loc[run.stage_predictions.ids].to_numpy()


def scored_stages(run: Run) -> dict[str, Array]:
    """Return what the metric scores of each stage, (n_rows, n_scored), each row predicted without its fold."""
    table = read_table(run.folder / STAGES).set_index("id").loc[run.stage_predictions.ids]
    stages: dict[str, Array] = {}
    for stage in run.config.stages:
        stages[stage] = table[[f"{stage} {name}" for name in run.task.scored_columns]].to_numpy()
    return stages


def predictions(run: Run) -> Array:
    """Return predictions (n_rows, n_outputs), fitted and selected without the fold of each row.

    If the metric scores labels, these are the predictions before the decision.
    """
    if not run.task.scores_labels:
        return cross_fitted(run)
    y_pred = np.full((len(run.stage_predictions.ids), len(run.task.outputs)), np.nan)
    for fold, name in enumerate(run.stored[CHOICE]["procedure"]["chosen_without_fold"]):
        in_fold = run.stage_predictions.folds == fold
        y_pred[in_fold] = read_cross_fitted(run, name).cross_fitted[in_fold]
    return y_pred


def labels(run: Run) -> Array:
    """Return class labels, (n_rows, n_targets): by the decision if the metric scores labels, else most probable."""
    y_pred = cross_fitted(run)
    if run.task.scores_labels:
        return y_pred
    return np.where(np.isnan(y_pred[:, :1]), np.nan, run.task.default_labels(y_pred))
