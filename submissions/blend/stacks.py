"""The stack: the default blend, corrected by a level-2 model of small boosted trees.

The trees see the base predictions of all targets. They are fitted on the residual of the blend instead
of the labels, so regularization shrinks the correction and not the blend. Probabilities are corrected
in logits, by trees that start from the logits of the blend. Everything is fitted on the rows of the
stack only, so that it can be refitted without a fold. Trees that do not reduce the error across the
folds of these rows are dropped. benchmarks/switches.py has the measurements.
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
MAX_TREES = 300
PATIENCE = 30
"""Trees without improvement after which training stops."""
PARAMETERS: dict[str, Any] = {
    "num_leaves": 3,  # two splits; with three, trees memorized near-duplicates and this was taken for a gain
    "learning_rate": 0.05,
    "lambda_l2": 20.0,  # a leaf of 20 rows moves half as far as their mean
    "min_data_in_leaf": 20,  # a few near-duplicates cannot fill a leaf
    "max_bin": 63,
    "boost_from_average": False,  # the mean residual is shrunk like everything else
    "feature_pre_filter": False, "deterministic": True, "force_row_wise": True,
    "num_threads": 1, "seed": 0, "verbosity": -1,
}  # fmt: skip
CLASSIFICATION_LAMBDA_L2 = 5.0
"""`lambda_l2` for classification; the shrinkage is equal, since the curvature of a row is at most 1/4."""
MIN_BLEND_PROBABILITY = 1e-6
"""Probabilities of the blend are clipped here before the logits are computed."""


@serializable
@dataclass(frozen=True)
class Correction:
    """The correction of one target.

    Attributes:
        order: indices of the base models in the order that the trees see, which depends on content and
            not on names.
        spread: standard deviation of the blend's predictions, the unit of the trees in regression; 1
            for logits.
        trees: boosted trees in LightGBM's text format.
    """

    order: list[int]
    spread: float
    trees: str

    def predict(self, preds: Array, outputs: slice, link: Link) -> Array:
        """Return the correction on the scale of the link, (n_rows, n_outputs of the target).

        Args:
            preds: base predictions of all targets, (n_rows, n_models, n_outputs).
            outputs: the outputs of the target.
        """
        import lightgbm

        booster = lightgbm.Booster(model_str=self.trees)
        features = tree_features(preds, self.order, outputs, link)
        correction = booster.predict(features, raw_score=True, num_threads=1)
        return self.spread * np.asarray(correction).reshape(len(preds), -1)


@serializable
@dataclass(frozen=True)
class Stack:
    """A blend with a correction for each target.

    Attributes:
        base: the blend of all outputs.
        corrections: one per target; None for a target that is not corrected.
        link: scale on which predictions are corrected.
    """

    base: Predictor
    corrections: list[Correction | None]
    link: Link = "identity"

    def predict(self, preds: Array) -> Array:
        """Return predictions (n_rows, n_outputs) from base predictions (n_rows, n_models, n_outputs)."""
        y_pred = self.base.predict(preds)
        for target, correction in enumerate(self.corrections):
            if correction is not None and len(preds):
                outputs = slice(None) if self.link == "softmax" else slice(target, target + 1)
                blend_logits = logits(y_pred[:, outputs], self.link, MIN_BLEND_PROBABILITY)
                corrected = blend_logits + correction.predict(preds, outputs, self.link)
                y_pred[:, outputs] = probabilities(corrected, self.link)
        return y_pred

    def only(self, outputs: NDArray[np.bool_]) -> "Stack":
        """Return the stack with the corrections of the outputs in a mask (n_outputs,) only."""
        target_masks = outputs.reshape(len(self.corrections), -1)
        corrections = []
        for correction, mask in zip(self.corrections, target_masks, strict=True):
            corrections.append(correction if mask.any() else None)
        return replace(self, corrections=corrections)


class StackCandidate(Candidate):
    """A stack on the blend `default` as a candidate.

    The residual of a row comes from the blend without the row's fold. The number of trees, which may be
    0, has the smallest error over the folds of the rows it is fitted on, each predicted by trees of the
    other folds.
    """

    def __init__(self, default: Candidate) -> None:
        self.default = default

    def fit(self, data: BlendData, excluded_folds: FoldSet = NO_FOLDS) -> Stack:
        """Return the stack fitted on the rows outside `excluded_folds`."""
        base = self.default.fit(data, excluded_folds)
        has_fold = data.rows_outside(excluded_folds)
        blend_oof = logits(cross_fitted(self.default, data, excluded_folds), data.link, MIN_BLEND_PROBABILITY)
        corrections = []
        for target in range(data.y.shape[1]):
            rows = has_fold & ~np.isnan(data.y[:, target])
            corrections.append(_fit_correction(data, target, rows, base, blend_oof))
        return Stack(base, corrections, data.link)


def _fit_correction(
    data: BlendData, target: int, rows: NDArray[np.bool_], base: Predictor, blend_oof: Array
) -> Correction | None:
    """Return the correction of one target; None if trees do not help or cannot be fitted.

    Args:
        rows: mask of the rows to fit on, (n_rows,).
        blend_oof: cross-fitted predictions of the blend on the scale of the link, (n_rows, n_outputs).
    """
    outputs = data.outputs_of(target)
    order = data.problems[target % len(data.problems)].model_order.tolist()
    folds = data.folds[rows]
    if len(np.unique(folds)) < 2:
        return None
    std = base.predict(data.preds[rows])[:, outputs].std()
    if not std > 0:
        return None
    x = tree_features(data.preds[rows], order, outputs, data.link)
    if data.has_probabilities:
        std = 1.0
        trees = fit_trees(x, data.y[rows, target], folds, start=blend_oof[rows, outputs])
    else:
        residual = (data.y[rows, target] - blend_oof[rows, target]) / std
        trees = fit_trees(x, residual, folds, power=1 if data.convex_objective == "absolute" else 2)
    return Correction(order, std, trees) if trees else None


def tree_features(preds: Array, order: list[int], outputs: slice, link: Link) -> Array:
    """Return the features of a target's trees, (n_rows, n_models * n_outputs).

    They are the base predictions of the target on the scale of the link, then those for the other
    outputs.

    Args:
        preds: (n_rows, n_models, n_outputs).
        order: order of the models.
        outputs: the outputs of the target.
    """
    preds = preds[:, order]
    target_features = logits(preds[:, :, outputs], link)
    other_features = np.delete(preds, outputs, axis=2)
    return np.hstack([target_features.reshape(len(preds), -1), other_features.reshape(len(preds), -1)])


def best_n_trees(losses: Array) -> int:
    """Return the number of trees with the smallest mean loss.

    Args:
        losses: (1 + n_trees, n_folds), for 0, 1, 2, ... trees.
    """
    return int(np.argmin(losses.mean(axis=1)))


def fit_trees(x: Array, y: Array, folds: Integers, power: int = 2, start: Array | None = None) -> str | None:
    """Fit small boosted trees, as many as have the smallest error across the folds.

    Args:
        x: (n_rows, n_features).
        y: residuals (n_rows,), or class numbers.
        folds: (n_rows,), with at least two different folds.
        power: 1 for the absolute error, 2 for the squared error.
        start: for classification, logits of the blend, (n_rows, n_outputs).

    Returns:
        The trees in LightGBM's text format; None if no number of trees reduces the error.
    """
    import lightgbm

    parameters = {**PARAMETERS, "objective": f"l{power}"}
    blend_losses = np.abs(y) ** power
    if start is not None:
        link: Link = "softmax"
        parameters |= {"objective": "multiclass", "num_class": start.shape[1]}
        parameters["lambda_l2"] = CLASSIFICATION_LAMBDA_L2
        if start.shape[1] == 1:
            link = "logistic"
            start = start[:, 0]
            parameters |= {"objective": "binary", "num_class": 1}
        blend_losses = log_losses(y, probabilities(start, link))

    def make_dataset() -> lightgbm.Dataset:
        return lightgbm.Dataset(x, y, init_score=start, params=parameters)

    splits = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in np.unique(folds)]
    losses = [[np.mean(blend_losses[held_out]) for _, held_out in splits]]

    def record_losses(environment: Any) -> None:
        losses.append([booster.eval_valid()[0][2] for booster in environment.model.boosters])

    callbacks = [record_losses, lightgbm.early_stopping(PATIENCE, verbose=False)]
    lightgbm.cv(parameters, make_dataset(), num_boost_round=MAX_TREES, folds=splits, callbacks=callbacks)
    n_trees = best_n_trees(np.array(losses))
    if n_trees == 0:
        return None
    return lightgbm.train(parameters, make_dataset(), n_trees).model_to_string()
