"""Preparation of labels: standardization, class weights, and checks."""

import numpy as np
from numpy.typing import NDArray

from core.errors import ConfigError, DataError
from core.types import Array, ProblemType


def target_scale(y: Array, has_classes: bool = False) -> tuple[Array, Array]:
    """Return mean and standard deviation of each target without missing labels, (n_targets,) each.

    The standard deviation of a constant is 1. For classes, and for an auxiliary target without any label,
    they are 0 and 1, so that labels are unchanged.
    """
    if has_classes:
        return np.zeros(y.shape[1]), np.ones(y.shape[1])
    y = np.where(np.isnan(y).all(axis=0), 0.0, y)
    scale = np.nanstd(y, axis=0)
    return np.nanmean(y, axis=0), np.where(scale > 0, scale, 1.0)


def balanced_weights(y: Array, weights: Array | float = 1.0) -> Array:
    """Return weights with the same total for each class of a target: n / (K n_c), as in scikit-learn.

    Args:
        y: class indices, (n_rows, n_targets), NaN if missing.
        weights: weights before balancing, broadcast to that shape; n and n_c are sums of them.

    Returns:
        Weights (n_rows, n_targets) with the same sum per target as before; 0 for missing labels.
    """
    balanced = np.where(np.isnan(y), 0.0, weights)
    for labels, column in zip(y.T, balanced.T, strict=True):
        which = np.unique(labels, return_inverse=True)[1]
        totals = np.bincount(which, column)  # the total of NaN is 0
        column *= column.sum() / (max((totals > 0).sum(), 1) * np.where(totals > 0, totals, 1.0))[which]
    return balanced


def with_bounds(y: Array, bounds: Array) -> tuple[Array, Array]:
    """Return labels with the bounds of censored ones in their place, and which are bounds; (n_rows, n_targets) each.

    The second array is 1 for a lower bound, -1 for an upper bound and 0 for other labels.

    Args:
        y: NaN for missing and censored labels.
        bounds: (n_rows, n_targets, 2), lower and upper bound, NaN without one.
    """
    has_lower, has_upper = np.moveaxis(~np.isnan(bounds), 2, 0)
    labels = np.where(has_lower, bounds[..., 0], np.where(has_upper, bounds[..., 1], y))
    return labels, has_lower * 1.0 - has_upper * 1.0


def require_auxiliary(y: Array, names: list[str], problem_type: ProblemType) -> None:
    """Raise a ConfigError if auxiliary targets (n_rows, n_auxiliary) cannot be learned with the targets.

    Args:
        problem_type: what the stage learns.
    """
    not_binary = []
    for name, column in zip(names, y.T, strict=True):
        if set(column[~np.isnan(column)]) - {0, 1}:
            not_binary.append(name)
    if problem_type == "multiclass" and names:
        error = "cannot be learned with a multiclass target"
    elif problem_type != "regression" and not_binary:
        error = f"must be 0 or 1 in classification, and {', '.join(not_binary)} has other numbers"
    else:
        return
    raise ConfigError(f"auxiliary_targets {error}; remove them, or set auxiliary_weight: 0 in this stage.")


def require_log1p(y: Array) -> None:
    """Raise a DataError if 1 + y has no logarithm for a label, or a pseudo-label."""
    if np.nanmin(y) <= -1:
        raise DataError(
            f"target_transform: log1p needs targets and pseudo-labels above -1; got {np.nanmin(y):g}. Set power, "
            "which takes any number."
        )


def labelled_rows(y: Array, names: list[str]) -> list[NDArray[np.intp]]:
    """Return the positions of the labelled rows per target of y (n_rows, n_targets).

    Raises:
        DataError: if a target has fewer than two labels.
    """
    rows = [np.flatnonzero(~np.isnan(column)) for column in y.T]
    for name, labelled in zip(names, rows, strict=True):
        if len(labelled) < 2:
            raise DataError(
                f"target {name!r} must have labels among the training rows of every fold; "
                "use fewer folds or folds.kind stratified, or remove the target."
            )
    return rows
