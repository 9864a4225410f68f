"""Labels as stages see them: standardised per target, weighted by class, rows without one left out."""

import numpy as np
from numpy.typing import NDArray

from competition.errors import ConfigError, DataError
from competition.types import Array, ProblemType


def target_scale(y: Array, has_classes: bool = False) -> tuple[Array, Array]:
    """Mean and standard deviation of each target over the labels there are, (n_targets,) each; 1 for a
    constant. Of classes 0 and 1, which leave their numbers as they are.
    """
    if has_classes:
        return np.zeros(y.shape[1]), np.ones(y.shape[1])
    scale = np.nanstd(y, axis=0)
    return np.nanmean(y, axis=0), np.where(scale > 0, scale, 1.0)


def balanced_weights(y: Array, weights: Array | float = 1.0) -> Array:
    """Weights with which each class of a target has the same total: n / (K n_c), as scikit-learn balances
    classes.

    Args:
        y: numbers of classes, (n_rows, n_targets), NaN where there is no label.
        weights: of the labels before, broadcast to that shape; n and n_c are sums of them.

    Returns:
        (n_rows, n_targets) with the same sum for each target as before; 0 where there is no label.
    """
    balanced = np.where(np.isnan(y), 0.0, weights)
    for labels, column in zip(y.T, balanced.T, strict=True):
        which = np.unique(labels, return_inverse=True)[1]
        totals = np.bincount(which, column)  # that of NaN is 0
        column *= column.sum() / (max((totals > 0).sum(), 1) * np.where(totals > 0, totals, 1.0))[which]
    return balanced


def require_auxiliary(y: Array, names: list[str], learns: ProblemType) -> None:
    """Refuse auxiliary targets (n_rows, n_auxiliary) that cannot be learned beside the classes that a stage
    learns.
    """
    numbers = ", ".join(
        name for name, column in zip(names, y.T, strict=True) if set(column[~np.isnan(column)]) - {0, 1}
    )
    if learns == "multiclass" and names:
        wrong = "cannot be learned beside a target of several classes"
    elif learns != "regression" and numbers:
        wrong = f"must be 0 or 1 beside classes, and {', '.join(numbers)} has other numbers"
    else:
        return
    raise ConfigError(f"auxiliary_targets {wrong}; take them out, or set auxiliary_weight: 0 in this stage.")


def require_log1p(y: Array) -> None:
    """Refuse labels, pseudo-labels among them, that have no logarithm of 1 + y."""
    if np.nanmin(y) <= -1:
        raise DataError(
            f"target_transform: log1p needs targets above -1, pseudo-labels too; the smallest is "
            f"{np.nanmin(y):g}. "
            "Set power, which takes any number."
        )


def labelled_rows(y: Array, names: list[str]) -> list[NDArray[np.intp]]:
    """Positions of the rows that have a label, for each target of y (n_rows, n_targets): two of them at
    least.
    """
    rows = [np.flatnonzero(~np.isnan(column)) for column in y.T]
    for name, known in zip(names, rows, strict=True):
        if len(known) < 2:
            raise DataError(
                f"target {name!r} must have labels among the training rows of every fold; "
                "use fewer folds or folds.kind stratified, or take the target out."
            )
    return rows
