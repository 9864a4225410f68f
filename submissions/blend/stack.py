"""The stack: the default blend, corrected by a level-2 model of small boosted trees.

The trees see the columns of all targets. They are fitted on the residual of the blend instead of the labels, so
regularization shrinks the correction and not the blend; the blend has seen the same rows, with few weights.
Probabilities are corrected in logits, by trees that start from the logits of the blend. Trees that do not reduce the
error across the folds of the rows they are fitted on are dropped. docs/benchmarks.md has measurements.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from competition.class_metrics import log_losses
from core.types import Array, Integers
from submissions.blend.candidates import fit_candidate
from submissions.blend.data import BlendData, FoldSet
from submissions.blend.logits import Link, logits, probabilities
from submissions.blend.serialization import Predictor, serializable

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
        spread: standard deviation of the blend's predictions, the unit of the trees in regression; 1
            for logits.
        trees: boosted trees in LightGBM's text format.
    """

    spread: float
    trees: str

    def predict(self, preds: Array, outputs: slice, link: Link) -> Array:
        """Return the correction on the scale of the link, (n_rows, n_outputs of the target).

        Args:
            preds: columns of all targets, (n_rows, n_models, n_outputs).
            outputs: the outputs of the target.
        """
        import lightgbm

        booster = lightgbm.Booster(model_str=self.trees)
        features = tree_features(preds, outputs, link)
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
        """Return predictions (n_rows, n_outputs) from columns (n_rows, n_models, n_outputs)."""
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


def fit_stack(data: BlendData, default: str, folds: FoldSet) -> Stack:
    """Return the stack on a blend, fitted on the rows of some folds.

    The number of trees, which may be 0, has the smallest error over these folds, each predicted by trees of the others.
    """
    base = fit_candidate(data, default, folds)
    in_folds = data.rows_in(folds)
    corrections = []
    for target in data.targets:
        rows = in_folds & ~np.isnan(data.y[:, target])
        corrections.append(_fit_correction(data, target, rows, base))
    return Stack(base, corrections, data.link)


def _fit_correction(
    data: BlendData, target: int, rows: NDArray[np.bool_], base: Predictor
) -> Correction | None:
    """Return the correction of one target; None if trees do not help or cannot be fitted.

    Args:
        rows: mask of the rows to fit on, (n_rows,).
    """
    folds = data.folds[rows]
    if len(np.unique(folds)) < 2:
        return None
    outputs = data.outputs_of(target)
    x = tree_features(data.preds[rows], outputs, data.link)
    y = data.y[rows, target]
    of_blend = logits(base.predict(data.preds[rows])[:, outputs], data.link, MIN_BLEND_PROBABILITY)
    if data.task.has_probabilities:
        trees = fit_trees(x, y, folds, start=of_blend)
        return Correction(1.0, trees) if trees else None
    spread = float(of_blend.std())
    if not spread > 0:
        return None
    power = 1 if data.metric.separable_loss == "absolute" else 2
    trees = fit_trees(x, (y - of_blend[:, 0]) / spread, folds, power)
    return Correction(spread, trees) if trees else None


def tree_features(preds: Array, outputs: slice, link: Link) -> Array:
    """Return the features of a target's trees, (n_rows, n_models * n_outputs).

    They are the columns of the target on the scale of the link, then those for the other outputs.

    Args:
        preds: (n_rows, n_models, n_outputs).
        outputs: the outputs of the target.
    """
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
