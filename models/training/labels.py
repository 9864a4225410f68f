"""Labels as a regressor sees them: standardised per target, rows without one left out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from competition.errors import DataError

Floats = NDArray[np.float64]


def target_scale(y: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each target over the labels there are, (n_targets,) each; 1 for a constant."""
    scale = np.nanstd(y, axis=0)
    return np.nanmean(y, axis=0), np.where(scale > 0, scale, 1.0)


def require_log1p(y: Floats) -> None:
    """Refuse labels, pseudo-labels among them, that have no logarithm of 1 + y."""
    if np.nanmin(y) <= -1:
        raise DataError(
            f"target_transform: log1p needs targets above -1, pseudo-labels too; the smallest is {np.nanmin(y):g}. "
            "Set power, which takes any number."
        )


def labelled_rows(y: Floats, names: list[str]) -> list[NDArray[np.intp]]:
    """Positions of the rows that have a label, for each target of y (n_rows, n_targets): two of them at least."""
    rows = [np.flatnonzero(~np.isnan(column)) for column in y.T]
    for name, known in zip(names, rows, strict=True):
        if len(known) < 2:
            raise DataError(
                f"target {name!r} must have labels among the training rows of every fold; "
                "use fewer folds or folds.kind stratified."
            )
    return rows
