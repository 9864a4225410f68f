"""Losses of blends on the rows of a weight problem, for many vectors of weights at once.

The loss is cross-fitted if the weights for each fold were fitted without it. Regression blends are
scored in the objective of the metric: squared errors from sums over folds, absolute errors or the
metric itself from rows. Blends of probabilities are scored by `WeightProblem.tuning_metric`, from rows.
"""

import numpy as np

from competition.metrics import Metric
from competition.types import Array
from submissions.blend.logits import logits, probabilities
from submissions.blend.weight_problem import WeightProblem


def blend_losses(
    problem: WeightProblem, weights: Array, intercepts: Array | float = 0.0, in_logits: bool = False
) -> Array:
    """Return the loss of each blend on the rows of a problem, (n_blends,); lower is better.

    Args:
        weights: (n_folds, n_blends, n_models), for each fold of the problem those fitted without it; or
            (n_blends, n_models), the same for all folds.
        intercepts: (n_folds, n_blends), in standard units of the labels outside each fold; for
            regression.
        in_logits: whether the weights are weights of logits.
    """
    weights = np.broadcast_to(weights, (len(problem.folds), *weights.shape[-2:]))
    targets = problem.labelled_targets
    if problem.data.has_probabilities:
        return np.mean([_probability_losses(problem, t, weights, in_logits) for t in targets], axis=0)
    fold_intercepts = np.broadcast_to(intercepts, weights.shape[:2])
    parts = zip(problem.leave_one_fold_out, weights, fold_intercepts, strict=True)
    # (n_targets, n_folds, n_blends)
    added = np.stack([part.intercepts_in_label_units(*blends) for part, *blends in parts], axis=1)
    losses_of_target = _squared_losses if problem.data.convex_objective == "squared" else _row_losses
    return np.mean([losses_of_target(problem, t, weights, added[t]) for t in targets], axis=0)


def _squared_losses(problem: WeightProblem, target: int, weights: Array, added: Array) -> Array:
    """Return mean squared errors in standard units, (n_blends,), from `fold_products`.

    Args:
        weights: (n_folds, n_blends, n_models).
        added: intercepts in the unit of the label, (n_folds, n_blends).
    """
    stats = problem.label_stats
    missing_weight = 1 - weights.sum(axis=2)
    # The error of a blend is `residual` times z = (1, y - label_offset, y - base predictions).
    residual = np.dstack([missing_weight * problem.label_offset[target] - added, missing_weight, weights])
    products = np.stack([problem.fold_products[fold][target] for fold in problem.folds])
    squares = (residual @ products) * residual
    return squares.sum(axis=(0, 2)) / stats.count[target] / stats.std[target] ** 2


def _row_losses(problem: WeightProblem, target: int, weights: Array, added: Array) -> Array:
    """Return mean absolute errors in standard units, or losses of the metric, (n_blends,)."""
    fold_labels: list[Array] = []
    fold_preds: list[Array] = []
    for fold, fold_weights, fold_added in zip(problem.folds, weights, added, strict=True):
        x, y = problem.rows[target][fold]
        fold_labels.append(y)
        fold_preds.append(x @ fold_weights.T + fold_added)
    labels = np.concatenate(fold_labels)
    y_pred = np.vstack(fold_preds)
    if problem.data.convex_objective == "absolute":
        return np.abs(labels[:, None] - y_pred).mean(axis=0) / problem.label_stats.std[target]
    metric = problem.data.metric
    return _as_losses(metric, np.array([metric.score_column(labels, blend_pred) for blend_pred in y_pred.T]))


def _probability_losses(problem: WeightProblem, target: int, weights: Array, in_logits: bool) -> Array:
    """Return losses of the tuning metric, (n_blends,).

    A metric of ranks is averaged over folds: predictions of different folds' models are not on the same
    scale.
    """
    metric = problem.tuning_metric
    n_outputs = problem.data.outputs_per_target
    link = problem.data.link if in_logits else "identity"
    fold_labels: list[Array] = []
    fold_preds: list[Array] = []  # (n_blends, n_rows, n_outputs) each
    for fold, fold_weights in zip(problem.folds, weights, strict=True):
        x, y = problem.rows[target][fold]
        y = y.reshape(-1, n_outputs)
        sums = (logits(x, link) @ fold_weights.T).reshape(-1, n_outputs, len(fold_weights))
        fold_labels.append(y if n_outputs == 1 else y.argmax(axis=1)[:, None].astype(np.float64))
        fold_preds.append(np.moveaxis(probabilities(sums.swapaxes(1, 2), link), 1, 0))
    if metric.kind != "ranks":
        fold_labels = [np.concatenate(fold_labels)]
        fold_preds = [np.concatenate(fold_preds, axis=1)]
    scores = []
    for y, blend_preds in zip(fold_labels, fold_preds, strict=True):
        scores.append([metric(y, y_pred) for y_pred in blend_preds])
    return _as_losses(metric, np.mean(scores, axis=0))


def _as_losses(metric: Metric, scores: Array) -> Array:
    """Return scores as something to minimize; infinite where they are undefined."""
    return np.nan_to_num(-scores if metric.greater_is_better else scores, nan=np.inf)
