"""The stack of one target: a few small trees (LightGBM) on the columns, for what the default blend leaves.

Blend, scaling, residual and number of trees come from the rows it is fitted on, so it can be refitted without a fold
as a whole. With no tree it is the blend, which it becomes where trees do not clearly help inside those rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from competition.metrics import Array
from submissions.target import NONE, Blend, Folds, Target

MOST_TREES = 300
PATIENCE = 30
PARAMETERS: dict[str, Any] = {
    "num_leaves": 3,  # two splits: with three, memorising columns and near-duplicates were taken for a gain
    "learning_rate": 0.05,
    "lambda_l2": 20.0,  # a leaf of 20 rows moves half as far as their mean
    "min_data_in_leaf": 20,  # a handful of near-duplicates cannot have a leaf of their own
    "max_bin": 63,
    "boost_from_average": False,  # the mean residual is shrunk like everything else
    "feature_pre_filter": False,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "seed": 0,
    "verbosity": -1,
}


@dataclass(frozen=True)
class Stack:
    """A blend and the trees that correct it.

    centre, spread: of the blend's predictions on the rows fitted on; columns and residual are scaled by them.
    order: positions of the columns as the trees number them.
    trees: a model in LightGBM's text format; None is the blend alone.
    """

    blend: Blend
    centre: float
    spread: float
    order: list[int]
    n_trees: int = 0
    trees: str | None = None

    def predict(self, columns: Array) -> Array:
        """Predictions (n_rows,) for columns (n_rows, n_stages)."""
        y_pred = self.blend.predict(columns)
        if self.trees is None or len(columns) == 0:
            return y_pred
        import lightgbm

        booster = lightgbm.Booster(model_str=self.trees)
        return y_pred + self.spread * booster.predict(
            scaled(columns[:, self.order], self.centre, self.spread), num_threads=1
        )


def scaled(columns: Array, centre: float, spread: float) -> Array:
    """Columns as the trees see them."""
    return (columns - centre) / spread


def fit_stack(target: Target, default: str, without: Folds = NONE) -> Stack:
    """The stack, fitted on the labelled rows of all folds but those in `without`.

    The residual of each row is that of the blend `default` fitted without the row's fold too. The number of trees
    comes from the squared error (absolute, for the MAE) of the folds left, each predicted by trees of the others.
    """
    blend = target.fit(default, without)
    inner = target.folds_left(without)
    columns = target.columns[target.usable]
    left = target.left(without)
    fitted = blend.predict(columns[left])
    centre, spread = (float(fitted.mean()), float(fitted.std())) if len(fitted) else (0.0, 0.0)
    if len(inner) < 2 or not spread > 0:
        return Stack(blend, centre, spread, target.order)
    residual = np.full(len(columns), np.nan)
    for fold in inner:
        held_out = target.known_folds == fold
        residual[held_out] = target.known_y[held_out] - target.fit(default, without | {fold}).predict(columns[held_out])
    features = scaled(columns[left][:, target.order], centre, spread)
    power = 1 if target.metric.name == "mae" else 2
    n_trees, trees = _fit_trees(features, residual[left] / spread, target.known_folds[left], power)
    return Stack(blend, centre, spread, target.order, n_trees, trees)


def _fit_trees(features: Array, residual: Array, folds: Array, power: int) -> tuple[int, str | None]:
    """Number of trees and their text, fitted on all rows given; (0, None) where trees do not help across folds.

    The number is the smallest that is not worse than the best one by more than a standard error of the difference,
    paired over the folds. Source: the one-standard-error rule, Breiman et al., CART, 1984, section 3.4.3.

    Args:
        features: (n_rows, n_stages).
        residual: (n_rows,).
        folds: (n_rows,), two or more distinct.
        power: 1 for the absolute error, 2 for the squared one.
    """
    import lightgbm

    parameters = {**PARAMETERS, "objective": f"l{power}", "metric": f"l{power}"}
    splits = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in np.unique(folds)]
    curve = [[float(np.mean(np.abs(residual[held_out]) ** power)) for _, held_out in splits]]

    def remember(environment: Any) -> None:
        curve.append([booster.eval_valid()[0][2] for booster in environment.model.boosters])

    lightgbm.cv(
        parameters,
        lightgbm.Dataset(features, residual, params=parameters),
        num_boost_round=MOST_TREES,
        folds=splits,
        callbacks=[remember, lightgbm.early_stopping(PATIENCE, verbose=False)],
    )
    losses = np.array(curve)  # (1 + trees tried, folds)
    worse = losses - losses[np.argmin(losses.mean(axis=1))]
    n_trees = int(np.argmax(worse.mean(axis=1) <= worse.std(axis=1, ddof=1) / np.sqrt(len(splits))))
    if n_trees == 0:
        return 0, None
    booster = lightgbm.train(parameters, lightgbm.Dataset(features, residual, params=parameters), n_trees)
    return n_trees, booster.model_to_string()
