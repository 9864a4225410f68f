"""Predictions of a candidate for the rows it is scored on, without their labels.

A candidate predicts the training rows in three ways:

- in sample: it is fitted on all rows and predicts the same rows. The score of these predictions is
  optimistic.
- cross-fitted: each row is predicted by a fit without the row's fold.
- nested, for each fold k: each row is predicted by a fit without the row's fold and without fold k. The
  selection rule compares candidates by these predictions when it chooses one for fold k, so that no
  label of fold k is used.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from competition.types import Array
from submissions.blend.candidates import Candidate
from submissions.blend.weight_problem import NO_FOLDS, BlendData, FoldSet


def prediction_table(ids: list[str], names: list[str], values: Array) -> pd.DataFrame:
    """Return a table with the column `id` and one column per name, filled with `values` (n_rows, n_names)."""
    return pd.DataFrame(values, ids, names).rename_axis("id").reset_index()


@dataclass(frozen=True)
class CrossFitted:
    """Predictions of one candidate for the training rows, or what the metric scores of them.

    Rows with fold -1 are NaN.

    Attributes:
        in_sample: (n_rows, n_outputs), fitted on all rows.
        cross_fitted: (n_rows, n_outputs), each row predicted without its fold.
        nested: (n_folds, n_rows, n_outputs); `nested[k]` is `cross_fitted` without fold k, NaN for the
            rows of fold k.
        fitted: the predictor that made `in_sample`; None if the predictions come from a file.
    """

    in_sample: Array
    cross_fitted: Array
    nested: Array
    fitted: Any = None

    def table(self, ids: list[str], outputs: list[str]) -> pd.DataFrame:
        """Return all predictions as a table with columns such as `cross_fitted y` and `without_fold_0 y`."""
        parts = ["in_sample", "cross_fitted", *(f"without_fold_{fold}" for fold in range(len(self.nested)))]
        names = [f"{part} {output}" for part, output in product(parts, outputs)]
        return prediction_table(ids, names, np.hstack([self.in_sample, self.cross_fitted, *self.nested]))

    @staticmethod
    def from_table(table: pd.DataFrame, ids: list[str], n_outputs: int) -> "CrossFitted":
        """Return the predictions that `table` was made from, with the rows in the order of `ids`."""
        values = table.set_index("id").loc[ids].to_numpy().reshape(len(ids), -1, n_outputs)
        return CrossFitted(values[:, 0], values[:, 1], np.moveaxis(values[:, 2:], 1, 0))


def cross_fit(candidate: Candidate, data: BlendData) -> CrossFitted:
    """Return all predictions of a candidate that its scores and the selection rule need."""
    has_fold = data.rows_outside(NO_FOLDS)
    fitted = candidate.fit(data)
    in_sample = np.full((len(data.folds), data.preds.shape[2]), np.nan)
    in_sample[has_fold] = fitted.predict(data.preds[has_fold])
    return CrossFitted(
        in_sample=in_sample,
        cross_fitted=cross_fitted(candidate, data),
        nested=nested_predictions(candidate, data),
        fitted=fitted,
    )


def nested_predictions(candidate: Candidate, data: BlendData) -> Array:
    """Return for each fold the cross-fitted predictions without it, (n_folds, n_rows, n_outputs)."""
    n_folds = int(data.folds.max()) + 1
    return np.stack([cross_fitted(candidate, data, frozenset({fold})) for fold in range(n_folds)])


def cross_fitted(candidate: Candidate, data: BlendData, excluded_folds: FoldSet = NO_FOLDS) -> Array:
    """Predict each row by a fit without the row's fold and without `excluded_folds`.

    Returns:
        (n_rows, n_outputs), NaN for rows of the excluded folds and of fold -1.
    """
    y_pred = np.full((len(data.folds), data.preds.shape[2]), np.nan)
    for fold in set(data.folds[data.rows_outside(excluded_folds)].tolist()):
        in_fold = data.folds == fold
        y_pred[in_fold] = candidate.fit(data, excluded_folds | {fold}).predict(data.preds[in_fold])
    return y_pred
