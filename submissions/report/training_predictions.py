"""Predictions of the training rows by the submission and the stages, each row without its fold."""

import numpy as np

from core.files import read_table
from core.types import Array
from submissions.run import CROSS_FITTED, PREDICTION, STAGES, Run, scored_rows


def cross_fitted(run: Run) -> Array:
    """Return what the metric scores of the submission, (n_rows, n_scored), fitted without the fold of each row."""
    table = scored_rows(run.folder, run.task).loc[run.columns.ids]
    return table[run.task.scored_columns].to_numpy()


def scored_stages(run: Run) -> dict[str, Array]:
    """Return what the metric scores of each stage, (n_rows, n_scored), each row predicted without its fold."""
    table = read_table(run.folder / STAGES).set_index("id").loc[run.columns.ids]
    stages: dict[str, Array] = {}
    for stage in run.config.stages:
        stages[stage] = table[[f"{stage} {name}" for name in run.task.scored_columns]].to_numpy()
    return stages


def predictions(run: Run) -> Array:
    """Return predictions of the submission, (n_rows, n_outputs), fitted without the fold of each row.

    If the metric scores labels, these are the predictions before the decision.
    """
    if not run.task.scores_labels:
        return cross_fitted(run)
    table = read_table(run.folder / CROSS_FITTED, ["id"]).set_index("id").loc[run.columns.ids]
    return table[[f"{PREDICTION}{output}" for output in run.task.outputs]].to_numpy()


def labels(run: Run) -> Array:
    """Return class labels, (n_rows, n_targets): by the decision if the metric scores labels, else most probable."""
    y_pred = cross_fitted(run)
    if run.task.scores_labels:
        return y_pred
    return np.where(np.isnan(y_pred[:, :1]), np.nan, run.task.default_labels(y_pred))
