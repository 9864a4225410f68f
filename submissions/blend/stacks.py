"""The stack: the default blend and a level-2 model, small trees, that corrects what the blend leaves.

The trees see the columns of all targets. They are fitted on the blend's residual and not on the labels: what shrinks is
then the correction. Probabilities are corrected in logits, by trees that start from those of the blend. All of it comes
from the rows a stack is fitted on, so that it can be refitted without a fold. Trees that do not help inside those rows
are left out. benchmarks/switches.py has the measurements.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition.class_metrics import log_losses
from competition.types import Array, Integers
from submissions.blend.candidates import Candidate
from submissions.blend.cross_fitting import cross_fitted
from submissions.blend.logits import Link, logits, probabilities
from submissions.blend.serialization import Predictor, serializable
from submissions.blend.weight_problem import NO_FOLDS, BlendData, FoldSet

LIGHTGBM_STACK = "lightgbm_stack"
MOST_TREES, PATIENCE = 300, 30
PARAMETERS: dict[str, Any] = {
    "num_leaves": 3,  # two splits: with three, memorising columns and near-duplicates were taken for a gain
    "learning_rate": 0.05,
    "lambda_l2": 20.0,  # a leaf of 20 rows moves half as far as their mean
    "min_data_in_leaf": 20,  # a handful of near-duplicates cannot have a leaf of their own
    "max_bin": 63,
    "boost_from_average": False,  # the mean residual is shrunk like everything else
    "feature_pre_filter": False, "deterministic": True, "force_row_wise": True,
    "num_threads": 1, "seed": 0, "verbosity": -1,
}  # fmt: skip
CLASSIFICATION_LAMBDA_L2, LEAST_OF_BLEND = 5.0, 1e-6
"""The same shrinkage where the curvature of a row is 1/4 at most; and what a blend's probability of 0 is read as."""


@serializable
@dataclass(frozen=True)
class Correction:
    """What is added to the blend of one target.

    order: of the columns, given by their content, so that the names of stages change nothing.
    spread: of the blend's predictions, the unit in which numbers are corrected; 1 in logits.
    trees: boosted trees in LightGBM's text format.
    """

    order: list[int]
    spread: float
    trees: str

    def predict(self, P: Array, own: slice, link: Link) -> Array:
        """For columns (n_rows, n_columns, n_outputs) of all targets, (n_rows, n_own_outputs) in the blend's scale."""
        import lightgbm

        booster = lightgbm.Booster(model_str=self.trees)
        added = booster.predict(tree_features(P, self.order, own, link), raw_score=True, num_threads=1)
        return self.spread * np.asarray(added).reshape(len(P), -1)


@serializable
@dataclass(frozen=True)
class Stack:
    """A blend of all outputs, and a correction of each target; None where there is none."""

    base: Predictor
    corrections: list[Correction | None]
    link: Link = "identity"

    def predict(self, P: Array) -> Array:
        """Predictions (n_rows, n_outputs) for columns (n_rows, n_columns, n_outputs)."""
        y_pred = self.base.predict(P)
        for t, correction in enumerate(self.corrections):
            if correction is not None and len(P):
                own = slice(None) if self.link == "softmax" else slice(t, t + 1)
                sums = logits(y_pred[:, own], self.link, LEAST_OF_BLEND) + correction.predict(P, own, self.link)
                y_pred[:, own] = probabilities(sums, self.link)
        return y_pred

    def only(self, outputs: NDArray[np.bool_]) -> "Stack":
        """The same without the corrections of all but some outputs, (n_outputs,)."""
        parts = zip(self.corrections, outputs.reshape(len(self.corrections), -1), strict=True)
        return replace(self, corrections=[found if kept.any() else None for found, kept in parts])


class StackCandidate(Candidate):
    """A stack on the blend `default` as a candidate.

    The residual of each row is that of the blend fitted without the row's fold too; size and use of the correction come
    from the error in the folds left, each predicted by a correction of the others.
    """

    def __init__(self, default: Candidate) -> None:
        self.default = default

    def fit(self, m: BlendData, without: FoldSet = NO_FOLDS) -> Stack:
        """See `Candidate`."""
        base, left = self.default.fit(m, without), m.rows_outside(without)
        start = logits(cross_fitted(self.default, m, without), m.link, LEAST_OF_BLEND)
        corrections = list[Correction | None]()
        for t, rows in enumerate((left[:, None] & ~np.isnan(m.y)).T):
            own, order = m.outputs_of(t), m.problems[t % len(m.problems)].order.tolist()
            y_pred, trees, spread = base.predict(m.preds[rows])[:, own], None, 1.0
            if len(np.unique(m.folds[rows])) > 1 and y_pred.std() > 0:
                x = tree_features(m.preds[rows], order, own, m.link)
                if m.has_probabilities:
                    trees = fit_trees(x, m.y[rows, t], m.folds[rows], start=start[rows, own])
                else:
                    spread = y_pred.std()
                    residual = (m.y - start)[rows, t] / spread
                    trees = fit_trees(x, residual, m.folds[rows], 1 if m.convex_objective == "absolute" else 2)
            corrections.append(Correction(order, spread, trees) if trees else None)
        return Stack(base, corrections, m.link)


def tree_features(P: Array, order: list[int], own: slice, link: Link) -> Array:
    """The columns of a target and, behind them, those of the others, (n_rows, n_columns * n_outputs)."""
    P = P[:, order]
    of_target, of_others = logits(P[:, :, own], link), np.delete(P, own, axis=2)
    return np.hstack([each.reshape(len(P), -1) for each in (of_target, of_others)])


def best_n_trees(losses: Array) -> int:
    """Which row of losses (n_models, n_folds) has the least mean."""
    return int(np.argmin(losses.mean(axis=1)))


def fit_trees(x: Array, y: Array, folds: Integers, power: int = 2, start: Array | None = None) -> str | None:
    """Small boosted trees, as many as have the least error across the folds, as text; None where none help.

    Args:
        x: (n_rows, n_inputs).
        y: residuals (n_rows,), or the numbers of classes.
        folds: (n_rows,), two or more distinct.
        power: 1 for the absolute error, 2 for the squared one.
        start: where y are classes, the blend's logits (n_rows, n_outputs).
    """
    import lightgbm

    parameters, uncorrected = {**PARAMETERS, "objective": f"l{power}"}, np.abs(y) ** power
    if start is not None:
        parameters |= {"objective": "multiclass", "num_class": start.shape[1], "lambda_l2": CLASSIFICATION_LAMBDA_L2}
        link: Link = "softmax"
        if start.shape[1] == 1:
            start, link, parameters = start[:, 0], "logistic", parameters | {"objective": "binary", "num_class": 1}
        uncorrected = log_losses(y, probabilities(start, link))

    def rows() -> lightgbm.Dataset:
        return lightgbm.Dataset(x, y, init_score=start, params=parameters)

    splits = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in np.unique(folds)]
    losses = [[np.mean(uncorrected[held_out]) for _, held_out in splits]]

    def remember(environment: Any) -> None:
        losses.append([booster.eval_valid()[0][2] for booster in environment.model.boosters])

    callbacks = [remember, lightgbm.early_stopping(PATIENCE, verbose=False)]
    lightgbm.cv(parameters, rows(), num_boost_round=MOST_TREES, folds=splits, callbacks=callbacks)
    n_trees = best_n_trees(np.array(losses))
    return lightgbm.train(parameters, rows(), n_trees).model_to_string() if n_trees else None
